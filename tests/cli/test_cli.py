from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import numpy as np
import pytest

import saeaudit
from saeaudit.records import json_schema
from tests.conftest import Cli

SAMPLE = Path(saeaudit.__file__).parent / "sample"
BASH = shutil.which("bash")
JQ = shutil.which("jq")


def records(out: bytes) -> list[dict]:
    return [json.loads(line) for line in out.splitlines()]


def but_for_runs(out: bytes) -> list[bytes]:
    return [line for line in out.splitlines() if not line.startswith(b'{"type":"run"')]


def test_streams_and_records(cli: Cli) -> None:
    done = cli("scan", "sample")
    assert done.returncode == 0
    lines = records(done.stdout)
    kinds = [record["type"] for record in lines]
    assert kinds == ["run", "dictionary", "pair", "summary", "run", "verdict"]
    validator = jsonschema.Draft202012Validator(json_schema())
    for record in lines:
        validator.validate(record)
    assert lines[-1] == {
        "type": "verdict", "passed": True, "rules": [], "new_findings": 1, "known_findings": 0,
    }  # fmt: skip
    assert lines[1]["source"]["path"] == "layer_3/width_2k/average_l0_23/params.npz"
    assert b"\x1b" not in done.stderr and b"2,048 features of width 384" in done.stderr
    assert cli("scan", "sample", "--quiet").stderr == b""


def test_two_runs_are_equal_but_for_the_run_record(cli: Cli) -> None:
    first, second = (
        but_for_runs(cli("scan", "sample/stitched", "--screen", screen).stdout)
        for screen in ("auto", "auto")
    )
    assert first == second
    other = but_for_runs(cli("scan", "sample/stitched", "--screen", "int8").stdout)
    asked = b'"certificate":{"screen":"auto"'
    assert [line.replace(b'{"screen":"int8"', b'{"screen":"auto"') for line in other] == first
    assert any(asked in line for line in first)


def test_known_counts_of_the_samples(cli: Cli) -> None:
    def counts(*arguments: str) -> tuple[int, int, int]:
        lines = records(cli("scan", *arguments).stdout)
        kinds = [(r["type"], r.get("kind")) for r in lines]
        return (
            kinds.count(("pair", "duplicate")),
            kinds.count(("pair", "antipodal")),
            kinds.count(("triple", None)),
        )

    assert counts("sample") == (0, 1, 0)
    assert counts("sample", "--min-cosine", "0.7") == (0, 2, 0)
    assert sum(counts("sample", "--min-cosine", "0.5")) == 14
    assert counts("sample/stitched") == (17, 1, 3)


def test_output_file(cli: Cli, tmp_path: Path) -> None:
    done = cli("scan", "sample", "-o", "out.jsonl")
    assert (done.returncode, done.stdout) == (0, b"")
    assert records((tmp_path / "out.jsonl").read_bytes())[-1]["type"] == "verdict"
    assert [p.name for p in tmp_path.iterdir()] == ["out.jsonl"]


def test_schema_and_version(cli: Cli) -> None:
    assert json.loads(cli("schema").stdout)["title"] == "saeaudit/2 record"
    first, second = cli("--version").stdout.decode().splitlines()
    assert first == f"saeaudit {saeaudit.__version__}"
    assert re.fullmatch(r"Python 3\.\d+\.\d+, torch \d\S+, CUDA (none|[\d.]+)", second)


