"""What docs/mediators.md says of the sample."""

from __future__ import annotations

from figures.words import ends, percent
from findings.markdown import holds, prose, table

import saeaudit
from saeaudit.audit.mediators.inputs import MediatorSources, read_inputs
from saeaudit.records import Interval, MediatorsSummary

TOKENS = 200


def summary() -> MediatorsSummary:
    """The summary of ``saeaudit mediators sample --max-tokens 200``."""
    options = saeaudit.MediatorOptions(max_tokens=TOKENS, max_alternatives=0)
    sample = saeaudit.open("sample")
    inputs = read_inputs(sample, MediatorSources(), options.device)
    *_, last = saeaudit.mediators(sample, inputs, options)
    assert isinstance(last, MediatorsSummary)
    return last


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    of = summary()
    assert None not in (of.mean_l0, of.refit_gap, of.mean_refit_change)
    rows = {(row.mode, row.epsilon): row for row in of.non_unique}
    lines = []
    for (mode, epsilon), row in rows.items():
        share = {step.change: step for step in row.by_change}
        lines.append([
            mode, f"{epsilon:g}", with_ends(row.non_unique_fraction, row.non_unique_interval),
            percent(share[0.0].fraction),
            with_ends(row.attainable_fraction, row.attainable_interval),
            *(with_ends(share[step].fraction, share[step].interval) for step in (0.1, 0.2, 0.33)),
            f"{row.mean_alternatives:,.0f} ({ends(row.alternatives_interval, 0)})",
            f"{row.mean_droppable:.1f}",
        ])  # fmt: skip
    head = (
        "mode", "ε", "tokens with another code", "of k features", "… attainable",
        "… changing ≥ 10 %", "… ≥ 20 %", "… ≥ 33 %", "alternatives a token", "droppable features",
    )  # fmt: skip
    opening = prose(
        f"`saeaudit mediators sample --max-tokens {TOKENS}` (mean L0 {of.mean_l0:.1f}; intervals "
        "of 95 % over documents) says:"
    )
    return {"sample": "\n\n".join((opening, table(head, lines), sentences(of)))}


def with_ends(share: float | None, interval: Interval | None) -> str:
    """A share in per cent, with its interval where that has a width."""
    if interval is None or interval.low == interval.high:
        return percent(share)
    return f"{percent(share)} ({ends(interval, 0, 100)})"


def sentences(of: MediatorsSummary) -> str:
    """What follows from the table."""
    rows = {(row.mode, row.epsilon): row for row in of.non_unique}
    strict, loose = rows["refit", 0.0], rows["accuracy", 0.0]
    changing = {share.change: share.fraction for share in strict.by_change}
    return prose(
        f"Of the tokens {percent(strict.non_unique_fraction)} have another code as accurate as the "
        "best codes on the encoder's own features, "
        f"{percent(strict.attainable_fraction)} one whose codes are all above the thresholds of "
        f"this SAE's encoder, and {percent(changing[0.2])} one that changes a fifth of the code or "
        f"more. The encoder's own code is {percent(of.mean_refit_change)} from its refit: what "
        "changes less is closer to the refit than that.",
        holds(
            loose.mean_alternatives > 2 * strict.mean_alternatives,
            f"Against the encoder's error there are {loose.mean_alternatives:,.0f} alternatives a "
            f"token, against the refit's {strict.mean_alternatives:,.0f}: the encoder shrinks its "
            f"codes (least squares leave {of.refit_gap:.3f} of its squared error), so that "
            f"{loose.mean_droppable:.1f} of its {of.mean_l0:.1f} features can go, one at a time, "
            "at no more error than it has.",
        ),
    )
