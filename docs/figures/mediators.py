"""Write the sample's figures into docs/mediators.md: ``python docs/generate_figures.py``.

What stands between the two marks is made from one run, sentences included.
"""

from __future__ import annotations

from pathlib import Path
from textwrap import wrap

import saeaudit
from saeaudit.audit.mediators.inputs import MediatorSources, read_inputs
from saeaudit.records import MediatorsSummary

PAGE = Path(__file__).parent / "mediators.md"
TOKENS = 200
BEGIN, END = "<!-- figures of the sample, by generate_figures.py -->\n", "<!-- end of figures -->\n"


def summary() -> MediatorsSummary:
    """The summary of ``saeaudit mediators sample --max-tokens 200``."""
    options = saeaudit.MediatorOptions(max_tokens=TOKENS, max_alternatives=0)
    sample = saeaudit.open("sample")
    inputs = read_inputs(sample, MediatorSources(), options.device)
    *_, last = saeaudit.mediators(sample, inputs, options)
    assert isinstance(last, MediatorsSummary)
    return last


def figures(of: MediatorsSummary) -> str:
    """What the page says of a summary."""
    assert None not in (of.mean_l0, of.refit_gap, of.mean_refit_change)
    rows = {(row.mode, row.epsilon): row for row in of.non_unique}
    strict, loose = rows["refit", 0.0], rows["accuracy", 0.0]
    changing = {share.change: share.fraction for share in strict.by_change}
    lines = [
        f"`saeaudit mediators sample --max-tokens {TOKENS}` (mean L0 {of.mean_l0:.1f}) says:",
        "",
        "| mode | ε | tokens with another code | of k features | … attainable | … changing ≥ 10 % "
        "| … ≥ 20 % | … ≥ 33 % | alternatives a token | droppable features |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (mode, epsilon), row in rows.items():
        share = {step.change: step.fraction for step in row.by_change}
        lines.append(
            f"| {mode} | {epsilon:g} | {percent(row.non_unique_fraction)} | "
            f"{percent(share[0.0])} | {percent(row.attainable_fraction)} | {percent(share[0.1])} | "
            f"{percent(share[0.2])} | {percent(share[0.33])} | {row.mean_alternatives:,.0f} | "
            f"{row.mean_droppable:.1f} |"
        )
    sentences = (
        f"Of the tokens {percent(strict.non_unique_fraction)} have another code as accurate as the "
        "best codes on the encoder's own features, "
        f"{percent(strict.attainable_fraction)} one whose codes are all above the thresholds of "
        f"this SAE's encoder, and {percent(changing[0.2])} one that changes a fifth of the code or "
        f"more. The encoder's own code is {percent(of.mean_refit_change)} from its refit: what "
        "changes less is closer to the refit than that. Against the encoder's error there are "
        f"{loose.mean_alternatives:,.0f} alternatives a token, against the refit's "
        f"{strict.mean_alternatives:,.0f}: the encoder shrinks its codes (least squares leave "
        f"{of.refit_gap:.3f} of its squared error), so that {loose.mean_droppable:.1f} of its "
        f"{of.mean_l0:.1f} features can go, one at a time, at no more error than it has."
    )
    return "\n".join([*lines, "", *wrap(sentences, 100), ""])


def percent(share: float | None) -> str:
    """A share in words."""
    return "-" if share is None else f"{100 * share:.1f} %"


def page() -> str:
    """The whole page."""
    before, rest = PAGE.read_text().split(BEGIN)
    _, after = rest.split(END)
    return before + BEGIN + figures(summary()) + END + after


if __name__ == "__main__":
    PAGE.write_text(page())
