"""What a terminal gets, and what a pipe gets: by a pseudo-terminal in place of either stream."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import termios
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from tests.conftest import Cli


class Shown(NamedTuple):
    """What came of a run: its status, and the text on each stream."""

    status: int
    out: str
    err: str


Terminal = Callable[..., Shown]
BAR = re.compile(r"\x1b\[[?0-9;]*[A-Za-z]")


@pytest.fixture
def terminal(tmp_path: Path, saeaudit: list[str]) -> Terminal:
    """Run saeaudit with terminals of 80 columns as standard output, standard error, or both."""

    def run(*arguments: object, out: bool = True, err: bool = True) -> Shown:
        streams = [_stream(is_terminal) for is_terminal in (out, err)]
        with subprocess.Popen(
            [*saeaudit, *map(str, arguments)], cwd=tmp_path, stdin=subprocess.DEVNULL,
            stdout=streams[0][1], stderr=streams[1][1],
            env={**os.environ, "TERM": "xterm", "COLUMNS": "", "NO_COLOR": "1"},
        ) as process:  # fmt: skip
            for _, theirs in streams:
                os.close(theirs)
            texts = _read_all([ours for ours, _ in streams])
        return Shown(process.returncode, *texts)

    np.save(tmp_path / "a.npy", np.random.default_rng(0).normal(size=(50, 30)))
    return run


def _stream(is_terminal: bool) -> tuple[int, int]:
    if not is_terminal:
        return os.pipe()
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    return ours, theirs


def _read_all(descriptors: list[int]) -> list[str]:
    import selectors

    texts = dict.fromkeys(descriptors, b"")
    with selectors.DefaultSelector() as selector:
        for descriptor in descriptors:
            selector.register(descriptor, selectors.EVENT_READ)
        while selector.get_map():
            for key, _ in selector.select(60):
                try:
                    data = os.read(key.fd, 65536)
                except OSError:  # a terminal whose other end is closed
                    data = b""
                texts[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
                    os.close(key.fd)
    return [text.decode().replace("\r\n", "\n") for text in texts.values()]


def test_a_terminal_gets_the_screen_only(terminal: Terminal) -> None:
    shown = terminal("scan", "a.npy", err=False)
    assert shown.status == 0 and "{" not in shown.out and "\x1b" not in shown.out
    lines = shown.out.splitlines()
    assert lines[0] == "a.npy: 50 features of width 30, none of them dead."
    assert lines[-1] == "No records were written: -o FILE writes them, and so does a pipe."
    assert max(map(len, lines)) <= 80
    assert "none of them dead" not in shown.err
    assert re.fullmatch(r"saeaudit: a\.npy: [^\n]* \([\d.]+ s\)\n", shown.err), (
        "the screen has it all"
    )


def test_a_terminal_gets_records_where_they_are_asked_for(
    terminal: Terminal, tmp_path: Path
) -> None:
    for arguments in (("--format", "jsonl"), ("-o", "-")):
        shown = terminal("scan", "a.npy", "-q", *arguments)
        kinds = [json.loads(line)["type"] for line in shown.out.splitlines()]
        assert kinds[-3:] == ["summary", "run", "verdict"] and shown.err == ""
    shown = terminal("scan", "a.npy", "-o", "scan.jsonl", out=True)
    assert shown.out == "" and (tmp_path / "scan.jsonl").exists()
    assert "none of them dead" in shown.err and "No records were written" not in shown.err
    assert "--explain" not in shown.err


def test_records_on_a_terminal_have_no_bar_through_them(terminal: Terminal) -> None:
    shown = terminal("scan", "a.npy", "--format", "jsonl")
    assert not BAR.search(shown.out + shown.err)


def test_a_pipe_gets_records(terminal: Terminal) -> None:
    shown = terminal("scan", "a.npy", out=False)
    kinds = [json.loads(line)["type"] for line in shown.out.splitlines()]
    assert kinds == ["run", "dictionary", "summary", "run", "verdict"]
    assert BAR.search(shown.err), "progress on the terminal that is left"
    assert "none of them dead" in shown.err


def test_a_run_says_how_long_it_took(terminal: Terminal) -> None:
    shown = terminal("scan", "a.npy", out=False, err=False)
    lines = [json.loads(line) for line in shown.out.splitlines()]
    first, last = (line for line in lines if line["type"] == "run")
    assert (first["finished"], first["seconds"]) == (None, None)
    assert last["finished"] >= last["started"] and 0 < last["seconds"] < 60
    (screened,) = last["screens"]
    assert screened["sae"] == "a.npy" and 0 < screened["seconds"] < last["seconds"]
    assert {**last, "finished": None, "seconds": None, "screens": None} == first
    assert lines[-2] == last


def test_progress_says_which_sae_and_how_far(terminal: Terminal, tmp_path: Path) -> None:
    np.save(tmp_path / "bad.npy", np.full((8, 4), np.nan))
    shown = terminal("scan", "a.npy", "bad.npy", out=False)
    assert shown.status == 2
    plain = BAR.sub("", shown.err)
    assert re.search(r"a\.npy +\(1 of 2\)", plain) and re.search(r"bad\.npy +\(2 of 2\)", plain)
    assert "screening" in plain
    said = re.findall(r"(.)saeaudit: bad\.npy: nothing to audit", plain, re.S)
    assert len(said) == 1 and said[0] in "\r\n", "above the bar, on a line by itself"
    looked = terminal("mediators", "sample", "--max-tokens", "5", out=False)
    plain = BAR.sub("", looked.err)
    assert "5 of 5 tokens" in plain and looked.status == 0
    assert re.search(r"swapping \d of 5 tokens (--:--|\d\d:\d\d) left", plain)


def test_off_a_terminal_a_line_for_each_sae_that_is_done(cli: Cli, tmp_path: Path) -> None:
    for name in ("a", "b"):
        np.save(tmp_path / f"{name}.npy", np.random.default_rng(0).normal(size=(50, 30)))
    done = cli("scan", "a.npy", "b.npy").stderr.decode()
    said = re.findall(r"^saeaudit: (\w)\.npy: 0 duplicate pairs.*\((\d of 2), [\d.]+ s\)$", done,
                      re.M)  # fmt: skip
    assert said == [("a", "1 of 2"), ("b", "2 of 2")]
    alone = cli("scan", "a.npy").stderr.decode()
    assert re.search(r"^saeaudit: a\.npy: 0 duplicate pairs.*0\.00% redundant \([\d.]+ s\)$", alone,
                     re.M)  # fmt: skip
    looked = cli("mediators", "sample", "--max-tokens", "2").stderr.decode()
    assert re.search(r"^saeaudit: sample: 2 tokens, L0 .* \([\d.]+ s\)$", looked, re.M)
    for option in ("--quiet", "--no-progress"):
        assert " s)\n" not in cli("scan", "a.npy", "b.npy", option).stderr.decode()
