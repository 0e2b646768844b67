"""Standard streams that are closed, full or left by their reader; outputs that are inputs.

Exit status 1 means that a policy is broken, so no stream may end a run with it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np
import pytest

from tests.conftest import Cli
from tests.support.files import sae

REAL = [sys.executable, "-m", "saeaudit"]
STATUS = {"closed": 2, "full": 2, "left": 141}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, saeaudit: list[str]) -> Path:
    """Small inputs for every command."""
    folder = tmp_path_factory.mktemp("streams")
    rng = np.random.default_rng(0)
    rows = np.vstack([rng.normal(size=(7, 4)), np.ones((2, 4))])
    sae(folder, rows)
    np.save(folder / "x.npy", rng.normal(size=(60, 4)))
    (folder / "c.yaml").write_text("scan: {min_cosine: 0.8}\n")
    done = subprocess.run(
        [*saeaudit, "scan", "params.npz", "-q"], cwd=folder, capture_output=True, check=True
    )
    (folder / "s.jsonl").write_bytes(done.stdout)
    return folder


COMMANDS = {
    "help": ["--help"],
    "version": ["--version"],
    "schema": ["schema"],
    "releases": ["releases"],
    "baseline": ["baseline", "s.jsonl"],
    "check": ["config", "check", "c.yaml"],
    "fetch": ["fetch", "params.npz"],
    "scan": ["scan", "params.npz"],
    "table": ["scan", "params.npz", "--format", "table", "--no-progress"],
    "mediators": ["mediators", "params.npz", "--scan", "s.jsonl", "--activations", "x.npy"],
    "score": ["score", "params.npz", "--activations", "x.npy", "--explanations", "none"],
    "missing": ["scan", "missing.npz"],
}


@contextmanager
def stream(kind: str) -> Iterator[IO[bytes] | int]:
    """What a command's standard stream is."""
    if kind == "full":
        with Path("/dev/full").open("wb") as full:
            yield full
        return
    read, write = os.pipe()
    os.close(read)  # the reader has gone
    yield write
    os.close(write)


def run(
    command: list[str], arguments: list[str], folder: Path, which: int, kind: str
) -> subprocess.CompletedProcess[bytes]:
    """Run a command with one of its standard streams closed, full or left by its reader."""
    pipes: dict[int, IO[bytes] | int] = {1: subprocess.PIPE, 2: subprocess.PIPE}
    closing: Callable[[], None] | None = None
    with stream(kind) as made:
        if kind == "closed":
            closing = lambda: os.close(which)  # noqa: E731
        else:
            pipes[which] = made
        return subprocess.run(
            [*command, *arguments], cwd=folder, stdin=subprocess.DEVNULL, stdout=pipes[1],
            stderr=pipes[2], preexec_fn=closing, env={**os.environ, "NO_COLOR": "1"},
            timeout=120, check=False,
        )  # fmt: skip


@pytest.mark.parametrize("kind", STATUS)
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "missing"])
def test_standard_output(saeaudit: list[str], folder: Path, name: str, kind: str) -> None:
    done = run(saeaudit, COMMANDS[name], folder, 1, kind)
    assert done.returncode == STATUS[kind], done.stderr
    lines = done.stderr.decode().splitlines()
    if kind == "left":
        assert lines == []
    else:
        said = "Bad file descriptor" if kind == "closed" else "No space left on device"
        assert len(lines) == 1 and lines[0].startswith("saeaudit: standard") and said in lines[0]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, kind) for name in ("scan", "missing") for kind in STATUS),
        ("mediators", "closed"), ("score", "full"), ("fetch", "left"),
    ],
)  # fmt: skip
def test_standard_error(saeaudit: list[str], folder: Path, name: str, kind: str) -> None:
    done = run(saeaudit, COMMANDS[name], folder, 2, kind)
    assert done.returncode == (2 if name == "missing" else STATUS[kind])
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert name in ("fetch", "missing") or records[-1]["type"] == "verdict"


def test_nothing_to_say_is_nothing_lost(saeaudit: list[str], folder: Path) -> None:
    assert run(saeaudit, [*COMMANDS["scan"], "-q"], folder, 2, "closed").returncode == 0


@pytest.mark.parametrize("which", [0, 1, 2])
def test_no_file_gets_the_number_of_a_closed_stream(
    saeaudit: list[str], folder: Path, tmp_path: Path, which: int
) -> None:
    out = tmp_path / "out.jsonl"
    done = run(saeaudit, ["scan", "params.npz", "-o", str(out)], folder, which, "closed")
    assert done.returncode == (2 if which == 2 else 0)
    kinds = [json.loads(line)["type"] for line in out.read_text().splitlines()]
    assert (kinds[0], kinds[-1]) == ("run", "verdict")
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


@pytest.mark.parametrize(
    ("which", "name", "status"),
    [(1, "help", 2), (1, "schema", 2), (2, "missing", 2), (2, "version", 0), (0, "version", 0)],
)
def test_streams_closed_before_python_starts(
    folder: Path, which: int, name: str, status: int
) -> None:
    done = run(REAL, COMMANDS[name], folder, which, "closed")
    assert done.returncode == status and b"Traceback" not in (done.stderr or b"")
    if which == 1:
        assert done.stderr.count(b"\n") == 1 and b"Bad file descriptor" in done.stderr


