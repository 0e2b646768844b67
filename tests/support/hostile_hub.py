"""A hub that lies, stalls or never ends, in one way at a time; honest where `scenario` is empty.

Each scenario is a small function of the request handler, by the part of the API that it abuses.
"""

from __future__ import annotations

import gzip
import itertools
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from saeaudit.cli.app import app
from tests.support.hub import Handler, Hub

OID = "b" * 64
OUT = "../../../../decoy/start.py"
"""From a blob, a snapshot or a reference in the cache to the user's own files."""
MADE = "../../../../decoy/made.py"
"""A file that is not there yet."""
Lie = Callable[["HostileHandler"], None]


class HostileHandler(Handler):
    """Answers as the scenario says, elsewhere as an honest hub."""

    scenario = ""

    def info(self, repo: str, revision: str | None) -> None:
        self.lie(INFO) or super().info(repo, revision)

    def tree(self, repo: str, below: str) -> None:
        self.lie(TREE) or super().tree(repo, below)

    def resolve(self, repo: str, path: str, *, body: bool) -> None:
        self.path_asked = f"{repo}/{path}"
        self.lie(HARMLESS) or super().resolve(repo, path, body=body)

    def content(self, path: str, *, body: bool) -> None:
        self.path_asked = path
        self.lie(CONTENT) or super().content(path, body=body)

    def lie(self, lies: dict[str, Lie]) -> bool:
        if made := lies.get(type(self).scenario):
            self.close_connection = True
            try:
                made(self)
            except OSError:  # whoever asked has gone away
                pass
        return made is not None

    def send(self, content: bytes, status: int = 200, **headers: object) -> None:
        """An answer with these headers; Content_Length=None leaves the length out."""
        self.send_response(status)
        for name, value in {"Content_Length": len(content), **headers}.items():
            if value is not None:
                self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        self.wfile.write(content)

    def wait(self, seconds: float) -> None:
        """Not time.sleep, which tests replace."""
        threading.Event().wait(seconds)

    def trickle(self, content: bytes, seconds: float = 0.1) -> None:
        for byte in content:
            self.wfile.write(bytes([byte]))
            self.wfile.flush()
            self.wait(seconds)

    def served(self) -> bytes:
        """What an honest hub would send."""
        return (self.hub.root / self.path_asked).read_bytes()


def entry(path: str = "a/params.npz", size: Any = 10, oid: Any = OID) -> dict[str, Any]:
    return {"type": "file", "path": path, "size": size, "oid": "c" * 40, "lfs": {"oid": oid}}


def listing(*entries: Any) -> Lie:
    return lambda hub: hub.json(list(entries))


def silent(hub: HostileHandler) -> None:
    hub.wait(20)


def slow_headers(hub: HostileHandler) -> None:
    hub.trickle(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 500)


def slow_chunk_size(hub: HostileHandler) -> None:
    hub.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;")
    hub.trickle(b"y" * 500)


def slow_body(hub: HostileHandler) -> None:
    hub.send(b"", Content_Length=10_000)
    hub.trickle(b"[" * 500)


def endless(hub: HostileHandler) -> None:
    hub.send(b"", Content_Length=None)
    while True:
        hub.wfile.write(b"[" * 65536)


def login_page(hub: HostileHandler) -> None:
    hub.send(b"<html>please log in</html>", Content_Type="text/html")


def bomb(hub: HostileHandler) -> None:
    hub.send(gzip.compress(b" " * (64 << 20), 1), Content_Encoding="gzip")


def redirects_for_ever(hub: HostileHandler) -> None:
    hub.send(b"", 302, Location=hub.path)


def redirects_to_a_file(hub: HostileHandler) -> None:
    hub.send(b"", 302, Location="file:///etc/passwd")


def wait_for_ever(hub: HostileHandler) -> None:
    hub.send(b"", 429, Retry_After="200")


def wait_an_age(hub: HostileHandler) -> None:
    hub.send(b"", 503, Retry_After="1" + "0" * 9)


