"""Neuronpedia's exports from a bucket that lies, stalls or sends damage: one line, and mended."""

from __future__ import annotations

import errno
import gzip
import json
import os
import shutil
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from saeaudit import AuditError
from saeaudit.sources import batches, durable, exports
from saeaudit.sources.exports import fetch_export
from saeaudit.sources.neuronpedia import read_explanations
from tests.support.hostile_bucket import (
    BATCHES,
    PREFIX,
    SOURCE,
    Answer,
    Bucket,
    Serving,
    content,
    entry,
    honest,
    html,
    packed,
    page,
)  # fmt: skip

NAME = "batch-1.jsonl.gz"
Served = Callable[[Bucket], Bucket]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("SAEAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.3")
    running: list[Serving] = []

    def start(what: Bucket) -> Bucket:
        running.append(Serving(what))
        running[-1].__enter__()
        monkeypatch.setenv("SAEAUDIT_NEURONPEDIA_URL", what.url)
        return what

    yield start
    for server in running:
        server.__exit__()


def files(tmp_path: Path) -> list[str]:
    """Files below the temporary folder, but locks."""
    return sorted(f.name for f in tmp_path.rglob("*") if f.is_file() and f.name != ".lock")


def refused(serve: Served, hostile: Bucket, says: str, tmp_path: Path) -> AuditError:
    """Expect one line naming the host, nothing kept, and an honest bucket to mend it all."""
    serve(hostile)
    began = time.monotonic()
    with pytest.raises(AuditError, match=says) as caught:
        fetch_export(SOURCE, "explanations")
    assert time.monotonic() - began < 20
    error = caught.value
    host = urllib.parse.urlsplit(hostile.url).netloc
    assert host in error.line() and "\n" not in error.line() and len(error.line()) < 500
    assert all(name in BATCHES for name in files(tmp_path))  # whole ones may have arrived
    with pytest.raises(AuditError, match="not in the cache"):
        fetch_export(SOURCE, "explanations", offline=True)
    serve(honest())
    assert [place.read_bytes() for place in fetch_export(SOURCE, "explanations")] == list(
        BATCHES.values()
    )
    assert files(tmp_path) == [".complete", *BATCHES]
    return error


# --- listings -----------------------------------------------------------------------------------


def every(body: bytes) -> Bucket:
    return Bucket(lambda _: content(body))


ONE = entry(f"{PREFIX}batch-0.jsonl.gz", 10)
LISTINGS: dict[str, tuple[Bucket, str]] = {
    "a login page": (Bucket(lambda _: html()), "no listing of a bucket"),
    "JSON": (every(b'{"Contents": []}'), "no listing of a bucket"),
    "nothing": (every(b""), "no listing of a bucket"),
    "other XML": (every(b"<Error><Code>AccessDenied</Code></Error>"), "no listing of a bucket"),
    "unknown encoding": (every(b'<?xml version="1.0" encoding="x"?><a/>'), "no listing"),
    "entities": (
        every(
            b'<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa">'
            + b"".join(
                b'<!ENTITY a%d "%s">' % (n, (b"&a%d;" % (n - 1) if n else b"&a;") * 10)
                for n in range(9)
            )
            + b"]><ListBucketResult>&a8;</ListBucketResult>"
        ),
        "no listing of a bucket",
    ),
    "deep XML": (every(b"<a>" * 300_000), "no listing of a bucket"),
    "unclosed entries": (every(b"<Contents>" * 200_000), "no listing of a bucket"),
    "a large page": (every(page(*([ONE] * 30_000))), "more than 2,097,152 bytes"),
    "no size": (every(page(f"<Contents><Key>{PREFIX}batch-0.jsonl.gz</Key></Contents>")), "size"),
    "negative size": (every(page(entry(f"{PREFIX}batch-0.jsonl.gz", -1))), "without a key or"),
    "huge size": (every(page(entry(f"{PREFIX}batch-0.jsonl.gz", "9" * 400))), "without a key or"),
    "large size": (every(page(entry(f"{PREFIX}batch-0.jsonl.gz", 10**15 - 1))), "at most"),
    "a long key": (every(page(entry(PREFIX + "x" * 2000, 10))), "without a key or"),
    "the same key": (every(page(ONE, ONE)), "the same key twice"),
    "elsewhere": (every(page(entry("v1/other/batch-0.jsonl.gz", 10))), "was not asked for"),
    "out of its folder": (every(page(entry(f"{PREFIX}../../batch-0.jsonl.gz", 10))), "leads out"),
    "absolute": (every(page(entry(f"{PREFIX}/etc/batch-0.jsonl.gz", 10))), "leads out"),
    "backslashes": (every(page(entry(f"{PREFIX}..\\batch-0.jsonl.gz", 10))), "leads out"),
    "a token that repeats": (every(page(ONE, token="again")), "the same key twice|in circles"),
    "empty pages": (
        Bucket(lambda n: content(page(token=f"t{n}"))),
        "in circles",
    ),
    "the same token": (
        Bucket(lambda n: content(page(entry(f"{PREFIX}batch-{n}.jsonl.gz", 10), token="again"))),
        "in circles",
    ),
    "without end": (
        Bucket(lambda n: content(page(entry(f"{PREFIX}batch-{n}.jsonl.gz", 10), token=f"t{n}"))),
        "without end|takes too long",  # on a busy machine the time is over first
    ),
    "encoded": (
        Bucket(lambda _: content(gzip.compress(page()), Content_Encoding="gzip")),
        "encoded content",
    ),
    "no permission": (Bucket(lambda _: content(b"<Error/>", 403)), "answered 403"),
    "too long a wait": (
        Bucket(lambda _: content(b"", 503, Retry_After="1000000000")),
        "too long a wait|limiting",
    ),
}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_that_is_none_is_one_line(
    name: str, serve: Served, tmp_path: Path, quick: list[float]
) -> None:  # fmt: skip
    hostile, says = LISTINGS[name]
    refused(serve, hostile, says, tmp_path)
    assert sum(quick) < 300


