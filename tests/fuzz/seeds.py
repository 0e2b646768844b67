"""A small SAE with a duplicate and a triple, its activations, and every command's records of it."""

from __future__ import annotations

import io
import json
import multiprocessing
import tempfile
from contextlib import chdir, redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from saeaudit.errors import AuditError
from tests.fuzz.engine import Case, write_case
from tests.fuzz.oracle import promised, unclean

FEATURES, WIDTH, TOKENS = 12, 5, 40
SAE = "sae"
"""Folder of the SAE, and so its id, in the folder of an input."""


@cache
def sae_files() -> Case:
    """An SAE in SAELens's form, forty activations, their tokens and explanations."""
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(FEATURES, WIDTH)).astype(np.float32)
    rows[3] = 0.5 * rows[1]
    rows[7] = rows[2] - 0.5 * rows[4]
    activations = rng.normal(size=(TOKENS, WIDTH)).astype(np.float32)
    tensors = {"W_dec": rows, "W_enc": np.ascontiguousarray(rows.T), "b_dec": rows[0] * 0,
               "b_enc": rows[:, 0] * 0}  # fmt: skip
    config = {"d_in": WIDTH, "d_sae": FEATURES, "architecture": "standard",
              "apply_b_dec_to_input": True}  # fmt: skip
    texts = [{"index": n, "description": f"words about {n}"} for n in range(FEATURES)]
    return {
        f"{SAE}/cfg.json": json.dumps(config).encode(),
        f"{SAE}/sae_weights.safetensors": save(tensors),
        "activations.safetensors": save({"activations": activations}),
        "tokens.txt": b"word\n" * TOKENS,
        "explanations.jsonl": "".join(json.dumps(text) + "\n" for text in texts).encode(),
    }


COMMANDS = {
    "scan": ("scan", SAE, "--triple", "4,2,7", "--pair", "1,3", "--explanations",
             "explanations.jsonl"),
    "exchanges": ("mediators", SAE, "--scan", "scan.jsonl"),
    "mediators": (
        "mediators", SAE, "--activations", "activations.safetensors", "--max-tokens", "8",
    ),
    "score": ("score", SAE, "--activations", "activations.safetensors", "--explanations",
              "explanations.jsonl"),
}  # fmt: skip


@cache
def _records() -> dict[str, bytes]:
    """What the commands write, run by a child: a process that has computed must not fork."""
    with tempfile.TemporaryDirectory() as folder:
        write_case(Path(folder), sae_files())
        child = multiprocessing.get_context("fork").Process(target=_run_all, args=(folder,))
        child.start()
        child.join()
        return {name: (Path(folder) / f"{name}.jsonl").read_bytes() for name in COMMANDS}


def _run_all(folder: str) -> None:
    for name, arguments in COMMANDS.items():
        call(Path(folder), *arguments, "-o", f"{name}.jsonl")


def records(command: str) -> bytes:
    """What a command writes of the SAE, as JSON Lines."""
    return _records()[command]


def record_rows(command: str) -> list[Any]:
    """The first and last of the same, parsed as plain JSON."""
    rows = [json.loads(line) for line in records(command).split(b"\n") if line]
    return rows if len(rows) < 20 else [*rows[:16], rows[-1]]


def call(folder: Path, *arguments: str) -> str:
    """Run saeaudit in this process and in a folder; returns what it wrote on standard output.

    Raises:
        AuditError: exit status 2; the last line of standard error.
        BrokenPromiseError: it ended as no input may make it: with a traceback, another exit status,
            or words on standard error that a terminal or a CI system would obey.
    """
    from saeaudit.cli.app import app

    binary = io.BytesIO()
    out, errors = io.TextIOWrapper(binary, "utf-8"), io.StringIO()
    status: Any = 0
    with chdir(folder), redirect_stdout(out), redirect_stderr(errors):
        try:
            app([*arguments])
        except SystemExit as end:
            status = end.code
    said = errors.getvalue()
    bug = "Traceback" in said or "a bug in saeaudit" in said
    promised(not bug, "no traceback", said[-4000:])
    promised(status in (0, 1, 2), "exit status 0, 1 or 2", f"{status}: {said[-1000:]}")
    promised(status != 2 or said.strip(), "exit status 2 has a line")
    for line in said.split("\n"):
        dirt = unclean(line)
        promised(not dirt, "standard error is clean", f"{dirt}: {line[:1000]!a}")
    if status == 2:
        raise AuditError(said.strip().split("\n")[-1])
    out.flush()
    return binary.getvalue().decode("utf-8")
