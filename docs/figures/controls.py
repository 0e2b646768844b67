"""Write the sample's figures into docs/controls.md: ``python docs/generate_controls.py``.

What stands between the two marks is made from these runs, sentences included.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from textwrap import wrap
from typing import NamedTuple

import torch

import saeaudit
from saeaudit.audit.control import trials
from saeaudit.audit.mediators.inputs import MediatorSources, read_inputs
from saeaudit.core.calibration import interval, resampled_sums
from saeaudit.records import MediatorsSummary, TokenRecord
from saeaudit.vocabulary import MediatorControl

PAGE = Path(__file__).parent / "controls.md"
TOKENS = 100
CONTROLS: tuple[MediatorControl, ...] = ("random-decoder", "permuted-tokens")
BEGIN = "<!-- figures of the sample, by generate_controls.py -->\n"
END = "<!-- end of figures -->\n"


class Figures(NamedTuple):
    """What one run says, in refit mode at no tolerance."""

    fvu: float
    unique: float
    """Share of tokens without another code."""
    changing: float
    """Share of tokens with one that changes at least a tenth of the code."""
    alternatives: float
    low: float
    high: float
    """Mean number a token, and its bootstrap interval of 95 % over tokens."""


def runs() -> dict[str, Figures]:
    """The sample, its pursuit and the controls, by what their records are called."""
    options = saeaudit.MediatorOptions(max_tokens=TOKENS, max_alternatives=0)
    sample = saeaudit.open("sample")
    inputs = read_inputs(sample, MediatorSources(), options.device)
    figures: dict[str, Figures] = {}
    for control in (None, *CONTROLS):
        for dictionary, measured in trials(sample, inputs, control, options, options.device):
            if dictionary.sae not in figures:  # the pursuit is the same beside either
                records = saeaudit.mediators(dictionary, measured, options)
                figures[dictionary.sae] = figures_of(records)
    return figures


def figures_of(records: Iterator[object]) -> Figures:
    """Figures of one run."""
    counts: list[float] = []
    for record in records:
        if isinstance(record, TokenRecord):
            counts.append(next(a.count for a in record.alternatives if a.mode == "refit"))
    assert isinstance(record, MediatorsSummary) and record.fvu_encoder is not None
    row = next(row for row in record.non_unique if row.mode == "refit")
    changing = next(share.fraction for share in row.by_change if share.change == 0.1)
    means = resampled_sums(torch.tensor(counts, dtype=torch.float64)[:, None]) / len(counts)
    return Figures(
        record.fvu_encoder, 1 - row.non_unique_fraction, changing, row.mean_alternatives,
        *interval(means[:, 0]),
    )  # fmt: skip


def text(of: dict[str, Figures]) -> str:
    """What the page says of them."""
    lines = [
        f"Of `saeaudit mediators sample --max-tokens {TOKENS}`, without and with each `--control`, "
        "in refit mode at ε = 0:",
        "",
        "| | error, of the variance | tokens with another code | … changing ≥ 10 % | "
        "alternatives a token (95 %) |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {100 * run.fvu:.1f} % | {100 * (1 - run.unique):.0f} % | "
            f"{100 * run.changing:.0f} % | {mean(run)} |"
            for name, run in of.items()
        ),
    ]
    encoder, pursuit, drawn, permuted = of.values()
    sentences = (
        f"The encoder's codes have {encoder.alternatives:,.0f} alternatives a token. Pursued codes "
        f"of as many features, on the same rows and the same activations, have {mean(pursuit)}: "
        "few supports fit better than the pursuit's, many better than the encoder's. On random "
        f"rows pursued codes have {mean(drawn)}, "
        f"{compared(pursuit, drawn)}, and of permuted activations {mean(permuted)}, "
        f"{compared(pursuit, permuted)}. What the trained rows do is to fit their activations: "
        f"with as many features the pursuit leaves {100 * pursuit.fvu:.1f} % of the variance, on "
        f"random rows {100 * drawn.fvu:.1f} %, of permuted activations {100 * permuted.fvu:.1f} %."
    )
    return "\n".join([*lines, "", *wrap(sentences, 100), ""])


def mean(run: Figures) -> str:
    """Mean alternatives, with the interval."""
    return f"{run.alternatives:,.0f} ({run.low:,.0f} to {run.high:,.0f})"


def compared(pursuit: Figures, null: Figures) -> str:
    """Whether the interval of the SAE is above, below or beside a null's."""
    if pursuit.low > null.high:
        return "which is fewer"
    if pursuit.high < null.low:
        return "which is more"
    return "which cannot be told from that"


def page(of: dict[str, Figures]) -> str:
    """The whole page."""
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + text(of) + END + after


if __name__ == "__main__":
    PAGE.write_text(page(runs()))
