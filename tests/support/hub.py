"""A small hub on loopback that speaks enough of the hub's HTTP API for the real client.

Serves repositories from folders: model info, tree in pages, resolve with redirect, ETag, Range, LFS
metadata. Faults are set per path: see `Hub.faults`.
"""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np

LFS_SUFFIXES = (".npz", ".safetensors", ".pt", ".pth", ".npy", ".parquet")
REPOSITORY = r"(models|datasets)/([^/]+/[^/]+)"
"""As addresses of the hub's interface have it."""


def served(kind: str, repository: str) -> str:
    """The folder that a repository is served from."""
    return repository if kind == "models" else f"{kind}/{repository}"


@dataclass
class Hub:
    """The server's state, for tests to set and read."""

    root: Path
    """``owner/name/…`` folders of models, ``datasets/owner/name/…`` of data sets."""
    commit: str = "a" * 40
    branches: dict[str, str] = field(default_factory=dict)
    """Other revisions, and their commits; what they hold is served from ``owner/name@commit``."""
    faults: dict[str, list[Any]] = field(default_factory=dict)
    """Path suffix → what happens on successive requests for it: a status, "cut", "flip", "slow"."""
    sent: Counter[str] = field(default_factory=Counter)
    """Bytes of content sent, by path."""
    requests: list[str] = field(default_factory=list)
    authorized: list[str] = field(default_factory=list)
    """Host and path of requests that came with a token."""
    port: int = 0
    base: str = ""
    """Path below which the hub answers, as behind a mirror's proxy."""
    page: int = 1000
    """Entries in a page of a listing."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{self.base}"

    def next_fault(self, path: str) -> Any:
        for suffix, queue in self.faults.items():
            if path.endswith(suffix) and queue:
                return queue[1] if queue[0] == "always" else queue.pop(0)
        return None


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.headers.get("Authorization"):
            self.hub.authorized.append(f"{self.headers['Host']}{path}")
        path = path.removeprefix(self.hub.base)
        if match := re.fullmatch(rf"/api/{REPOSITORY}(?:/revision/(.+))?", path):
            return self.info(served(*match.group(1, 2)), match[3])
        if match := re.fullmatch(rf"/api/{REPOSITORY}/tree/([^/]+)(?:/(.*))?", path):
            return self.tree(self.at(served(*match.group(1, 2)), match[3]), match[4] or "")
        if match := re.fullmatch(r"/((?:datasets/)?[^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(self.at(match[1], match[2]), match[3], body=body)
        if path.startswith("/cdn/"):
            return self.content(path.removeprefix("/cdn/"), body=body)
        if path.startswith("/bucket"):
            return self.bucket(path, body=body)
        self.fail(404)

    def at(self, repo: str, commit: str) -> str:
        return f"{repo}@{commit}" if commit in self.hub.branches.values() else repo

    def fail(self, status: int, code: str = "", **headers: str) -> None:
        content = b'{"error":"made to fail"}'
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def json(self, value: Any, **headers: str) -> None:
        content = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        for name, text in headers.items():
            self.send_header(name, text)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def refused(self, repo: str) -> bool:
        fault = self.hub.next_fault(repo)
        if fault in (401, 403, 404, 429, 500):
            codes = {401: "RepoNotFound", 403: "GatedRepo", 404: "RepoNotFound"}
            extra = {"Retry_After": "0"} if fault == 429 else {}
            self.fail(fault, codes.get(fault, ""), **extra)
            return True
        if not (self.hub.root / repo).is_dir():
            self.fail(401, "RepoNotFound")
            return True
        return False

    def info(self, repo: str, revision: str | None) -> None:
        if self.refused(repo):
            return
        commit = self.hub.branches.get(revision or "main", self.hub.commit)
        if revision not in (None, "main", commit) and commit == self.hub.commit:
            return self.fail(404, "RevisionNotFound")
        self.json({"id": repo, "modelId": repo, "sha": commit, "siblings": []})

    def entry(self, folder: Path, file: Path) -> dict[str, Any]:
        content = file.read_bytes()
        made: dict[str, Any] = {
            "type": "file", "path": file.relative_to(folder).as_posix(), "size": len(content),
            "oid": hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(),
        }  # fmt: skip
        if file.suffix in LFS_SUFFIXES:
            sha256 = hashlib.sha256(content).hexdigest()
            made["lfs"] = {"oid": sha256, "size": len(content), "pointerSize": 134}
        return made

    def tree(self, repo: str, below: str) -> None:
        if self.refused(repo):
            return
        folder = self.hub.root / repo
        start = folder / below
        if not start.is_dir():
            return self.fail(404, "EntryNotFound")
        entries = [self.entry(folder, f) for f in sorted(start.rglob("*")) if f.is_file()]
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        first = int(query.get("cursor", ["0"])[0])
        more = {}
        if first + self.hub.page < len(entries):
            place = urllib.parse.urlsplit(self.path).path
            after = f"{place}?recursive=true&cursor={first + self.hub.page}"
            more["Link"] = f'<http://127.0.0.1:{self.hub.port}{after}>; rel="next"'
        self.json(entries[first : first + self.hub.page], **more)

    def resolve(self, repo: str, path: str, *, body: bool) -> None:
        """As the hub does: small files are sent, LFS files redirect to another host."""
        file = self.hub.root / repo / path
        if not file.is_file():
            return self.fail(404, "EntryNotFound")
        entry = self.entry(self.hub.root / repo, file)
        if "lfs" in entry:
            self.send_response(302)
            self.send_header("X-Linked-Etag", f'"{entry["lfs"]["oid"]}"')
            self.send_header("X-Linked-Size", str(entry["size"]))
            self.send_header("Location", f"http://localhost:{self.hub.port}/cdn/{repo}/{path}")
            self.send_header("X-Repo-Commit", self.hub.commit)
            self.send_header("Content-Length", "0")
            self.end_headers()
        elif body:
            self.content(f"{repo}/{path}", body=True)
        else:
            self.send_response(200)
            self.send_header("ETag", f'"{entry["oid"]}"')
            self.send_header("X-Repo-Commit", self.hub.commit)
            self.send_header("Content-Length", str(entry["size"]))
            self.end_headers()

    def content(self, path: str, *, body: bool) -> None:
        fault = self.hub.next_fault(path) if body else None
        if isinstance(fault, int):
            return self.fail(fault, **({"Retry_After": "0"} if fault == 429 else {}))
        content = (self.hub.root / path).read_bytes()
        self.send_bytes(content, path, body=body, fault=fault)

    def send_bytes(self, content: bytes, path: str, *, body: bool, fault: Any = None) -> None:
        start, stop = 0, len(content)
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            start, stop = int(match[1]), min(int(match[2] or stop - 1) + 1, stop)
            if start >= len(content):
                return self.fail(416)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
        else:
            self.send_response(200)
        part = bytearray(content[start:stop])
        if fault == "flip":
            part[len(part) // 2] ^= 0xFF
        self.send_header("Content-Length", str(len(part)))
        self.send_header("Accept-Ranges", "bytes")
        self.end_headers()
        if not body:
            return
        if fault == "cut":
            part = part[: len(part) // 3]
        step = 1 << 16
        for at in range(0, len(part), step):
            self.wfile.write(part[at : at + step])
            self.hub.sent[path] += len(part[at : at + step])
            if fault == "slow":
                time.sleep(0.05)
        if fault == "cut":
            self.wfile.flush()
            self.connection.close()
            self.close_connection = True

    def bucket(self, path: str, *, body: bool) -> None:
        query = urllib.parse.parse_qs(urllib.parse.urlsplit(self.path).query)
        root = self.hub.root / "bucket"
        if "list-type" in query:
            prefix = query.get("prefix", [""])[0]
            keys = sorted(f.relative_to(root).as_posix() for f in root.rglob("*") if f.is_file())
            keys = [key for key in keys if key.startswith(prefix)]
            after = int(query.get("continuation-token", ["0"])[0])
            page, rest = keys[after : after + 2], keys[after + 2 :]
            items = "".join(
                f"<Contents><Key>{key}</Key><Size>{(root / key).stat().st_size}</Size></Contents>"
                for key in page
            )
            more = f"<NextContinuationToken>{after + 2}</NextContinuationToken>" if rest else ""
            truncated = "true" if rest else "false"
            content = (
                '<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/'
                f'2006-03-01/"><IsTruncated>{truncated}</IsTruncated>{items}{more}'
                "</ListBucketResult>"
            ).encode()
            return self.send_bytes(content, "listing", body=body)
        file = root / path.removeprefix("/bucket/")
        fault = self.hub.next_fault(path)
        if isinstance(fault, int):
            return self.fail(fault)
        if not file.is_file():
            return self.fail(404)
        self.send_bytes(file.read_bytes(), path, body=body, fault=fault)


class Running:
    """``with Running(folder) as hub:`` serves a folder until the block ends."""

    def __init__(self, root: Path, kind: type[Handler] = Handler) -> None:
        self.hub = Hub(root)
        handler = type("Bound", (kind,), {"hub": self.hub})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self.hub.port = self._server.server_address[1]
        # Its end is looked for so often: half a second, the default, is most of a small test.
        serve = self._server.serve_forever
        self._thread = threading.Thread(target=serve, args=(0.02,), daemon=True)

    def __enter__(self) -> Hub:
        self._thread.start()
        return self.hub

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()


GEMMA = "google/gemma-scope-2b-pt-res"


def large(folder: Path, features: int = 300, width: int = 64) -> Path:
    """A Gemma Scope file large enough to be cut, and to weigh its halves."""
    rng = np.random.default_rng(len(str(folder)))
    folder.mkdir(parents=True)
    np.savez(
        folder / "params.npz",
        W_enc=rng.normal(size=(width, features)).astype(np.float32),
        W_dec=rng.normal(size=(features, width)).astype(np.float32),
        b_enc=np.zeros(features, np.float32), b_dec=np.zeros(width, np.float32),
        threshold=np.ones(features, np.float32),
    )  # fmt: skip
    return folder / "params.npz"
