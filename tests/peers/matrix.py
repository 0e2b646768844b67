"""What other libraries wrote, what saeaudit makes of it, and the table of both in docs/formats.md.

``make peer-test`` runs each file in generators/ in the library's environment and names the folder
that they filled in SAEAUDIT_PEERS; ``python -m tests.peers.matrix`` prints the table, and with
``--write`` puts it into the documentation.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from saeaudit import AuditError
from saeaudit.audit.codes import make_encoder
from saeaudit.audit.open import open_layers
from saeaudit.sources.target import resolve

TOLERANCE = 1e-5
PAGE = Path(__file__).parents[2] / "docs" / "formats.md"
MARKS = ("<!-- peers: written by make peer-test -->", "<!-- /peers -->")


class Case(NamedTuple):
    """One SAE that a library wrote, and where the library's own figures are."""

    library: str
    name: str
    file: Path
    expected: Path
    options: dict[str, Any]

    @property
    def kind(self) -> str:
        """What the table groups by."""
        named = (self.options.get(key) for key in ("architecture", "dict_class", "activation"))
        kind = next((str(value) for value in named if value), self.name)
        return f"{kind} --assume {self.assumed}" if self.assumed else kind

    @property
    def assumed(self) -> str | None:
        """What the file leaves open, and its writer knows."""
        return self.options.get("assume")


class Verdict(NamedTuple):
    """What saeaudit made of one case."""

    differences: dict[str, float]
    """Largest difference of decoder, encoder, codes and decoded, relative where above 1."""
    refused: str | None
    """Why it gives no codes, or None."""
    notes: tuple[str, ...]

    @property
    def wrong(self) -> dict[str, float]:
        """What differs."""
        return {name: size for name, size in self.differences.items() if not size <= TOLERANCE}


def read_cases() -> list[Case]:
    """Every case below SAEAUDIT_PEERS, or none."""
    root = Path(os.environ.get("SAEAUDIT_PEERS", "/nonexistent"))
    cases = []
    for listing in sorted(root.glob("*/cases.jsonl")):
        for line in map(json.loads, listing.read_text(encoding="utf-8").splitlines()):
            file, expected = listing.parent / line["file"], listing.parent / line["expected"]
            cases.append(Case(line["library"], line["name"], file, expected, line["options"]))
    return cases


def judge(case: Case) -> Verdict:
    """Open a case and compare; a file that cannot be opened raises."""
    expected = np.load(case.expected)
    (sae,) = resolve(str(case.file), assumptions=case.assumed)
    dictionary, *others = open_layers(sae)
    decoder = torch.cat([d.weights.decoder for d in (dictionary, *others)], 1)
    differences = {"decoder": _difference(decoder, expected["decoder"])}
    if dictionary.encoder is not None and "encoder" in expected:
        differences["encoder"] = _difference(dictionary.encoder, expected["encoder"])
    notes = dictionary.weights.notes
    try:
        encoder = make_encoder(dictionary, dtype=torch.float64)
    except AuditError as error:
        return Verdict(differences, error.what, notes)
    x = torch.from_numpy(expected["x"])
    codes = encoder.codes(x)
    differences["codes"] = _difference(codes, expected["codes"])
    differences["decoded"] = _difference(encoder.decode(codes, x), expected["decoded"])
    return Verdict(differences, None, notes)


def _difference(ours: torch.Tensor, theirs: np.ndarray) -> float:
    other = torch.from_numpy(theirs)
    if ours.shape != other.shape:
        return float("inf")
    return float((ours.double() - other).abs().max()) / max(1.0, float(other.abs().max()))


def table() -> Iterator[str]:
    """The table's lines: one row for each library and kind of SAE."""
    rows: dict[tuple[str, str], list[Verdict]] = {}
    for case in read_cases():
        rows.setdefault((case.library, case.kind), []).append(judge(case))
    yield "| library | what it saved | files | codes right | no codes, because |"
    yield "|---|---|---|---|---|"
    for (library, kind), verdicts in rows.items():
        right = sum(not v.wrong and v.refused is None for v in verdicts)
        reasons = sorted({v.refused for v in verdicts if v.refused is not None})
        wrong = sum(bool(v.wrong) for v in verdicts)
        shown = f"{right}" if not wrong else f"{right}, {wrong} WRONG"
        yield f"| {library} | {kind} | {len(verdicts)} | {shown} | {'; '.join(reasons)} |"


def main() -> None:
    """Print the table, or write it."""
    lines = "\n".join(table())
    if "--write" in sys.argv:
        start, end = MARKS
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(start)
        PAGE.write_text(f"{before}{start}\n{lines}\n{end}{rest.partition(end)[2]}", "utf-8")
    sys.stdout.write(lines + "\n")


if __name__ == "__main__":
    main()
