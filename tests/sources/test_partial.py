"""Decoder-only copies: what hostile files, crashes, damage and other processes may not do."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.fetch import fetch_all
from saeaudit.records import ErrorRecord, ListingRecord
from saeaudit.sources import partial
from saeaudit.sources.target import resolve
from tests.hubserver import Hub
from tests.sources.test_hub import hub, large  # noqa: F401

NAME = "hf://big/one/sae"
DECODER = 600 * 64 * 4


@pytest.fixture
def served(hub: Hub) -> Path:  # noqa: F811
    return large(hub.root / "big/one/sae", features=600)


def fetch(name: str = NAME, **options: Any) -> ListingRecord | ErrorRecord:
    found = resolve(name, note=options.get("note"))
    (record,) = fetch_all(found, decoder_only=True, **options)
    return record


def copy_of(record: ListingRecord | ErrorRecord) -> Path:
    assert isinstance(record, ListingRecord), record
    return Path(record.files[0])


def decoder(file: Path) -> Any:
    return np.load(file)["W_dec"]


def left_over(tmp_path: Path) -> list[str]:
    """Files of saeaudit's cache but locks."""
    files = [f for f in (tmp_path / "cache").rglob("*") if not f.is_dir() or f.is_symlink()]
    return sorted(f.name for f in files if f.suffix != ".lock")


# --- files that lie -----------------------------------------------------------------------------


def safetensors(header: str, data: int = 512, length: int | None = None) -> bytes:
    text = header.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def tensors(**entries: tuple[list[Any], list[Any]]) -> str:
    made = {n: {"dtype": "F32", "shape": s, "data_offsets": o} for n, (s, o) in entries.items()}
    return json.dumps(made)


def archive(**edits: Callable[[bytearray], object]) -> bytes:
    """An .npz of 4 x 8 weights, its bytes edited afterwards."""
    stream = io.BytesIO()
    np.savez(stream, W_dec=np.ones((8, 4), np.float32), W_enc=np.ones((4, 8), np.float32))
    content = bytearray(stream.getvalue())
    for edit in edits.values():
        edit(content)
    return bytes(content)


def replaced(old: bytes, new: bytes, count: int = -1) -> bytes:
    return archive(edit=lambda content: content.__init__(content.replace(old, new, count)))  # type: ignore[misc]


def many_members() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for number in range(25_000):
            made.writestr(zipfile.ZipInfo(f"{number}.npy"), b"")
    return stream.getvalue()


def same_name_twice() -> bytes:
    stream = io.BytesIO()
    array = io.BytesIO()
    np.save(array, np.ones((8, 4), np.float32))
    with zipfile.ZipFile(stream, "w") as made, pytest.warns(UserWarning, match="Duplicate"):
        made.writestr("W_dec.npy", array.getvalue())
        made.writestr("W_dec.npy", array.getvalue())
    return stream.getvalue()