def test_a_listing_has_an_end_in_time(serve: Served, tmp_path: Path) -> None:
    """All its pages together have four silences; this one's 200 would take a minute."""

    def slow(number: int) -> Answer:
        threading.Event().wait(0.25)
        return content(page(entry(f"{PREFIX}batch-{number}.jsonl.gz", 10), token=f"t{number}"))

    endless = serve(Bucket(slow))
    with pytest.raises(AuditError, match=r"without end|too long to answer"):
        fetch_export(SOURCE, "explanations")
    assert 2 <= len(endless.requests) <= 8


def test_a_bucket_that_says_nothing(
    serve: Served, tmp_path: Path, quick: list[float]
) -> None:  # fmt: skip
    silent = Bucket(lambda _: silent.silent)
    refused(serve, silent, "sent nothing|timed out", tmp_path)


def test_other_files_in_the_bucket_stay_there(serve: Served, tmp_path: Path) -> None:
    served = honest()
    names = [".complete", ".lock", "batch-x.jsonl.gz", "batch-0.jsonl", "more/batch-1.jsonl.gz"]
    entries = [entry(PREFIX + name, len(body)) for name, body in BATCHES.items()]
    listing = page(*entries, *(entry(PREFIX + name, 10) for name in names))
    served.listing = lambda _: content(listing)
    serve(served)
    assert len(fetch_export(SOURCE, "explanations")) == 3
    assert files(tmp_path) == [".complete", *BATCHES]


# --- batches ------------------------------------------------------------------------------------


def with_batch(body: bytes, answer: Answer | None = None, size: int | None = None) -> Bucket:
    """A bucket of which one batch is as a test says."""
    served = honest()
    sizes = {name: len(other) for name, other in BATCHES.items()} | {NAME: size or len(body)}
    listing = page(*(entry(PREFIX + name, length) for name, length in sizes.items()))
    served.listing = lambda _: content(listing)
    served.files[NAME] = answer or content(body)
    return served


