"""A hub or mirror that answers what it likes, and files on an honest hub that lie."""

from __future__ import annotations

import hashlib
import json
import os
import random
import time
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from saeaudit.errors import AuditError
from saeaudit.records import ErrorRecord
from tests.fuzz.engine import Case
from tests.fuzz.mutate import SIZES, TEXTS, chance, mutate_bytes, mutate_json, nearby
from tests.fuzz.oracle import promised, unclean
from tests.fuzz.seeds import sae_files
from tests.fuzz.server import Answer, Request, Respond, Server, ranged
from tests.fuzz.targets.weights import npz, safetensors

COMMIT = "c" * 40
NOWHERE = "http://127.0.0.1:9"
LONGEST_WAIT = 300.0
"""Seconds that a command may sleep in all: Retry-After is honoured up to five minutes."""
HEADERS = ("ETag", "X-Linked-Etag", "X-Linked-Size", "X-Repo-Commit", "Location", "Link",
           "Content-Range", "Content-Encoding", "Content-Type", "Retry-After", "Transfer-Encoding",
           "X-Error-Code", "X-Error-Message", "Content-Length", "Set-Cookie", "X-Xet-Hash",
           "Accept-Ranges", "Warning")  # fmt: skip
VALUES = (
    '"../../../../escaped"', "../../escaped", '"' + "a" * 64 + '"', "W/" + '"' + "b" * 40 + '"',
    "gzip", "deflate", "br", "zstd", "chunked", "identity", "bytes 0-9/10", "bytes 5-1/0",
    "bytes */*", "bytes 99999999999999999999-0/1", "0", "-1", "1e9", "1000000000",
    "Wed, 21 Oct 2099 07:28:00 GMT",
    "<{url}/api/models/o/r/tree/x?cursor=2>; rel=\"next\"", "<http://127.0.0.1:9/x>; rel=\"next\"",
    "<file:///etc/passwd>; rel=next", "</relative>; rel=\"next\"", "<>; rel=next", "{url}/loop",
    "http://127.0.0.1:9/", "file:///etc/passwd", "ftp://x/", "/relative", "//x", "text/html",
    "GatedRepo", "RepoNotFound", "EntryNotFound", "RevisionNotFound", "ä", "x" * 70_000, "",
)  # fmt: skip
STATUSES = (200, 200, 204, 206, 301, 302, 304, 307, 308, 400, 401, 403, 404, 416, 418, 429, 451,
            500, 502, 503, 504, 599, 999, 100, 0)  # fmt: skip
PATHS = (
    "../escaped", "sae/../../escaped", "/escaped", "sae", "sae/cfg.json", "a" * 300, "sae/\0", ".",
    "sae//cfg.json", "sae/./cfg.json", "params.npz", "\x1b[31m.npz", "##[error].npz",
)  # fmt: skip
HASHES = ("../../../escaped", "a" * 64, "a" * 40, "A" * 64, "", "g" * 64, "a" * 63, "/escaped", ".")


def files() -> dict[str, bytes]:
    """The honest repository: a configuration and its weights."""
    return {name: data for name, data in sae_files().items() if name.startswith("sae/")}


def entry(path: str, data: bytes) -> dict[str, Any]:
    """A file as the hub lists it."""
    oid = hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
    made: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": oid}
    if path.endswith((".safetensors", ".npz")):
        sha256 = hashlib.sha256(data).hexdigest()
        made["lfs"] = {"oid": sha256, "size": len(data), "pointerSize": 134}
    return made


def kind_of(path: str) -> str:
    """Which of the hub's answers a path asks for."""
    for kind in ("tree", "paths-info", "resolve"):
        if f"/{kind}/" in path:
            return kind
    return "info" if path.startswith("/api/models/") else "content"