def wait_till_doomsday(hub: HostileHandler) -> None:
    hub.send(b"", 429, Retry_After="Fri, 31 Dec 9999 23:59:59 GMT")


def pages_for_ever(hub: HostileHandler) -> None:
    number = next(COUNTER)
    link = f'<http://127.0.0.1:{hub.hub.port}/api/models/o/r/tree/x?cursor={number}>; rel="next"'
    hub.json([entry(f"a/{number}.npz")], Link=link)


def empty_pages_for_ever(hub: HostileHandler) -> None:
    link = f'<http://127.0.0.1:{hub.hub.port}{hub.path}&cursor={next(COUNTER)}>; rel="next"'
    hub.json([], Link=link)


def same_page_again(hub: HostileHandler) -> None:
    hub.json([entry(f"a/{next(COUNTER)}.npz")], Link=f'<{hub.path}>; rel="next"')


def pages_elsewhere(hub: HostileHandler) -> None:
    hub.json([entry()], Link=f'<http://localhost:{hub.hub.port}{hub.path}>; rel="next"')


def too_many(hub: HostileHandler) -> None:
    hub.json([entry(f"a/{number}.npz") for number in range(5_000)])


def slow_trickle(hub: HostileHandler) -> None:
    content = hub.served()
    hub.send(b"", Content_Length=len(content))
    hub.trickle(content[:500])


def empty_range(hub: HostileHandler) -> None:
    size = len(hub.served())
    hub.send(b"", 206, Content_Range=f"bytes 0-{size - 1}/{size}")


def another_range(hub: HostileHandler) -> None:
    size = len(hub.served())
    hub.send(b"x" * 100, 206, Content_Range=f"bytes {size - 100}-{size - 1}/{size}")


def longer(hub: HostileHandler) -> None:
    hub.send(hub.served() + b"x" * 100_000, Content_Length=None)


def other_bytes(hub: HostileHandler) -> None:
    hub.send(b"x" * len(hub.served()))


def encoded(hub: HostileHandler) -> None:
    size = len(hub.served())
    hub.send(gzip.compress(b" " * (size * 100)), Content_Encoding="gzip", Content_Length=None)


def etag_leads_out(hub: HostileHandler) -> None:
    content = hub.served()
    hub.send(
        b"" if hub.command == "HEAD" else content,
        Content_Length=len(content), ETag=f'"{MADE}"', X_Repo_Commit=hub.hub.commit,
    )  # fmt: skip