GOOD = BATCHES[NAME]
BOMB_ROW = b'{"index": 1, "x": "' + b" " * 1_000_000 + b'"}\n'
BOMB = gzip.compress(BOMB_ROW * 7)
DAMAGE: dict[str, tuple[Bucket, str]] = {
    "no gzip": (with_batch(b"hello" * 100), "damaged batch"),
    "cut gzip": (with_batch(GOOD[:-9]), "damaged batch"),
    "flipped": (with_batch(GOOD[:60] + bytes([GOOD[60] ^ 0xFF]) + GOOD[61:]), "damaged batch"),
    "more behind it": (with_batch(GOOD + b"more"), "damaged batch"),
    "no JSON": (with_batch(gzip.compress(b"{'index': 1}\n")), "damaged batch"),
    "no text": (with_batch(gzip.compress(b'{"index": "\xff\xfe"}\n')), "damaged batch"),
    "deep JSON": (with_batch(gzip.compress(b"[" * 1_000_000)), "damaged batch"),
    "a long number": (with_batch(gzip.compress(b"9" * 10_000)), "damaged batch"),
    "a long row": (with_batch(packed({"description": "x" * 5_000_000})), "a row of more than"),
    "a bomb": (with_batch(BOMB), "unpacks to more than is believed"),
    "empty rows": (with_batch(gzip.compress(b"{}\n" * 200_000)), "unpacks to more"),
    "a login page": (with_batch(GOOD, html()), "something else|than announced"),
    "too short": (with_batch(GOOD, content(GOOD[:100])), "something else|less than announced"),
    "too long": (with_batch(GOOD, content(GOOD + b"x" * 1000)), "something else|more bytes"),
    "cut off": (with_batch(GOOD, content(GOOD[:100], length=len(GOOD))), "127.0.0.1"),
    "not there": (with_batch(GOOD, content(b"", 404)), "answered 404"),
    "encoded": (with_batch(GOOD, content(GOOD, Content_Encoding="gzip")), "encoded content"),
    "another range": (
        with_batch(GOOD, content(GOOD, 206, Content_Range=f"bytes 5-9/{len(GOOD)}")),
        "other bytes",
    ),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_batch_is_one_line_and_is_thrown_away(
    name: str, serve: Served, tmp_path: Path,
    quick: list[float], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(batches, "BATCH_FLOOR", 6 << 20)
    hostile, says = DAMAGE[name]
    error = refused(serve, hostile, says, tmp_path)
    assert NAME in error.where


def test_a_batch_that_stalls(
    serve: Served, tmp_path: Path, quick: list[float]
) -> None:  # fmt: skip
    hostile = honest()
    hostile.files[NAME] = hostile.silent
    refused(serve, hostile, "sent nothing|timed out", tmp_path)


def test_batches_stream_to_the_disk_and_never_beyond_their_size(
    serve: Served, tmp_path: Path, quick: list[float]
) -> None:  # fmt: skip
    """A body without a length and without an end: no more is written than was listed."""
    written: list[int] = []

    def endless(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.end_headers()
        handler.close_connection = True
        for _ in range(100):
            part = next(tmp_path.rglob(f"{NAME}.part"), None)
            written.append(part.stat().st_size if part else 0)
            try:
                handler.wfile.write(b"x" * (1 << 16))
            except OSError:
                return

    refused(serve, with_batch(GOOD, endless), "more bytes than announced", tmp_path)
    assert max(written) <= len(GOOD)


def test_what_does_not_fit_is_not_begun(
    serve: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(honest())
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as filled:
        filled.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
        with pytest.raises(AuditError, match="100 are free"):
            fetch_export(SOURCE, "explanations")
    assert not any(request.endswith(".gz") for request in served.requests)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as filled:
        filled.setattr(os, "fsync", full)
        with pytest.raises(AuditError, match="the disk is full"):
            fetch_export(SOURCE, "explanations")
    assert files(tmp_path) == []
    assert len(fetch_export(SOURCE, "explanations")) == 3


def test_sizes_are_limited_in_total(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    serve(honest())
    monkeypatch.setattr(exports, "MAX_BATCHES", 2)
    with pytest.raises(AuditError, match=r"lists 3 batches of .* bytes; at most 2 of 64 GiB"):
        fetch_export(SOURCE, "explanations")


def test_many_small_bombs_end_too(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "EXPORT_FLOOR", 5 << 20)
    served = honest()
    small = gzip.compress(BOMB_ROW * 2)
    names = [f"batch-{n}.jsonl.gz" for n in range(40)]
    served.files = dict.fromkeys(names, content(small))
    listing = page(*(entry(PREFIX + name, len(small)) for name in names))
    served.listing = lambda _: content(listing)
    serve(served)
    with pytest.raises(AuditError, match="unpacks to more than is believed"):
        fetch_export(SOURCE, "explanations")
    assert len(served.requests) < 20


# --- what is here already -----------------------------------------------------------------------


@pytest.mark.parametrize("harm", ["flipped", "cut", "garbage", "empty", "gone"])
def test_damage_in_the_cache_is_fetched_again_by_the_same_command(
    harm: str, serve: Served, tmp_path: Path
) -> None:
    served = serve(honest())
    place = fetch_export(SOURCE, "explanations")[1]
    flipped = bytearray(GOOD)
    flipped[len(GOOD) // 2] ^= 0xFF
    harmed = {
        "flipped": bytes(flipped), "cut": GOOD[:-9], "garbage": bytes(len(GOOD)), "empty": b"",
    }  # fmt: skip
    if harm == "gone":
        place.unlink()
    else:
        place.write_bytes(harmed[harm])
    if harm in ("flipped", "cut", "garbage"):
        for read in (
            lambda: read_explanations(place.parent),
            lambda: fetch_export(SOURCE, "explanations", offline=True),
        ):
            with pytest.raises(AuditError, match=rf"{NAME}: damaged batch") as caught:
                read()
            assert "saeaudit fetch" in caught.value.hint
    served.requests.clear()
    assert [p.read_bytes() for p in fetch_export(SOURCE, "explanations")] == list(BATCHES.values())
    assert [r for r in served.requests if r.endswith(".gz")] == [f"/bucket/{PREFIX}{NAME}"]
    served.requests.clear()
    fetch_export(SOURCE, "explanations")
    assert not any(request.endswith(".gz") for request in served.requests)


def test_what_a_killed_process_left_is_no_batch(serve: Served, tmp_path: Path) -> None:
    serve(honest())
    folder = tmp_path / f"cache/neuronpedia/{PREFIX}"
    folder.mkdir(parents=True)
    (folder / f"{NAME}.part").write_bytes(b"half" * 1000)
    (folder / "batch-0.jsonl.gz").write_bytes(BATCHES["batch-0.jsonl.gz"])
    with pytest.raises(AuditError, match="not in the cache"):
        fetch_export(SOURCE, "explanations", offline=True)
    assert len(fetch_export(SOURCE, "explanations")) == 3
    assert files(tmp_path) == [".complete", *BATCHES]


def test_one_fetches_and_others_wait(serve: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    served = honest()
    send, together = served.files[NAME], threading.Event()

    def slow(handler: BaseHTTPRequestHandler) -> None:
        together.wait(5)
        send(handler)

    served.files[NAME] = slow
    serve(served)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "10")
    monkeypatch.setattr(durable, "WAITING", 0.1)
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        if len(notes) == 3:
            together.set()

    with ThreadPoolExecutor(4) as pool:
        fetches = [pool.submit(fetch_export, SOURCE, "explanations", note=note) for _ in range(4)]
    assert all(len(fetch.result()) == 3 for fetch in fetches)
    assert len([r for r in served.requests if r.endswith(".gz")]) == 3
    assert set(notes) == {
        f"neuronpedia {SOURCE}/explanations: another process is fetching it; waiting"
    }


def test_a_cache_that_cannot_be_written_serves_what_it_has(
    serve: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve(honest())
    fetch_export(SOURCE, "explanations")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert len(fetch_export(SOURCE, "explanations")) == 3
    assert len(fetch_export(SOURCE, "explanations", offline=True)) == 3
    (tmp_path / f"cache/neuronpedia/{PREFIX}{NAME}").unlink()
    with pytest.raises(AuditError, match=r"cache.*: cannot be written: Permission denied"):
        fetch_export(SOURCE, "explanations")


# --- what goes out ------------------------------------------------------------------------------


def test_no_token_goes_to_the_bucket(
    serve: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = tmp_path / "token"
    token.write_text("hf_from_the_file")
    monkeypatch.setenv("HF_TOKEN_PATH", str(token))
    monkeypatch.setenv("HF_TOKEN", "hf_from_the_environment")
    served = serve(honest())
    fetch_export(SOURCE, "explanations")
    assert len(served.headers) == 4
    for headers in served.headers:
        assert not {"authorization", "cookie"} & set(headers)
        assert "hf_from" not in json.dumps(headers)


@pytest.mark.parametrize("url", ["bucket", "file:///etc", "http://[::1", "ftp://x", "http://"])
def test_an_address_that_is_none(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAEAUDIT_NEURONPEDIA_URL", url)
    with pytest.raises(AuditError, match="SAEAUDIT_NEURONPEDIA_URL: not a web address"):
        fetch_export(SOURCE, "explanations")
