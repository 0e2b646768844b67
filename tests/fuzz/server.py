"""A server on loopback that answers whatever an input says, bytes that are no HTTP included."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple


class Request(NamedTuple):
    """What a client asks for."""

    method: str
    path: str
    """With its query."""
    headers: dict[str, str]
    """Names in lower case."""


@dataclass
class Answer:
    """What it is told."""

    status: int = 200
    body: bytes = b""
    headers: list[tuple[str, str]] = field(default_factory=list)
    length: int | None = None
    """Content-Length where it is a lie; -1 for none."""
    cut: int | None = None
    """Bytes of the body after which the connection breaks off."""


Respond = Callable[[Request], Answer]
TIMEOUT = 3.0


class Server:
    """``with Server(respond) as server:`` answers at ``server.url`` until the block ends."""

    def __init__(self, respond: Respond) -> None:
        self._respond = respond
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Server:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._socket.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Answer one request and close: every answer then has an end."""
        with connection, contextlib.suppress(OSError, ValueError):
            connection.settimeout(TIMEOUT)
            request = _read(connection)
            if request is None:
                return
            answer = self._respond(request)
            connection.sendall(_head(answer))
            if request.method != "HEAD":
                connection.sendall(answer.body[: answer.cut])
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(1 << 16):  # a client that still writes must not see a reset
                pass


def _read(connection: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(1 << 16)
        if not piece:
            return None
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {
        name.lower(): value.strip() for name, _, value in (li.partition(":") for li in lines)
    }
    missing = int(headers.get("content-length", "0")) - len(body)
    while missing > 0:
        missing -= len(connection.recv(1 << 16)) or missing
    return Request(method, path, headers)


def _head(answer: Answer) -> bytes:
    length = len(answer.body) if answer.length is None else answer.length
    headers = [("Connection", "close"), *answer.headers]
    if length >= 0:
        headers.append(("Content-Length", str(length)))
    lines = [
        f"HTTP/1.1 {answer.status} x",
        *(f"{name}: {value}" for name, value in headers),
        "",
        "",
    ]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass")


def ranged(request: Request, content: bytes) -> Answer:
    """A file, or the part of it that the request's Range asks for."""
    _, _, span = request.headers.get("range", "").partition("bytes=")
    first, _, last = span.partition("-")
    if not first.isdigit():
        return Answer(200, content)
    start, stop = int(first), min(int(last) + 1 if last.isdigit() else len(content), len(content))
    if start >= stop:
        return Answer(416)
    return Answer(
        206, content[start:stop], [("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")]
    )
