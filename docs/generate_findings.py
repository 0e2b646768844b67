"""Write docs/findings.md: ``python docs/generate_findings.py`` measures all of it and writes it.

``--only PART`` (size, width, encoder, known, planted) measures one part again, ``--page`` none: the
figures are kept in findings/figures.json. A sentence that does not follow from them is an error.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PAGE, FIGURES = HERE / "findings.md", HERE / "findings" / "figures.json"
PARTS = ("size", "width", "encoder", "known", "planted")
DIGITS = 4
"""Decimals of the figures that are kept."""

Figures = dict[str, Any]


def measure(parts: Sequence[str]) -> Iterator[Figures]:
    """Measure some parts, one after the other."""
    from findings import measure_recovery, measure_ties

    start = time.monotonic()

    def report(line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - start:4.0f} s  {line}\n")

    bundle = measure_ties.Bundle.load()
    ways: dict[str, Callable[[], object]] = {
        "size": lambda: measure_ties.by_size(bundle, report),
        "width": lambda: measure_ties.by_width(bundle, report),
        "encoder": lambda: measure_recovery.of_encoder(bundle, report),
        "known": lambda: measure_recovery.of_known_codes(bundle, report),
        "planted": lambda: measure_recovery.of_planted(report),
    }
    yield {
        "activations": len(bundle.x),
        "documents": int(bundle.resampling.parts.max()) + 1,
    }
    for part in parts:
        yield rounded({part: ways[part]()})


def rounded(value: Any) -> Any:
    """Numbers to `DIGITS` decimals, however deep."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(inner) for inner in value]
    return round(value, DIGITS) + 0.0 if isinstance(value, float) else value


def text(figures: Figures) -> str:
    """JSON, a row to a line."""
    return json.dumps(figures).replace("}, {", "},\n{") + "\n"


def page(figures: Figures) -> str:
    """The whole page.

    Raises:
        ValueError: a sentence does not follow from the figures.
    """
    from findings import write_recovery, write_ties

    return "\n\n".join(
        (
            write_ties.opening(figures), write_ties.by_size(figures), write_ties.by_width(figures),
            write_recovery.recovery(figures), CLOSING,
        )
    ) + "\n"  # fmt: skip


def main() -> None:
    """Measure what is asked for, and write figures and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=PARTS)
    parser.add_argument("--page", action="store_true")
    asked = parser.parse_args()
    figures = json.loads(FIGURES.read_text()) if FIGURES.exists() else {}
    for measured in () if asked.page else measure(asked.only or PARTS):
        figures |= measured
        FIGURES.write_text(text(figures))
    PAGE.write_text(page(figures))


CLOSING = """\
## What this page does not say

Two small SAEs of one layer of one model, one seed for subsets and random rows, one exchange at a
time. Intervals say what other documents would have given, not what other SAEs would."""


if __name__ == "__main__":
    main()
