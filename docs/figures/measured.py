"""What takes too long to be run by a test: measured once, kept in measured.json.

Kept are the summary of a whole run and the choices of its first tokens. A test makes these choices
again, and the hash says whether the inputs are those of then.
"""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import torch

import saeaudit
from saeaudit.audit.codes import Coder
from saeaudit.audit.score.inputs import ScoreInputs, ScoreSources, read_inputs
from saeaudit.audit.score.window import make_window
from saeaudit.audit.tokens import draw_tokens
from saeaudit.core.codes.cheapest import SOLVED, cheapest
from saeaudit.core.codes.norms import Norms, Squares, Sums
from saeaudit.records import ChoiceRecord, Record, ScoreSummary, dump, number, parse
from saeaudit.sample import sample_root

FILE = Path(__file__).parent / "measured.json"
PROBES = 20
"""Tokens whose choices are kept."""
PROBED = (
    "token", "l0", "alternative_count", "priced", "bits", "gap_bits", "l1", "l2", "chosen",
    "removed", "added", "margin_bits", "wins", "resolved",
)  # fmt: skip
"""What is kept of a choice."""
NORMS = {"L1": Sums, "L2": Squares}
NORMED = 30
"""Tokens whose codes of least L1 and L2 are searched for."""


def inputs_hash() -> str:
    """SHA-256 of the bundled files, names and contents."""
    digest = hashlib.sha256()
    for path in sorted(sample_root().rglob("*")):
        if path.is_file() and path.suffix not in (".py", ".pyc", ".md"):
            digest.update(str(path.relative_to(sample_root())).encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


@cache
def inputs(features: str | None = None) -> ScoreInputs:
    """What the sample is scored with; ``features`` as of the command line."""
    return read_inputs(saeaudit.open("sample"), ScoreSources(features=features))


def first_tokens(count: int) -> list[int]:
    """The first tokens that are measured."""
    given = inputs()
    assert given.activations is not None
    draw = draw_tokens(len(given.activations), given.documents, saeaudit.ScoreOptions().seed)
    tokens: list[int] = draw.measured[:count].tolist()
    return tokens


def kept(choice: ChoiceRecord) -> dict[str, Any]:
    """What is kept of a choice, as JSON has it."""
    written = json.loads(dump(choice))
    return {name: written[name] for name in PROBED}


def least_norms(count: int) -> dict[str, list[tuple[int, float | None]]]:
    """Rows solved and the gap left (None where there is no bound) for each of the first tokens."""
    coder, x = Coder(saeaudit.open("sample"), "cpu"), inputs().activations
    assert x is not None
    tokens = torch.tensor(first_tokens(count)).sort().values
    window = make_window(coder, x, tokens)
    solved: dict[int, dict[str, tuple[int, float | None]]] = {}
    for group_tokens, fit, group in window.groups(tokens):
        for name, cost in NORMS.items():
            measure = Norms(coder.thresholds, cost)
            reference = group.codes, group.error
            least = cheapest(fit, reference, coder.enter, measure, most=SOLVED)
            gaps = [number(gap) for gap in least.gap.tolist()]
            both = zip(group_tokens.tolist(), least.solved.tolist(), gaps, strict=True)
            for token, rows, gap in both:
                solved.setdefault(token, {})[name] = rows, gap
    return {name: [solved[token][name] for token in first_tokens(count)] for name in NORMS}


def measure() -> None:
    """Run it all: two minutes of one core."""
    sample = saeaudit.open("sample")
    options = saeaudit.ScoreOptions(canonicalise=True)
    *records, summary = saeaudit.score(sample, inputs(), options)
    choices = {record.token: record for record in records if isinstance(record, ChoiceRecord)}
    sizes = [choice.l0 for choice in choices.values()]
    *_, histograms = saeaudit.score(sample, inputs("fetched"))
    figures = {
        "inputs": inputs_hash(),
        "summary": json.loads(dump(summary)),
        "histograms": json.loads(dump(histograms)),
        "features": [min(sizes), max(sizes)],
        "mean_l0": number(sum(sizes) / len(sizes)),
        "solved": number(math.fsum(choice.priced for choice in choices.values()) / len(choices)),
        "choices": [kept(choices[token]) for token in first_tokens(PROBES)],
        "norms": least_norms(NORMED),
    }
    lines = (f"{json.dumps(key)}: {json.dumps(value)}" for key, value in figures.items())
    FILE.write_text("{\n" + ",\n".join(lines) + "\n}\n")


@cache
def measured() -> dict[str, Any]:
    """What was kept."""
    figures: dict[str, Any] = json.loads(FILE.read_text())
    return figures


def summary(name: str = "summary") -> ScoreSummary:
    """A summary that was kept: of activations, or of "histograms"."""
    record: Record = parse(json.dumps(measured()[name]))
    assert isinstance(record, ScoreSummary)
    return record
