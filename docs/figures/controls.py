"""What docs/controls.md says of the sample and its controls, and README.md in a sentence."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import torch
from figures.words import ends, percent
from findings.markdown import holds, prose, table
from torch import Tensor

import saeaudit
from saeaudit.audit.control import trials
from saeaudit.audit.mediators.inputs import MediatorSources, read_inputs
from saeaudit.audit.score.shares import mean_interval
from saeaudit.records import Interval, MediatorsSummary, TokenRecord
from saeaudit.vocabulary import MediatorControl

TOKENS = 100
CONTROLS: tuple[MediatorControl, ...] = ("random-decoder", "permuted-tokens")


class Figures(NamedTuple):
    """What one run says, in refit mode at no tolerance."""

    fvu: float
    another: float
    """Share of tokens with another code."""
    changing: float
    """Share of tokens with one that changes at least a tenth of the code."""
    tokens: list[int]
    counts: Tensor
    """``[n]`` float64: alternatives of each."""
    documents: Tensor
    """``[n]`` int64: the document of each."""

    @property
    def alternatives(self) -> float:
        """Mean number a token."""
        return float(self.counts.mean())


@cache
def runs() -> dict[str, Figures]:
    """The sample, its pursuit and the controls, by what their records are called."""
    options = saeaudit.MediatorOptions(max_tokens=TOKENS, max_alternatives=0)
    sample = saeaudit.open("sample")
    inputs = read_inputs(sample, MediatorSources(), options.device)
    assert inputs.documents is not None
    made: dict[str, Figures] = {}
    for control in (None, *CONTROLS):
        for dictionary, measured in trials(sample, inputs, control, options, options.device):
            if dictionary.sae not in made:  # the pursuit is the same beside either
                records = list(saeaudit.mediators(dictionary, measured, options))
                made[dictionary.sae] = figures_of(records, inputs.documents)
    return made


def figures_of(records: list[object], documents: Tensor) -> Figures:
    """Figures of one run."""
    counts = {
        record.token: next(a.count for a in record.alternatives if a.mode == "refit")
        for record in records
        if isinstance(record, TokenRecord)
    }
    summary = records[-1]
    assert isinstance(summary, MediatorsSummary) and summary.fvu_encoder is not None
    row = next(row for row in summary.non_unique if row.mode == "refit")
    changing = next(share.fraction for share in row.by_change if share.change == 0.1)
    tokens = list(counts)
    return Figures(
        summary.fvu_encoder, row.non_unique_fraction, changing, tokens,
        torch.tensor(list(counts.values()), dtype=torch.float64), documents[tokens],
    )  # fmt: skip


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    of = runs()
    opening = (
        f"Of `saeaudit mediators sample --max-tokens {TOKENS}`, without and with each `--control`, "
        "in refit mode at ε = 0 (intervals of 95 %, bootstraps over "
        f"{len(of['sample'].documents.unique())} documents):"
    )
    head = (
        "", "error, of the variance", "tokens with another code", "… changing ≥ 10 %",
        "alternatives a token",
    )  # fmt: skip
    lines = [
        [name, percent(run.fvu), percent(run.another, 0), percent(run.changing, 0), mean(run)]
        for name, run in of.items()
    ]
    return {"sample": "\n\n".join((prose(opening), table(head, lines), sentences(of)))}


def sentences(of: dict[str, Figures]) -> str:
    """What follows from the table."""
    encoder, pursuit, drawn, permuted = of.values()
    return prose(
        f"The encoder's codes have {encoder.alternatives:,.0f} alternatives a token. Pursued codes "
        "of as many features, on the same rows and the same activations, have "
        f"{mean(pursuit)}: few supports fit better than the pursuit's, many better than the "
        "encoder's.",
        f"On random rows pursued codes have {mean(drawn)}, {compared(drawn, pursuit)}; of permuted "
        f"activations {mean(permuted)}, {compared(permuted, pursuit)}. The differences are on the "
        "same tokens.",
        holds(
            pursuit.fvu < drawn.fvu and pursuit.fvu < permuted.fvu,
            "What the trained rows do is to fit their activations: with as many features the "
            f"pursuit leaves {percent(pursuit.fvu)} of the variance, on random rows "
            f"{percent(drawn.fvu)}, of permuted activations {percent(permuted.fvu)}.",
        ),
    )


def readme() -> str:
    """The same in short."""
    encoder, pursuit, drawn, permuted = runs().values()
    return prose(
        f"The sample's encoder has codes with {encoder.alternatives:,.0f} alternatives a token; "
        f"codes pursued on the same rows have {mean(pursuit)}, on random rows {mean(drawn)}, of "
        f"permuted activations {mean(permuted)}: [docs/controls.md](docs/controls.md).",
        "[docs/findings.md](docs/findings.md) tests whether there are more with k and width, and "
        "whether encoders or description length find the true code.",
    )


def mean(run: Figures) -> str:
    """Mean alternatives, with the interval."""
    interval = known(mean_interval(run.counts, run.documents))
    return f"{run.alternatives:,.0f} ({ends(interval, 0)})"


def compared(null: Figures, pursuit: Figures) -> str:
    """By how much a null's figure is above the pursuit's, on the same tokens.

    Raises:
        ValueError: they are of other tokens.
    """
    if null.tokens != pursuit.tokens:
        raise ValueError("a control is of other tokens")
    more = null.counts - pursuit.counts
    interval = known(mean_interval(more, pursuit.documents))
    figure = f"{float(more.mean()):.0f} ({ends(interval, 0)})"
    if interval.low > 0:
        return f"which is more, by {figure}"
    if interval.high < 0:
        return f"which is fewer, by {figure}"
    return f"which is not measurably more or fewer ({figure} more)"


def known(interval: Interval | None) -> Interval:
    """An interval that there is."""
    assert interval is not None
    return interval