LIES: dict[str, tuple[bytes, str]] = {
    "overlap": (safetensors(tensors(a=([4, 4], [0, 64]), b=([4, 4], [60, 124]))), "overlaps"),
    "beyond the end": (safetensors(tensors(a=([4, 40], [0, 640]))), "would end at byte"),
    "far beyond the end": (safetensors(tensors(a=([4, 4], [10**18, 10**18 + 64]))), "would end"),
    "negative": (safetensors(tensors(a=([4, 4], [-64, 0]))), "bad safetensors header entry"),
    "fractions": (safetensors(tensors(a=([4, 4], [0.0, 64.0]))), "bad safetensors header entry"),
    "truth values": (safetensors(tensors(a=([True, 4], [0, 16]))), "header entry"),
    "too long": (safetensors(tensors(a=([4, 4], [0, 512]))), "contradict"),
    "huge shape": (safetensors(tensors(a=([10**9] * 8, [0, 64]))), "no tensor of this file"),
    "ranks": (safetensors(tensors(a=([1] * 5000, [0, 4]))), "no tensor of this file"),
    "long number": (safetensors('{"a":{"shape":[' + "9" * 5000 + "]}}"), "bad safetensors header"),
    "brackets": (safetensors("[" * (1 << 20)), "bad safetensors header"),
    "the same key": (safetensors('{"a":1,"a":2}'), "bad safetensors header"),
    "no object": (safetensors("[1,2]"), "not an object"),
    "length": (safetensors(tensors(a=([4, 4], [0, 64])), length=1 << 60), "truncated"),
    "no directory": (archive()[:-22], "directory cannot be read"),
    "other shape": (replaced(b"(8, 4)", b"(9, 4)"), "contradict each other"),
    "negative shape": (replaced(b"(8, 4)", b"(8,-4)"), "no tensor of this file"),
    "no header": (replaced(b"NUMPY", b"NUMPI"), "not an array"),
    "nested header": (replaced(b"{'descr'", b"((((((((", 1), "not an array"),
    "local header of another": (replaced(b"W_dec", b"W_xxx", 1), "points elsewhere"),
    "no local header": (replaced(b"PK\x03\x04", b"PK\x03\x05", 1), "points elsewhere"),
    "the same name": (same_name_twice(), "two tensors of the same name"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_one_line_and_leaves_nothing(
    lie: str, hub: Hub, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    content, says = LIES[lie]
    suffix = "npz" if b"NUMP" in content or content[:2] == b"PK" else "safetensors"
    folder = hub.root / "a/liar/sae"
    folder.mkdir(parents=True)
    (folder / f"params.{suffix}").write_bytes(content)
    record = fetch("hf://a/liar/sae")
    assert isinstance(record, ErrorRecord) and says in record.reason, record
    assert "a/liar" in record.reason and "\n" not in record.reason and record.hint
    assert not left_over(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("params.npz", many_members()),
        ("sae.safetensors", safetensors("[" * (5 << 20))),
        ("sae.safetensors", safetensors("{" + '"a":1,' * 800_000 + '"b":2}')),
    ],
    ids=["members", "brackets", "keys"],
)
def test_a_directory_without_end_is_not_read(
    file: str, content: bytes, hub: Hub, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    folder = hub.root / "a/liar/sae"
    folder.mkdir(parents=True)
    (folder / file).write_bytes(content)
    notes: list[str] = []
    monkeypatch.setattr("saeaudit.sources.hub.Repo.fetch", stop)
    with pytest.raises(Stopped):  # the whole file is asked for instead, which has its own limits
        fetch("hf://a/liar/sae", note=notes.append)
    assert "longer than 1 MiB" in notes[0]
    assert sum(hub.sent.values()) <= 3 * (1 << 16)


class Stopped(Exception):
    pass


def stop(*_: object) -> None:
    raise Stopped


def test_many_places_are_not_read(
    hub: Hub, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    """An archive whose arrays lie far from each other: a block of 64 KiB for each header."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for number in range(40):
            made.writestr(zipfile.ZipInfo(f"{number}.npy"), vector(1 << 14))
    folder = hub.root / "a/liar/sae"
    folder.mkdir(parents=True)
    (folder / "params.npz").write_bytes(stream.getvalue())
    monkeypatch.setattr("saeaudit.sources.hub.Repo.fetch", stop)
    monkeypatch.setattr("saeaudit.sources.segments.MAX_BLOCKS", 16)
    notes: list[str] = []
    with pytest.raises(Stopped):
        fetch("hf://a/liar/sae", note=notes.append)
    assert "too many places" in notes[0] and sum(hub.sent.values()) <= 16 << 16


def vector(length: int) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(length, np.float32))
    return stream.getvalue()


def test_what_does_not_open_is_not_kept(hub: Hub, tmp_path: Path) -> None:  # noqa: F811
    file = hub.root / "not/finite/sae/params.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, W_dec=np.full((300, 64), np.nan, np.float32), b_dec=np.zeros(64, np.float32))
    record = fetch("hf://not/finite/sae")
    assert isinstance(record, ErrorRecord)
    assert record.reason.startswith("what arrived cannot be used and was thrown away: ")
    assert not left_over(tmp_path)


# --- broken off, damaged, in the way ------------------------------------------------------------


def break_off(monkeypatch: pytest.MonkeyPatch, pieces: int) -> None:
    """Let pieces of 16 KiB through, then fail, as a network does."""
    whole, left = partial.get_range, [pieces]

    def get_range(url: str, start: int, stop: int, **options: Any) -> bytes:
        if stop - start <= 1 << 14:
            left[0] -= 1
            if left[0] < 0:
                raise AuditError("the connection broke off")
        return whole(url, start, stop, **options)

    monkeypatch.setattr(partial, "PIECE", 1 << 14)
    monkeypatch.setattr(partial, "get_range", get_range)


def part_of(tmp_path: Path) -> Path:
    (part,) = (tmp_path / "cache/decoders/models--big--one/parts").glob("*.safetensors")
    return part


def test_a_part_is_gone_on_with(
    served: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    with monkeypatch.context() as broken:
        break_off(broken, 6)
        assert "broke off" in str(fetch())
    with part_of(tmp_path).open("ab") as stream:
        stream.write(b"what a crash left behind the last record")
    hub.sent.clear()
    copy = copy_of(fetch())
    assert sum(hub.sent.values()) < DECODER - 4 * (1 << 14) + 4 * (1 << 16)
    assert (decoder_of(copy) == decoder(served)).all()


def decoder_of(copy: Path) -> Any:
    from safetensors.numpy import load_file

    return load_file(copy)["W_dec"]


@pytest.mark.parametrize("harm", ["flipped", "no record", "longer", "record of more", "other file"])
def test_a_part_that_is_not_what_was_recorded_begins_anew(
    harm: str, served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        break_off(broken, 6)
        fetch()
    part = part_of(tmp_path)
    content, record = bytearray(part.read_bytes()), part.with_suffix(".record")
    if harm == "flipped":
        content[-5000] ^= 1
    elif harm == "no record":
        record.unlink()
    elif harm == "longer":
        content += bytes(1 << 20)
        record.unlink()
    elif harm == "record of more":
        record.write_text(f"{10**15} {'0' * 64}\n")
    else:
        content[20] ^= 1
    part.write_bytes(bytes(content))
    copy = copy_of(fetch())
    assert (decoder_of(copy) == decoder(served)).all()
    assert not part.exists() and not record.exists()


@pytest.mark.parametrize("harm", ["flipped", "cut", "emptied", "gone", "replaced"])
def test_a_damaged_copy_is_fetched_again_by_the_same_command(
    harm: str, served: Path, hub: Hub, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    copy = copy_of(fetch())
    before = copy.read_bytes()
    content = bytearray(before)
    content[-1000] ^= 1
    if harm == "gone":
        copy.resolve().unlink()
    elif harm == "replaced":
        copy.unlink()
        copy.write_bytes(content)
    else:
        copy.write_bytes({"flipped": content, "cut": before[:-4], "emptied": b""}[harm])
    if harm == "flipped":
        with pytest.raises(AuditError, match="damaged in the cache"):
            saeaudit.open(NAME, offline=True)
    hub.sent.clear()
    assert copy_of(fetch()).read_bytes() == before
    assert sum(hub.sent.values()) >= DECODER
    hub.sent.clear()
    assert copy_of(fetch()).read_bytes() == before and not hub.sent
    assert len(left_over(tmp_path)) == 2  # the link and what it leads to


@pytest.mark.parametrize("offline", [True, False])
def test_what_is_there_is_taken_from_a_cache_that_cannot_be_written(
    offline: bool, served: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copy_of(fetch())
    found = resolve(NAME, offline=offline)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, "read-only")

    for name in ("mkdir", "touch", "unlink", "write_bytes", "write_text", "replace"):
        monkeypatch.setattr(Path, name, refuse)
    (record,) = fetch_all(found, decoder_only=True, offline=offline)
    assert copy_of(record) == copy


def test_a_cache_that_cannot_be_written_is_named(
    served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cache").write_text("a file where a folder should be")
    record = fetch()
    assert isinstance(record, ErrorRecord)
    assert str(tmp_path / "cache") in record.reason and "cannot be written" in record.reason
    assert record.hint == "HF_HOME and SAEAUDIT_CACHE name other folders"


def test_a_full_disk(
    served: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch  # noqa: F811
) -> None:  # fmt: skip
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as filled:
        filled.setattr(os, "fsync", full)
        assert "the disk is full" in str(fetch())
    usage = shutil.disk_usage(served.parent)
    hub.sent.clear()
    with monkeypatch.context() as filled:
        filled.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
        assert "1,000 are free" in str(fetch())
    assert sum(hub.sent.values()) <= 4 * (1 << 16)  # the directory, none of the decoder
    copy_of(fetch())


# --- kills, and several at once -----------------------------------------------------------------

PROCESSES = """
import os, random, signal, sys, time
import huggingface_hub, rich.progress, torch, typer
import saeaudit.audit.fetch, saeaudit.cli.fetch, saeaudit.formats.jsonl
from saeaudit.cli.app import app
from saeaudit.sources import partial
from saeaudit.weights.interface import families

families()
huggingface_hub.get_session()
partial.PIECE = 1 << 17
sys.argv[1:], kills, together = sys.argv[3:], int(sys.argv[1]), int(sys.argv[2])

def start():
    pid = os.fork()
    if pid:
        return pid
    try:
        app()
    except SystemExit as end:
        os._exit(end.code or 0)
    os._exit(0)

rng = random.Random(0)
for _ in range(kills):
    pid = start()
    time.sleep(rng.uniform(0.1, 0.7))
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
ends = [os.waitpid(pid, 0)[1] for pid in [start() for _ in range(together)]]
sys.exit(any(ends))
"""


def processes(kills: int, together: int) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-c", PROCESSES, str(kills), str(together)]
    return subprocess.run(
        [*command, "fetch", NAME, "--decoder-only"], capture_output=True, check=False, timeout=100
    )


def test_ten_kills_then_the_right_bytes(
    hub: Hub, tmp_path: Path  # noqa: F811
) -> None:  # fmt: skip
    file = large(hub.root / "big/one/sae", features=6000)
    hub.faults = {"sae/params.npz": ["always", "slow"]}
    done = processes(10, 1)
    assert done.returncode == 0, done.stderr
    assert (decoder_of(copy_of(fetch())) == decoder(file)).all()
    assert len(left_over(tmp_path)) == 2


def test_eight_processes_fetch_one_copy(hub: Hub) -> None:  # noqa: F811
    large(hub.root / "big/one/sae", features=6000)
    done = processes(0, 8)
    assert done.returncode == 0, done.stderr
    assert sum(hub.sent.values()) < 6000 * 64 * 4 + 8 * (1 << 16)


def test_who_waits_says_so(served: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from saeaudit.sources import durable

    monkeypatch.setattr(durable, "WAITING", 0.2)
    whole = partial.get_range

    def slow(*arguments: Any, **options: Any) -> bytes:
        time.sleep(0.3)
        return whole(*arguments, **options)

    monkeypatch.setattr(partial, "get_range", slow)
    notes: list[str] = []
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch, note=notes.append) for _ in range(2)]
    assert copy_of(both[0].result()) == copy_of(both[1].result())
    assert notes == [f"{NAME}: another process is fetching it; waiting"]
