"""What a command imports before it answers: PyTorch takes seconds, and most answers need none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

RUN = """
import sys
from saeaudit.cli.app import app
for line in sys.stdin.read().splitlines():
    try:
        app(line.split(" "))
    except SystemExit as end:
        names = {"torch"} & set(sys.modules)
        print(f"{end.code} {','.join(names) or '-'} {line}", file=sys.stderr)
"""


def ran(commands: list[str], folder: Path) -> list[str]:
    """What all commands in one process end with: status, slow modules, command."""
    done = subprocess.run(
        [sys.executable, "-c", RUN], input="\n".join(commands), cwd=folder, text=True,
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    return [line for line in done.stderr.splitlines() if not line.startswith("saeaudit:")]


def test_what_needs_no_tensor_does_not_import_torch(tmp_path: Path) -> None:
    np.savez(tmp_path / "plain.npz", W_dec=np.ones((8, 4), np.float32))
    (tmp_path / "config.yaml").write_text("scan: {min_cosine: 0.9}\n")
    records = [{"type": "dictionary"}]
    (tmp_path / "empty.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    fine = [
        "--version", "--help", "help scan", "schema", "releases gemma", "fetch sample",
        "fetch plain.npz", "fetch sample --list", "config check config.yaml",
    ]  # fmt: skip
    mistakes = [
        "scna", "scan smaple", "scan plane.npz", "scan sample --screne int8", "scan",
        "scan sample --fail-on pear>1", "scan sample --min-cosine 2", "scan sample --device tpu",
        "scan gemma-scope-2b", "mediators sample --epsilon -1", "mediators smaple",
        "score sample --seed -1", "score smaple", "scan sample --assume centered",
        "baseline missing.jsonl", "fetch plane.npz",
        "scan sample gemma-2-2b/0-gemmascope-res-17k",
    ]  # fmt: skip
    lines = ran([*fine, *mistakes], tmp_path)
    told = [line for line in lines if line[:4] in ("0 - ", "2 - ")]
    assert [f"0 - {command}" for command in fine] == [x for x in told if x.startswith("0")]
    assert [f"2 - {command}" for command in mistakes] == [x for x in told if x.startswith("2")]


@pytest.mark.parametrize(("argument", "status"), [("schema", 0), ("scna", 2)])
def test_a_process_ends_when_all_is_written(argument: str, status: int) -> None:
    """Taking PyTorch's modules down takes a third of a second."""
    code = (
        "import atexit, sys; from saeaudit.cli.app import run\n"
        "atexit.register(print, 'modules are taken down')\n"
        f"sys.argv[1:] = [{argument!r}]; run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout.count(b"taken down")) == (status, 0)
    assert done.stderr.count(b"\n") == (status == 2)
    if not status:
        assert json.loads(done.stdout)["$defs"]