def honest(request: Request, repository: dict[str, bytes]) -> Answer:
    """What the hub says of a repository."""
    path = urllib.parse.unquote(urllib.parse.urlsplit(request.path).path)
    entries = [entry(name, data) for name, data in repository.items()]
    kind = kind_of(path)
    if kind == "info":
        return _json({"id": "o/r", "modelId": "o/r", "sha": COMMIT, "siblings": []})
    if kind == "tree":
        return _json(entries)
    if kind == "paths-info":
        return _json(entries)
    name = next((name for name in repository if path.endswith(name)), None)
    if name is None:
        return Answer(404, b"no such file", [("X-Error-Code", "EntryNotFound")])
    answer = ranged(request, repository[name])
    listed = entry(name, repository[name])
    etag = listed["lfs"]["oid"] if "lfs" in listed else listed["oid"]
    answer.headers += [("ETag", f'"{etag}"'), ("X-Repo-Commit", COMMIT)]
    return answer


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), [("Content-Type", "application/json")])


class Lie(NamedTuple):
    """A change to the answers of one kind, as the input's file says it."""

    kind: str
    status: int | None
    body: str | None
    headers: list[list[str]]
    length: int | None
    cut: int | None

    def tell(self, answer: Answer, url: str) -> Answer:
        """The changed answer."""
        body = answer.body if self.body is None else self.body.encode("utf-8", "surrogatepass")
        extra = [(name, value.replace("{url}", url)) for name, value in self.headers]
        names = {name for name, _ in extra}
        kept = [(name, value) for name, value in answer.headers if name not in names]
        return Answer(self.status or answer.status, body, kept + extra, self.length, self.cut)


def lie(rng: random.Random, kinds: tuple[str, ...], honest_body: Callable[[str], bytes]) -> Lie:
    """A random lie about answers of one of these kinds."""
    kind = rng.choice(kinds)
    body, status, headers = None, None, []
    length = cut = None
    if chance(rng, 0.5):
        body = _other_body(rng, honest_body(kind))
    if chance(rng, 0.2):
        status = rng.choice(STATUSES)
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        headers += [[rng.choice(HEADERS), rng.choice(VALUES + TEXTS[:12])]]
    if chance(rng, 0.05):
        length = nearby(rng, 100)
    if chance(rng, 0.05):
        cut = rng.choice((0, 1, 50))
    return Lie(kind, status, body, headers, length, cut)


def _other_body(rng: random.Random, body: bytes) -> str:
    if chance(rng, 0.2):
        return rng.choice(
            ("", "<html>please log in</html>", "null", "[]", "{}", "[" * 100_000, "\0" * 100)
        )
    try:
        value = json.loads(body)
    except ValueError:
        return mutate_bytes(rng, body).decode("utf-8", "replace")
    if chance(rng, 0.4):
        _misname(rng, value)
        return json.dumps(value)
    return mutate_json(rng, value)


def _misname(rng: random.Random, value: Any) -> None:
    """A lie in the form of the truth: another name, size or hash."""
    if isinstance(value, dict):
        value["sha"] = rng.choice((*HASHES, "main", None, 7))
        return
    if not value:
        return
    one = rng.choice(value)
    kind = rng.randrange(5)
    if kind == 0:
        one["path"] = rng.choice(PATHS)
    elif kind == 1:
        one["size"] = rng.choice((-1, 0, 1, one["size"] + 1, *SIZES))
    elif kind == 2:
        one["oid"] = rng.choice(HASHES)
    elif kind == 3 and "lfs" in one:
        one["lfs"][rng.choice(("oid", "sha256"))] = rng.choice(HASHES)
    else:
        value.append(dict(one, path=rng.choice(PATHS)))


