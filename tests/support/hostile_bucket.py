"""A bucket on loopback that answers whatever a test says, and remembers what it was asked."""

from __future__ import annotations

import gzip
import json
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from xml.sax.saxutils import escape

Answer = Callable[[BaseHTTPRequestHandler], None]


def entry(key: str, size: object) -> str:
    return f"<Contents><Key>{escape(key)}</Key><Size>{size}</Size></Contents>"


def page(*entries: str, token: str = "") -> bytes:
    more = f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    truncated = "true" if token else "false"
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        f"<IsTruncated>{truncated}</IsTruncated>{more}{''.join(entries)}</ListBucketResult>"
    ).encode()


def content(body: bytes, status: int = 200, length: int | None = None, **headers: str) -> Answer:
    """An answer with a body; `length` is what it claims."""

    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.send_header("Connection", "close")  # or the client might ask on this connection
        handler.end_headers()
        handler.wfile.write(body)
        handler.close_connection = True

    return answer


def html(text: str = "<!DOCTYPE html><html><body>Please log in</body></html>") -> Answer:
    return content(text.encode(), Content_Type="text/html; charset=utf-8")


@dataclass
class Bucket:
    """What the server answers, and what it was asked."""

    listing: Callable[[int], Answer]
    """From the number of the page."""
    files: dict[str, Answer] = field(default_factory=dict)
    """By the last part of the key; others are not there."""
    headers: list[dict[str, str]] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    """Ends answers that wait."""
    url: str = ""

    def silent(self, handler: BaseHTTPRequestHandler) -> None:
        """An answer that never comes."""
        self.stop.wait(60)
        handler.close_connection = True


class Serving:
    """``with Serving(bucket):`` serves it until the block ends."""

    def __init__(self, bucket: Bucket) -> None:
        pages = 0

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *arguments: object) -> None:
                pass

            def do_GET(self) -> None:
                nonlocal pages
                parts = urllib.parse.urlsplit(self.path)
                bucket.headers.append({k.lower(): v for k, v in self.headers.items()})
                bucket.requests.append(parts.path)
                if "list-type" in parts.query:
                    answer = bucket.listing(pages)
                    pages += 1
                else:
                    name = parts.path.rpartition("/")[2]
                    answer = bucket.files.get(name, content(b"not here", 404))
                answer(self)

        self._bucket = bucket
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        bucket.url = f"http://127.0.0.1:{self._server.server_address[1]}/bucket"
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.02,), daemon=True)

    def __enter__(self) -> Bucket:
        self._thread.start()
        return self._bucket

    def __exit__(self, *error: object) -> None:
        self._bucket.stop.set()
        self._server.shutdown()
        self._server.server_close()


SOURCE = "gemma-2-2b/16-gemmascope-res-16k"
PREFIX = f"v1/{SOURCE}/explanations/"


def packed(*rows: object) -> bytes:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    return gzip.compress(text.encode(), mtime=0)


BATCHES = {
    f"batch-{n}.jsonl.gz": packed(
        *({"id": f"{n}-{i}", "index": str(100 * n + i), "description": f"the {n} {i}"}
          for i in range(20))
    )
    for n in range(3)
}  # fmt: skip


def honest() -> Bucket:
    listing = page(*(entry(PREFIX + name, len(body)) for name, body in BATCHES.items()))
    files = {name: content(body) for name, body in BATCHES.items()}
    return Bucket(lambda _: content(listing), files)
