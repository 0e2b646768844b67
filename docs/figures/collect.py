"""What docs/collect.md shows: a tiny model is made, and its commands are run in turn."""

from __future__ import annotations

import contextlib
import io
import runpy
import tempfile
from pathlib import Path

import transformers

from saeaudit.audit.collect.model import quiet
from saeaudit.cli.app import app

PROGRAM = Path(__file__).with_name("tiny_model.py")
COMMANDS = (
    "saeaudit collect tiny/sae --texts tiny/texts.jsonl --tokens 5k -o acts",
    "saeaudit score tiny/sae --activations acts --max-tokens 20 -o score.jsonl",
)
SHOWN = 8
"""Lines of an answer that are shown."""


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        with quiet(transformers):
            runpy.run_path(str(PROGRAM))
        said = [answer(command) for command in COMMANDS]
    shown = [
        line
        for command, lines in zip(COMMANDS, said, strict=True)
        for line in (f"$ {command}", *lines[:SHOWN], *(["..."] if len(lines) > SHOWN else []), "")
    ]
    return {
        "model": f"```python\n{PROGRAM.read_text()}```",
        "commands": "\n".join(("```console", *shown[:-1], "```")),
    }


def answer(command: str) -> list[str]:
    """What a command says to people; run in this process, where transformers is loaded already.

    Raises:
        ValueError: it ends with another status than 0.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            app([*command.split()[1:], "--no-progress"])  # a line that says seconds
    except SystemExit as end:
        if end.code:
            raise ValueError(f"{command}: {said.getvalue()}") from end
    return said.getvalue().strip("\n").splitlines()