@contextmanager
def network(folder: Path, respond: Respond, *, bucket: bool = False) -> Iterator[None]:
    """Everything that is fetched comes from `respond` and goes below ``folder/a/b/c``.

    Args:
        folder: of the input.
        respond: the hub, or with `bucket` Neuronpedia's host; the other is not there.

    Raises:
        BrokenPromiseError: a file appeared elsewhere, or a command would have slept too long.
    """
    from huggingface_hub import close_session

    close_session()  # cookies and connections of the last input
    jail = folder / "a" / "b" / "c"
    jail.mkdir(parents=True)
    before = _tree(folder)
    slept = [0.0]

    def sleep(seconds: float) -> None:
        slept[0] += seconds
        promised(slept[0] <= LONGEST_WAIT, "waits of five minutes at most", f"{slept[0]:,.0f} s")

    with Server(respond) as server:
        hub, exports = (NOWHERE, server.url) if bucket else (server.url, NOWHERE)
        settings = {
            "HF_ENDPOINT": hub, "SAEAUDIT_NEURONPEDIA_URL": exports,
            "HF_HUB_CACHE": str(jail / "hub"), "SAEAUDIT_CACHE": str(jail / "own"),
            "HF_HOME": str(jail / "home"), "HOME": str(jail), "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DOWNLOAD_TIMEOUT": "0.3", "HF_HUB_ETAG_TIMEOUT": "1", "HF_TOKEN": "hf_secret",
            "NO_PROXY": "*", "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_VERBOSITY": "critical",
        }  # fmt: skip
        with mock.patch.dict(os.environ, settings), mock.patch.object(time, "sleep", sleep):
            try:
                yield
            finally:
                outside = [p for p in _tree(folder) - before if not p.startswith("a/b/c/")]
                promised(not outside, "writes in the cache only", f"{sorted(outside)[:5]}")


def _tree(folder: Path) -> set[str]:
    return {place.relative_to(folder).as_posix() for place in folder.rglob("*")}


def clean(record: Any) -> None:
    """Refuse an error record that a terminal or a CI system would obey."""
    if isinstance(record, ErrorRecord):
        dirt = unclean(AuditError(record.reason, hint=record.hint).line())
        promised(not dirt, "error records are clean", f"{dirt}: {ascii(record)[:1000]}")


class Hub(NamedTuple):
    """A hub that lies in one or two kinds of answers."""

    name: str = "hub"

    def make(self, rng: random.Random) -> Case:
        def body(kind: str) -> bytes:
            return honest(
                Request("GET", f"/{kind}/" if kind != "info" else "/api/models/", {}), files()
            ).body

        kinds = ("info", "tree", "tree", "paths-info", "resolve", "resolve", "content")
        lies = [lie(rng, kinds, body) for _ in range(rng.choice((1, 1, 2)))]
        target = rng.choice(("hf://o/r", "hf://o/r", "hf://o/r/sae", "hf://o/r@main/sae/cfg.json"))
        told = {
            "target": target,
            "decoder_only": chance(rng, 0.3),
            "lies": [one._asdict() for one in lies],
        }
        return {"hub.json": json.dumps(told).encode()}

    def run(self, folder: Path) -> None:
        from saeaudit.audit.fetch import fetch_all
        from saeaudit.sources.target import resolve

        told = json.loads((folder / "hub.json").read_bytes())
        lies = {one["kind"]: Lie(**one) for one in told["lies"]}

        def respond(request: Request) -> Answer:
            kind = kind_of(request.path)
            answer = honest(request, files())
            url = f"http://{request.headers.get('host', '')}"
            return lies[kind].tell(answer, url) if kind in lies else answer

        with network(folder, respond):
            for record in fetch_all(resolve(told["target"]), decoder_only=told["decoder_only"]):
                clean(record)


class Partial(NamedTuple):
    """An honest hub with weight files that lie about what lies where."""

    name: str = "partial"

    def make(self, rng: random.Random) -> Case:
        if chance(rng, 0.5):
            return {"params.npz": npz(rng)}
        return {"layer_1.safetensors": safetensors(rng)}

    def run(self, folder: Path) -> None:
        from saeaudit.audit.fetch import fetch_all
        from saeaudit.sources.target import resolve

        repository = {
            place.name: place.read_bytes() for place in folder.iterdir() if place.is_file()
        }
        with network(folder, lambda request: honest(request, repository)):
            for record in fetch_all(resolve("hf://o/r"), decoder_only=True):
                clean(record)


TARGETS = (Hub(), Partial())