COUNTER = itertools.count()
ANYWHERE: dict[str, Lie] = {
    "silent": silent, "slow headers": slow_headers, "slow chunk size": slow_chunk_size,
    "slow body": slow_body, "login page": login_page, "bomb": bomb,
    "redirects for ever": redirects_for_ever, "redirects to a file": redirects_to_a_file,
    "wait for ever": wait_for_ever, "wait an age": wait_an_age,
    "wait till doomsday": wait_till_doomsday,
}  # fmt: skip
ANSWERS: dict[str, Lie] = ANYWHERE | {
    "endless": endless,
    "deep JSON": lambda hub: hub.send(b"[" * 1_000_000),
    "huge number": lambda hub: hub.send(b'[{"size": ' + b"9" * 100_000 + b"}]"),
    "no UTF-8": lambda hub: hub.send(b"\xff\xfe\xfd"),
    "another shape": lambda hub: hub.json({"sha": ["a" * 40]}),
    "text": lambda hub: hub.json("a" * 40),
    "null": lambda hub: hub.json(None),
    "404": lambda hub: hub.send(b"", 404),
    "204": lambda hub: hub.send(b"", 204),
}
INFO = {f"info: {name}": lie for name, lie in ANSWERS.items()} | {
    "info: sha leads out": lambda hub: hub.json({"sha": OUT}),
    "info: sha too short": lambda hub: hub.json({"sha": "a" * 39}),
    "info: sha of other letters": lambda hub: hub.json({"sha": "z" * 40}),
    "info: sha with a newline": lambda hub: hub.json({"sha": "a" * 40 + "\n"}),
}
TREE = {f"tree: {name}": lie for name, lie in ANSWERS.items()} | {
    "tree: oid leads out": listing(entry(oid=OUT)),
    "tree: oid too short": listing(entry(oid="b" * 63)),
    "tree: oid is no text": listing(entry(oid=[OID])),
    "tree: git oid leads out": listing({**entry(), "oid": OUT, "lfs": None}),
    "tree: no oid": listing({"type": "file", "path": "a/params.npz", "size": 10}),
    "tree: name leads out": listing(entry("../../../decoy/start.py")),
    "tree: name from the root": listing(entry("/decoy/start.py")),
    "tree: name with a null": listing(entry("a/par\0ams.npz")),
    "tree: name with an escape": listing(entry("a/\x1b[2Jparams.npz")),
    "tree: name is half a letter": lambda hub: hub.send(
        json.dumps([entry("a/\ud800.npz")]).encode()
    ),
    "tree: name too long": listing(entry(f"a/{'n' * 300}/params.npz")),
    "tree: name too deep": listing(entry("a/" * 5_000 + "params.npz")),
    "tree: name is no text": listing({**entry(), "path": 7}),
    "tree: size negative": listing(entry(size=-1)),
    "tree: size huge": listing(entry(size=1 << 60)),
    "tree: size is true": listing(entry(size=True)),
    "tree: size is text": listing(entry(size="10")),
    "tree: entry is a number": listing(7),
    "tree: twice": listing(entry(), entry(oid="d" * 64)),
    "tree: file and folder": listing(entry("a"), entry("a/params.npz")),
    "tree: folder and file": listing({"type": "directory", "path": "a/params.npz"}, entry()),
    "tree: pages for ever": pages_for_ever,
    "tree: empty pages for ever": empty_pages_for_ever,
    "tree: same page again": same_page_again,
    "tree: pages elsewhere": pages_elsewhere,
    "tree: too many": too_many,
    "tree: larger than the disk": listing(entry(size=1 << 50)),
}
CONTENT = {f"content: {name}": lie for name, lie in ANYWHERE.items()} | {
    "content: endless": endless,
    "content: slow trickle": slow_trickle,
    "content: empty range": empty_range,
    "content: another range": another_range,
    "content: longer": longer,
    "content: shorter": lambda hub: hub.send(hub.served()[:-100]),
    "content: other bytes": other_bytes,
    "content: encoded": encoded,
    "content: cut at once": lambda hub: hub.send(b"", Content_Length=len(hub.served())),
    "content: 404": lambda hub: hub.send(b"", 404),
    "content: 204": lambda hub: hub.send(b"", 204),
    "content: 416": lambda hub: hub.send(b"", 416),
    "content: 500": lambda hub: hub.send(b"\x1b[31m" * 100_000, 500),
}
HARMLESS = {"resolve: ETag leads out": etag_leads_out}
"""A lie that a fetch does not even notice."""


TARGET = "hf://o/r/a"


SLOW = ("silent", "slow", "pages for ever")
"""Scenarios that are told by time alone."""


@dataclass
class World:
    """A hub, the cache, and the files of a user who has nothing to do with either."""

    hub: Hub
    cache: Path
    decoy: Path
    handler: type[HostileHandler]
    waits: list[float]
    capture: pytest.CaptureFixture[str]

    def play(self, scenario: str) -> None:
        self.handler.scenario = scenario

    def run(self, *arguments: str) -> tuple[int, list[str]]:
        """Exit status and the lines on standard error."""
        self.capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            app(list(arguments))
        return int(ended.value.code or 0), self.capture.readouterr().err.splitlines()

    def outside(self) -> dict[str, Any]:
        """Everything that lies outside of the cache, with its content and time."""
        root = self.decoy.parent
        return {
            str(path): (path.read_bytes(), path.stat().st_mtime_ns) if path.is_file() else None
            for path in root.rglob("*")
            if not path.is_relative_to(self.cache)
        }
