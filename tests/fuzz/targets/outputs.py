"""Names and labels from outside, in everything that saeaudit writes."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any, NamedTuple, get_args

from saeaudit.errors import AuditError
from saeaudit.formats.interface import opened
from saeaudit.formats.output import destination
from saeaudit.formats.screen.mediators import MediatorsScreen
from saeaudit.formats.screen.scan import ScanScreen
from saeaudit.formats.screen.score import ScoreScreen
from saeaudit.records import parse
from saeaudit.vocabulary import Format
from tests.fuzz.engine import Case
from tests.fuzz.mutate import TEXTS, chance, dumped
from tests.fuzz.oracle import promised, unclean
from tests.fuzz.seeds import record_rows, records

ALPHABET = "a :#[]%\\/\"'<>&\t\n\r\x00\x07\x1b\x7f\x85\x9b\u200b\u202e\u2028\u2066\ud800\ufffeé✓"
OURS = re.compile(r"::(error|warning|notice) title=[^:\n]*::")
"""The commands that --format github means."""
OUTSIDE = (
    "uri",
    "path",
    "text",
    "reason",
    "hint",
    "removed",
    "added",
    "name",
    "format",
    "labels",
    "urls",
    "neuronpedia",
)
"""Fields of records that hold texts from outside, beside `sae`."""
TABLES = {
    "scan": ScanScreen,
    "score": ScoreScreen,
    "mediators": MediatorsScreen,
}


class Outputs(NamedTuple):
    """Records full of hostile texts, in every format.

    An input holds the texts only, so that a kept one stays of use when the form of records changes.
    """

    name: str = "escape"

    def make(self, rng: random.Random) -> Case:
        command = rng.choice(("scan", "score", "mediators"))
        records(command)  # made by the parent of the process that runs the input
        told = {"command": command, "seed": rng.randrange(10**6),
                "words": [hostile(rng) for _ in range(8)]}  # fmt: skip
        return {"told.json": json.dumps(told).encode()}

    def run(self, folder: Path) -> None:
        told = json.loads((folder / "told.json").read_bytes())
        rng, words = random.Random(told["seed"]), told["words"]
        rows = [_filled(rng, row, words) for row in record_rows(told["command"])]
        rows.insert(2, {"type": "error", "sae": words[0], "reason": words[1], "hint": words[2]})
        parsed = [_parse(dumped(row)) for row in rows]
        for form in get_args(Format):
            place = folder / f"out.{form}"
            with opened(destination(str(place)), form, TABLES[told["command"]]) as writer:
                for record in parsed:
                    writer.record(record)
            check(place.read_bytes().decode("utf-8"), form)
        for word in words:
            raise_clean(word)


def _parse(line: str) -> Any:
    """A record; lone surrogates come from elsewhere, as JSON cannot carry them."""
    plain = re.sub(r"[\ud800-\udfff]", "?", line)
    return parse(plain)


def check(text: str, form: str) -> None:
    """Refuse output that a terminal or a CI system obeys."""
    for line in text.split("\n"):
        said = line.replace("::", "", 2) if form == "github" and OURS.match(line) else line
        dirt = unclean(said)
        promised(not dirt, f"{form} is clean", f"{dirt}: {line[:500]!a}")
    if form == "jsonl":
        for line in text.split("\n"):
            if line:
                json.loads(line)


def raise_clean(text: str) -> None:
    """Refuse an error whose line is not clean or not one."""
    for error in (AuditError(text), AuditError("what", where=text), AuditError("what", hint=text)):
        dirt = unclean(error.line())
        promised(not dirt, "an error's line is clean", f"{dirt}: {error.line()[:500]!a}")


def hostile(rng: random.Random) -> str:
    """A short text of characters and words that somebody obeys."""
    pieces = [rng.choice((*ALPHABET, *TEXTS)) for _ in range(rng.randint(1, 6))]
    return "".join(pieces)


def _filled(rng: random.Random, value: Any, words: list[str], key: str = "") -> Any:
    """A record in which texts that come from outside are replaced."""
    if isinstance(value, dict):
        return {k: _filled(rng, inner, words, k) for k, inner in value.items()}
    if isinstance(value, list):
        return [_filled(rng, inner, words, key) for inner in value]
    if key == "sae":
        return words[0]
    if isinstance(value, str) and key in OUTSIDE and chance(rng, 0.8):
        return rng.choice(words)
    return value


TARGETS = (Outputs(),)
