"""Neuronpedia's exports from a bucket that lies, stalls or sends damage: one line, and mended."""

from __future__ import annotations

import errno
import gzip
import json
import math
import os
import shutil
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from saeaudit import AuditError
from saeaudit.sources import batches, bucket, durable, exports
from saeaudit.sources.exports import fetch_export
from saeaudit.sources.neuronpedia import read_explanations, read_features
from tests.sources.hostile_bucket import Answer, Bucket, Serving, content, entry, html, page
from tests.sources.test_hub import quick  # noqa: F401

SOURCE = "gemma-2-2b/16-gemmascope-res-16k"
PREFIX = f"v1/{SOURCE}/explanations/"
Served = Callable[[Bucket], Bucket]


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
        "without end",
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
    name: str, serve: Served, tmp_path: Path, quick: list[float]  # noqa: F811
) -> None:  # fmt: skip
    hostile, says = LISTINGS[name]
    refused(serve, hostile, says, tmp_path)
    assert sum(quick) < 300


def test_a_listing_has_an_end_in_time(
    serve: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bucket, "MAX_SECONDS", 0.0)
    endless = LISTINGS["without end"][0]
    endless.requests.clear()
    serve(endless)
    with pytest.raises(AuditError, match="without end"):
        fetch_export(SOURCE, "explanations")
    assert len(endless.requests) == 1


def test_a_bucket_that_says_nothing(
    serve: Served, tmp_path: Path, quick: list[float]  # noqa: F811
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

NAME = "batch-1.jsonl.gz"


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
    quick: list[float], monkeypatch: pytest.MonkeyPatch,  # noqa: F811
) -> None:  # fmt: skip
    monkeypatch.setattr(batches, "BATCH_FLOOR", 6 << 20)
    hostile, says = DAMAGE[name]
    error = refused(serve, hostile, says, tmp_path)
    assert NAME in error.where


def test_a_batch_that_stalls(
    serve: Served, tmp_path: Path, quick: list[float]  # noqa: F811
) -> None:  # fmt: skip
    hostile = honest()
    hostile.files[NAME] = hostile.silent
    refused(serve, hostile, "sent nothing|timed out", tmp_path)


def test_batches_stream_to_the_disk_and_never_beyond_their_size(
    serve: Served, tmp_path: Path, quick: list[float]  # noqa: F811
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


# --- rows ---------------------------------------------------------------------------------------


def explained(tmp_path: Path, *rows: object) -> dict[int, list[Any]]:
    (tmp_path / "batch-0.jsonl.gz").write_bytes(packed(*rows))
    return read_explanations(tmp_path)


@pytest.mark.parametrize(
    "index",
    [-1, 10**9, 10**30, True, 1.0, math.nan, math.inf, "-1", "1.0", "\uff19", "", None, [], {}],
)
def test_an_index_that_is_none(index: object, tmp_path: Path) -> None:
    rows = [{"index": index, "description": "x"}, {"index": "4", "description": "y"}]
    assert list(explained(tmp_path, *rows)) == [4]
    (tmp_path / "batch-0.jsonl.gz").write_bytes(packed({"index": index, "frac_nonzero": 0.5}))
    assert read_features(tmp_path) == {}


def test_long_and_broken_texts_are_cut(tmp_path: Path) -> None:
    row = {"index": 1, "description": "x" * 1_000_000, "typeName": "k" * 1000, "id": [[]],
           "explanationModelName": {"a": 1}}  # fmt: skip
    (one,) = explained(tmp_path, row)[1]
    assert (len(one.description), len(one.kind), one.model) == (1000, 100, "")
    (one,) = explained(tmp_path, {"index": 1, "description": "half \ud83d of it"})[1]
    assert one.description == "half ? of it" and one.description.encode()


@pytest.mark.parametrize(
    "embedding",
    [[1.0] * 10_000, [math.nan], [math.inf, 1], [10**400], [True, 1], ["1"], [[1]], {}, "[1,", 5,
     "[" * 100_000, json.dumps([1.0] * 10_000), "NaN", "[NaN]"],
)  # fmt: skip
def test_an_embedding_that_is_none(embedding: object, tmp_path: Path) -> None:
    (one,) = explained(tmp_path, {"index": 1, "description": "x", "embedding": embedding})[1]
    assert one.embedding is None


HISTOGRAM = {
    "index": "1", "frac_nonzero": 0.5, "freq_hist_data_bar_values": [1, 2.5],
    "freq_hist_data_bar_heights": [3, 4],
}  # fmt: skip


@pytest.mark.parametrize(
    "harm",
    [
        {"frac_nonzero": math.nan}, {"frac_nonzero": 1.5}, {"frac_nonzero": -0.1},
        {"frac_nonzero": 10**400}, {"frac_nonzero": "0.5"}, {"frac_nonzero": [1]},
        {"freq_hist_data_bar_heights": [3, math.nan]}, {"freq_hist_data_bar_heights": [3, -4]},
        {"freq_hist_data_bar_heights": [3]}, {"freq_hist_data_bar_heights": "34"},
        {"freq_hist_data_bar_values": [1, math.inf]}, {"freq_hist_data_bar_values": [1, 10**400]},
        {"freq_hist_data_bar_values": [1, "2"]}, {"freq_hist_data_bar_values": {"1": 2}},
        {key: [1] * 20_000 for key in HISTOGRAM if key.startswith("freq")},
    ],
)  # fmt: skip
def test_a_histogram_that_is_none(harm: dict[str, object], tmp_path: Path) -> None:
    rows = [HISTOGRAM | harm, HISTOGRAM | {"index": "2"}]
    (tmp_path / "batch-0.jsonl.gz").write_bytes(packed(*rows))
    assert list(read_features(tmp_path)) == [2]


def test_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"index": i, "description": str(i), "embedding": [0.5] * 100} for i in range(1000)]
    allowance = batches.Allowance("here", 10**9, kept=1_240_000)
    monkeypatch.setattr(batches.Allowance, "of", classmethod(lambda cls, _: allowance))
    assert len(explained(tmp_path, *rows[:900])) == 900
    allowance.kept = 1_240_000
    with pytest.raises(AuditError, match="here: takes more than 2 GiB of memory"):
        explained(tmp_path, *rows)


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


@pytest.mark.parametrize("kind", ["pipe", "folder", "broken link"])
def test_what_is_no_file_is_named(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "batch-0.jsonl"
    if kind == "pipe":
        os.mkfifo(place)  # would be waited for
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("nowhere")
    with pytest.raises(AuditError, match="not a file"):
        read_explanations(tmp_path)