def test_a_closed_standard_input_is_one_line(folder: Path) -> None:
    done = run(REAL, ["baseline", "-"], folder, 0, "closed")
    assert (done.returncode, done.stdout, done.stderr.count(b"\n")) == (2, b"", 1)
    assert b"Bad file descriptor" in done.stderr


def test_a_broken_policy_is_told_whatever_becomes_of_the_streams(
    saeaudit: list[str], folder: Path
) -> None:
    broken = [*COMMANDS["scan"], "--fail-on", "pairs>0"]
    for which, kind in ((2, "closed"), (1, "left")):
        assert run(saeaudit, broken, folder, which, kind).returncode == 1
    held = [*COMMANDS["scan"], "--fail-on", "pairs>100"]
    assert run(saeaudit, held, folder, 1, "left").returncode == 141
    assert run(saeaudit, broken, folder, 1, "full").returncode == 2  # no verdict was written


@pytest.mark.parametrize(
    ("arguments", "name"),
    [
        (["scan", "."], "params.npz"),
        (["scan", "params.npz"], "link"),
        (["scan", "params.npz", "--config", "c.yaml"], "c.yaml"),
        (["scan", "params.npz", "--baseline", "s.jsonl"], "s.jsonl"),
        (["fetch", "params.npz"], "params.npz"),
        (["baseline", "s.jsonl"], "s.jsonl"),
        (["mediators", "params.npz", "--scan", "s.jsonl"], "s.jsonl"),
        (["mediators", "params.npz", "--activations", "x.npy", "--tokens", "c.yaml"], "c.yaml"),
        (["mediators", "params.npz", "--activations", "x.npy", "--codes", "c.yaml"], "c.yaml"),
        (["mediators", "sample", "--encoder", "params.npz"], "params.npz"),
        (["score", "params.npz", "--activations", "x.npy"], "x.npy"),
        (["score", "params.npz", "--mediators", "s.jsonl"], "params.npz"),
    ],
)
def test_nothing_is_written_over_what_is_read(
    cli: Cli, folder: Path, tmp_path: Path, arguments: list[str], name: str
) -> None:
    for file in ("params.npz", "x.npy", "c.yaml", "s.jsonl"):
        shutil.copy(folder / file, tmp_path / file)
    (tmp_path / "link").symlink_to("params.npz")
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    done = cli(*arguments, "-o", name)
    *notes, refusal = done.stderr.splitlines()
    assert done.returncode == 2 and b"which is read" in refusal
    assert all(b"passed over" in note for note in notes)  # of a folder
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_the_output_is_looked_at_first(cli: Cli, tmp_path: Path) -> None:
    unreadable = tmp_path / "not-a-zip.npz"
    unreadable.write_bytes(b"PK")
    for command, name, said in (
        ("scan", "no/file", b"No such file"), ("fetch", ".", b"is a folder"),
        ("mediators", "", b"no file"), ("score", "x/", b"folder"), ("baseline", "", b"no file"),
    ):  # fmt: skip
        done = cli(command, unreadable.name, "-o", name)
        assert done.returncode == 2 and said in done.stderr, command
    assert list(tmp_path.iterdir()) == [unreadable]


def test_outputs_that_are_streams(saeaudit: list[str], folder: Path, tmp_path: Path) -> None:
    def records(name: str, stdout: IO[bytes] | int) -> bytes:
        done = subprocess.run(
            [*saeaudit, "scan", "params.npz", "-q", "-o", name], cwd=folder, stdout=stdout,
            stderr=subprocess.PIPE, check=False, timeout=120,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, b"")
        return done.stdout or b""

    out = str(tmp_path / "stdout")  # as /dev/stdout is, and no harm where links are replaced
    Path(out).symlink_to("/proc/self/fd/1")
    for name in ("-", out):
        assert records(name, subprocess.PIPE).splitlines()[-1].startswith(b'{"type":"verdict"')
    log = tmp_path / "log"
    log.write_text("before\n")
    with log.open("ab") as stream:
        records(out, stream)
        stream.write(b"after\n")
    lines = log.read_text().splitlines()
    assert (lines[0], lines[-1]) == ("before", "after") and '"verdict"' in lines[-2]
    assert Path(out).is_symlink()


@pytest.mark.parametrize("setting", ({}, {"FORCE_COLOR": "1"}), ids=["plain", "coloured"])
def test_tables_in_files_are_not_as_narrow_as_a_terminal(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]
) -> None:
    for name, value in {"COLUMNS": "40", **setting}.items():
        monkeypatch.setenv(name, value)
    done = cli("scan", "sample", "-o", "/dev/null")
    lines = done.stderr.decode().splitlines()
    assert "sample: 2,048 features of width 384, none of them dead." in lines
    assert any("tokens such as 'as', 'the', 'to', 'by', 'of', 'from'" in line for line in lines)
