"""Decoder-only copies: what hostile files, crashes, damage and other processes may not do."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import time
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
from tests.support.copies import NAME, fetch, left_over
from tests.support.hostile_hub import CONTENT, SLOW, TARGET, World
from tests.support.hub import Hub, large
from tests.support.notes import Notes

DECODER = 600 * 64 * 4


@pytest.fixture
def served(hub: Hub) -> Path:
    return large(hub.root / "big/one/sae", features=600)


def copy_of(record: ListingRecord | ErrorRecord) -> Path:
    assert isinstance(record, ListingRecord), record
    return Path(record.files[0])


def decoder(file: Path) -> Any:
    return np.load(file)["W_dec"]


def test_what_does_not_open_is_not_kept(hub: Hub, tmp_path: Path) -> None:
    file = hub.root / "not/finite/sae/params.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, W_dec=np.full((300, 64), np.nan, np.float32), b_dec=np.zeros(64, np.float32))
    record = fetch("hf://not/finite/sae")
    assert isinstance(record, ErrorRecord)
    assert record.reason.startswith("what arrived cannot be used and was thrown away: ")
    assert not left_over(tmp_path)


# --- a hub that lies or stalls -----------------------------------------------------------------


@pytest.mark.parametrize("scenario", CONTENT)
def test_a_hostile_hub_is_one_line_and_mended_by_an_honest_one(
    scenario: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    slow = any(word in scenario for word in SLOW)
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.4" if slow else "10")
    before = world.outside()
    world.play(scenario)
    began = time.monotonic()
    status, said = world.run("fetch", TARGET, "--decoder-only")
    assert time.monotonic() - began < 20
    said = [line for line in said if "limiting requests; waiting" not in line]
    assert status == 2 and len(said) == 1 and "Traceback" not in said[0], said
    assert world.outside() == before
    world.play("")
    monkeypatch.delenv("HF_HUB_DOWNLOAD_TIMEOUT")
    assert world.run("fetch", TARGET, "--decoder-only")[0] == 0
    (place,) = (world.cache / "saeaudit").rglob("*.decoder.safetensors")
    assert (decoder_of(place) == decoder(world.hub.root / "o/r/a/params.npz")).all()


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
    served: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
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
    harm: str, served: Path, hub: Hub, tmp_path: Path
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
    served: Path, hub: Hub, monkeypatch: pytest.MonkeyPatch
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
import saeaudit.weights.families

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
    hub: Hub, tmp_path: Path
) -> None:  # fmt: skip
    file = large(hub.root / "big/one/sae", features=6000)
    hub.faults = {"sae/params.npz": ["always", "slow"]}
    done = processes(10, 1)
    assert done.returncode == 0, done.stderr
    assert (decoder_of(copy_of(fetch())) == decoder(file)).all()
    assert len(left_over(tmp_path)) == 2


def test_eight_processes_fetch_one_copy(hub: Hub) -> None:
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
    notes = Notes()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(fetch, observer=notes) for _ in range(2)]
    assert copy_of(both[0].result()) == copy_of(both[1].result())
    assert notes.lines == [f"{NAME}: another process is fetching it; waiting"]