def bad_files(folder: Path) -> None:
    (folder / "empty").mkdir()
    (folder / "text.txt").write_text("hello\n")
    (folder / "text.npz").write_text("hello\n")
    whole = (SAMPLE / "layer_3/width_2k/average_l0_23/params.npz").read_bytes()
    (folder / "truncated.npz").write_bytes(whole[: len(whole) // 2])
    np.savez(folder / "objects.npz", W_dec=np.array([{}], dtype=object))
    np.savez(folder / "shapes.npz", W_dec=np.ones((8, 4)), W_enc=np.ones((5, 8)))
    np.save(folder / "nan.npy", np.full((8, 4), np.nan))
    np.save(folder / "one.npy", np.ones((1, 4)))
    np.save(folder / "none.npy", np.ones((0, 4)))
    np.save(folder / "good.npy", np.random.default_rng(0).normal(size=(50, 8)))


USAGE = [
    ("scan missing.npz", "no such file or folder"),
    ("scan empty", "no SAE weights in this folder"),
    ("scan sampel", "did you mean sample?"),
    ("scan good.npy --nope", "--nope"),
    ("scan", "TARGET"),
    ("scna good.npy", "'scna'"),
    ("scan good.npy -o empty", "is a folder"),
    ("scan good.npy -o no/where.jsonl", "No such file"),
    ("scan good.npy --min-cosine 2", "out of range"),
    ("scan good.npy --min-cosine x", "'x' is no number"),
    ("scan good.npy --screen fp64", "fp64"),
    ("scan good.npy --device tpu", "tpu"),
    ("scan good.npy --triple 1,2", "three feature numbers"),
    ("scan good.npy --triple 1,2,x", "'1,2,x' is not three feature numbers"),
    ("scan good.npy --triple 1,2,1", "--triple 1,2,1: each feature must be another"),
    ("scan good.npy --pair 1,2,3", "two feature numbers"),
    ("scan good.npy --pair 1," + "9" * 5000, "two feature numbers"),
    ("scan good.npy --pair 4,4", "--pair 4,4: each feature must be another"),
    ("scan good.npy --sae nothing*", "matches --sae"),
]
"""What a new user gets wrong: no record is written."""
DAMAGED = [
    ("text.txt", "unknown kind of weight file"),
    ("text.npz", "damaged or truncated"),
    ("truncated.npz", "damaged or truncated"),
    ("objects.npz", "Python objects"),
    ("shapes.npz", "do not belong together"),
    ("nan.npy", "not finite"),
    ("one.npy", "one feature"),
    ("none.npy", "empty"),
]
"""Files that cannot be audited: an error record says why."""


@pytest.mark.parametrize(("command", "says"), USAGE, ids=[c[:60] for c, _ in USAGE])
def test_usage_errors_are_one_line(command: str, says: str, cli: Cli, tmp_path: Path) -> None:
    bad_files(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    done = cli(*command.split())
    assert done.returncode == 2
    assert done.stdout == b""
    assert done.stderr.count(b"\n") == 1 and done.stderr.startswith(b"saeaudit: ")
    assert says in done.stderr.decode()
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(("name", "says"), DAMAGED, ids=[n for n, _ in DAMAGED])
def test_files_that_cannot_be_audited(name: str, says: str, cli: Cli, tmp_path: Path) -> None:
    bad_files(tmp_path)
    done = cli("scan", name)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1 and says in done.stderr.decode()
    _run, error, _ended, verdict = records(done.stdout)
    assert (error["type"], error["sae"]) == ("error", name)
    assert not verdict["passed"]


def test_a_failed_run_leaves_no_file(cli: Cli, tmp_path: Path) -> None:
    bad_files(tmp_path)
    assert cli("scan", "truncated.npz", "nan.npy", "-o", "out.jsonl").returncode == 2
    assert not list(tmp_path.glob("*out.jsonl*"))


def test_a_bad_file_among_good_ones(cli: Cli, tmp_path: Path) -> None:
    bad_files(tmp_path)
    done = cli("scan", "nan.npy", "good.npy", "-o", "out.jsonl")
    assert done.returncode == 2
    kinds = [r["type"] for r in records((tmp_path / "out.jsonl").read_bytes())]
    assert kinds[:3] == ["run", "error", "dictionary"]
    assert kinds[-3:] == ["summary", "run", "verdict"]


def test_no_cuda_is_one_line(cli: Cli) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    done = cli("scan", "sample", "--device", "cuda")
    assert done.returncode == 2 and b"no CUDA device" in done.stderr
    assert done.stderr.count(b"\n") == 1


def test_debug_gives_a_traceback(cli: Cli) -> None:
    done = cli("scan", "missing.npz", "--debug")
    assert done.returncode == 2 and b"Traceback" in done.stderr


def test_a_bug_is_exit_2_with_a_traceback(tmp_path: Path) -> None:
    code = (
        "import saeaudit.sources.target as t\n"
        "def broken(*a, **k): raise ZeroDivisionError('oops')\n"
        "t.resolve = broken\n"
        "from saeaudit.cli.app import app\n"
        "app(['scan', 'sample'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 2
    assert b"Traceback" in done.stderr and b"a bug in saeaudit" in done.stderr
    memory = code.replace("ZeroDivisionError('oops')", "MemoryError")
    done = subprocess.run([sys.executable, "-c", memory], capture_output=True, check=False)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_a_closed_pipe_is_quiet(tmp_path: Path) -> None:
    np.save(tmp_path / "twins.npy", np.ones((300, 4)))
    script = (
        f"{sys.executable} -m saeaudit scan twins.npy --quiet | head -n 1 > /dev/null;"
        " echo ${PIPESTATUS[0]}"
    )
    done = subprocess.run([BASH, "-c", script], cwd=tmp_path, capture_output=True, check=False)
    assert (done.stdout.strip(), done.stderr) == (b"141", b"")


def test_interrupted(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(12000, 512)).astype(np.float32)
    np.save(tmp_path / "large.npy", rows)
    process = subprocess.Popen(
        [sys.executable, "-m", "saeaudit", "scan", "large.npy", "-o", "out.jsonl"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        # A job in a shell's background starts with SIGINT ignored, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob(".out.jsonl.*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"Traceback" not in err
    assert [p.name for p in tmp_path.iterdir()] == ["large.npy"]


@pytest.mark.skipif(JQ is None or BASH is None, reason="needs jq and bash")
def test_jq_reads_it(tmp_path: Path) -> None:
    script = (
        f"set -o pipefail; {sys.executable} -m saeaudit scan sample/stitched --quiet"
        """ | jq -c 'select(.type=="pair" or .type=="triple")' | wc -l"""
    )
    done = subprocess.run([BASH, "-c", script], cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.strip() == b"21"


def test_help_is_quick() -> None:
    command = [sys.executable, "-m", "saeaudit", "--help"]
    subprocess.run(command, capture_output=True, check=True)
    times = []
    for _ in range(5):  # processor time: a busy machine makes a process wait
        start = os.times()
        subprocess.run(command, capture_output=True, check=True, env=os.environ)
        end = os.times()
        times.append(end.children_user + end.children_system)
        times[-1] -= start.children_user + start.children_system
    assert min(times) < 0.3
