"""What docs/tutorial.md shows: its commands, run in turn in one folder, and their screens."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

LEFT_OUT = "..."
PROGRESS = re.compile(r"saeaudit: .* \([\d.]+ s\)")
"""What is said of an SAE that is done where no terminal shows a bar."""
ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1"}


class Step(NamedTuple):
    """A command of the page, and what of its answer is shown."""

    command: str
    """What is typed; it needs no shell."""
    first: str = ""
    """The first line that is shown begins so."""
    lines: int = 100
    """How many lines are shown at most."""


STEPS = {
    "scan": Step("saeaudit scan sample/stitched --triple 692,3925,554 -o scan.jsonl", lines=6),
    "claim": Step("saeaudit show scan.jsonl --type claim"),
    "card": Step("saeaudit show scan.jsonl --feature 554"),
    "explain": Step("saeaudit explain triple"),
    "exchanges": Step(
        "saeaudit mediators sample/stitched --scan scan.jsonl -o exchanges.jsonl", lines=10
    ),
    "token": Step("saeaudit score sample --explain 17 -o token.jsonl", "token 17", 27),
    "report": Step("saeaudit report scan.jsonl exchanges.jsonl token.jsonl -o report.html"),
}


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    with tempfile.TemporaryDirectory() as folder:
        return {name: transcript(step, Path(folder)) for name, step in STEPS.items()}


def transcript(step: Step, folder: Path) -> str:
    """A command and what it says to people, as a block of code.

    Raises:
        CalledProcessError: it ends with another status than 0.
    """
    _, *arguments = step.command.split()
    done = subprocess.run(
        [sys.executable, "-m", "saeaudit", *arguments], cwd=folder, env=ENVIRONMENT,
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    written = (done.stdout or done.stderr).strip("\n").splitlines()
    said = [line for line in written if not PROGRESS.fullmatch(line)]
    begin = next((n for n, line in enumerate(said) if line.startswith(step.first)), 0)
    shown = said[begin : begin + step.lines]
    if begin + step.lines < len(said):
        shown = [*shown, LEFT_OUT]
    return "\n".join(("```console", f"$ {step.command}", *shown, "```"))
