"""`-o`: what is there before stays whole until the new is complete, whatever it is."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import signal
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from saeaudit import AuditError
from saeaudit.audit.open import input_files
from saeaudit.formats.output import Destination, destination
from saeaudit.sources.sae import Sae

SLOW = """
import sys, time
from saeaudit.cli.app import app
from saeaudit.formats.output import destination

@app.command()
def slow(name: str) -> None:
    with destination(name).opened() as writer:
        writer.text("half")
        writer.flush()
        print("ready", flush=True)
        time.sleep(60)

app(["slow", sys.argv[1]])
"""


def write(place: Path | str | Destination, text: str = "new\n") -> None:
    where = place if isinstance(place, Destination) else destination(str(place))
    with where.opened() as writer:
        writer.text(text)


def refused(name: str, message: str) -> None:
    with pytest.raises(AuditError, match=message) as caught:
        destination(name)
    assert caught.value.where.startswith("-o") and "\n" not in caught.value.line()


def test_what_cannot_be_written_is_said_before_any_work(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(tmp_path / "socket"))
    refused("", "no file is named")
    refused(str(tmp_path / "folder"), "is a folder")
    refused(str(tmp_path / "new") + "/", "is a folder")
    refused(str(tmp_path / "no" / "where"), "No such file or folder")
    refused(str(tmp_path / "loop"), "cannot be written: Too many levels")
    refused(str(tmp_path / "socket"), "neither a file nor a pipe")
    refused(str(tmp_path / ("n" * 256)), "cannot be written: File name too long")
    assert destination("-") == destination(None)


def test_links_are_written_through_and_stay(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").write_text("old\n")
    link = tmp_path / "link"
    link.symlink_to(tmp_path / "far" / "file")
    dangling = tmp_path / "dangling"
    dangling.symlink_to("far/new")
    write(link)
    write(dangling)
    assert link.is_symlink() and dangling.is_symlink()
    assert (tmp_path / "far" / "file").read_text() == "new\n"
    assert sorted(p.name for p in (tmp_path / "far").iterdir()) == ["file", "new"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["dangling", "far", "link"]


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o666, 0o755])
def test_permissions_stay(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "file"
    file.write_text("old\n")
    file.chmod(mode)
    write(file)
    assert (stat.S_IMODE(file.stat().st_mode), file.read_text()) == (mode, "new\n")


def test_a_new_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    former = os.umask(0o027)
    try:
        write(tmp_path / "file")
    finally:
        os.umask(former)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640


def test_pipes_and_devices_are_written_to(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append(fifo.read_bytes()))
    reader.start()
    write(fifo)
    reader.join(10)
    assert read == [b"new\n"] and fifo.is_fifo()
    assert [p.name for p in tmp_path.iterdir()] == ["fifo"]
    # A terminal of its own: code that replaced devices could do no harm there.
    ours, theirs = os.openpty()
    write(os.ttyname(theirs))
    assert os.read(ours, 100) == b"new\r\n"
    os.close(ours)
    os.close(theirs)


def test_a_full_device_is_one_line() -> None:
    place = destination("/dev/full")
    assert place.kind == "stream"  # never to be replaced
    with pytest.raises(AuditError, match="-o /dev/full: writing failed: No space left"):
        write(place)


def test_a_disk_that_fills_leaves_what_was_there(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("old\n")
    former = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, former[1]))
    try:
        for text, pieces in (("x" * 1000, 200), ("x" * 60_000, 1)):
            with pytest.raises(AuditError, match=r"-o .*file: writing failed: File too large"):
                with destination(str(file)).opened() as writer:
                    for _ in range(pieces):
                        writer.text(text)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
    assert file.read_text() == "old\n"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_other_errors_are_not_taken_for_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="of the weights") as caught:
        with destination(str(tmp_path / "file")).opened():
            raise OSError(errno.EIO, "of the weights")
    assert not isinstance(caught.value, AuditError) and not list(tmp_path.iterdir())


def test_a_name_as_long_as_can_be(tmp_path: Path) -> None:
    file = tmp_path / ("ü" * 127 + "x")
    write(file)
    assert file.read_text() == "new\n" and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("way", ["same", "dots", "hard", "symlink", "folder", "through"])
def test_inputs_are_not_written_over(tmp_path: Path, way: str) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    file = folder / "deep" / "w.npy"
    file.write_text("weights")
    name, read = file, file
    if way == "dots":
        name = folder / "deep" / ".." / "deep" / "w.npy"
    elif way == "hard":
        name = tmp_path / "hard"
        os.link(file, name)
    elif way == "symlink":
        name = tmp_path / "symlink"
        name.symlink_to(file)
    elif way == "folder":
        read = folder
    elif way == "through":
        read = tmp_path / "link"
        read.symlink_to(folder)
    with pytest.raises(AuditError, match=r"would be written over .*, which is read"):
        destination(str(name)).spare([None, "missing", read])
    destination(str(tmp_path / "other")).spare([read])
    destination(str(name)).spare([None, tmp_path / "missing"])


def test_what_lies_beside_weights_is_an_input(tmp_path: Path) -> None:
    for name in ("cfg.json", "sae_weights.safetensors", "scan.jsonl"):
        (tmp_path / name).write_text("{}")
    files = list(input_files([Sae("x", tmp_path / "sae_weights.safetensors")]))
    for name in ("cfg.json", "sae_weights.safetensors"):
        with pytest.raises(AuditError, match="which is read"):
            destination(str(tmp_path / name)).spare(files)
    destination(str(tmp_path / "scan.jsonl")).spare(files)  # the last run's output


def start(file: Path, **extra: object) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, str(file)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        **extra,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    return process


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_signals_clean_up(tmp_path: Path, number: signal.Signals, status: int) -> None:
    (tmp_path / "out").write_text("old\n")
    with start(tmp_path / "out") as process:
        assert len(list(tmp_path.iterdir())) == 2
        process.send_signal(number)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (status, b"")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("out", "old\n")]


def test_a_hangup_that_is_ignored_stays_ignored(tmp_path: Path) -> None:
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with start(tmp_path / "out", **ignore) as process:  # nohup
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 143


def test_the_next_run_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(out) as process, start(out) as other:
        process.kill()
        process.wait(20)
        left, kept = sorted(tmp_path.iterdir(), key=lambda p: f"-{other.pid}-" in p.name)
        assert f"-{process.pid}-" in left.name and f"-{other.pid}-" in kept.name
        # Not ours to remove: of another output, not a file, or with a name of its own.
        others = [tmp_path / f".{name}" for name in ("else.saeaudit-1-00000000.part", "out.part")]
        others[0].touch()
        others[1].touch()
        os.mkfifo(tmp_path / ".out.saeaudit-1-00000000.part")
        write(out)
        there = {p.name for p in tmp_path.iterdir()}
        assert left.name not in there and kept.name in there
        assert {"out", *(p.name for p in others), ".out.saeaudit-1-00000000.part"} < there
        other.kill()
    assert out.read_text() == "new\n"
    write(tmp_path / "unrelated")
    assert kept.exists()


def test_a_signal_that_comes_as_the_file_is_made_leaves_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> None:
        assert len(list(tmp_path.iterdir())) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(fcntl, "flock", interrupted)  # called once the file is there
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_file_being_written_is_locked(tmp_path: Path) -> None:
    with destination(str(tmp_path / "out")).opened() as writer:
        writer.text("half")
        (part,) = tmp_path.iterdir()
        with part.open() as stream, pytest.raises(BlockingIOError):
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        write(tmp_path / "out", "other\n")  # two runs with one name: the last to end stays
    assert (tmp_path / "out").read_text() == "half"
