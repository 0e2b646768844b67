"""Two codes side by side: what leaves, what enters, what changes, and what it all says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.layout import aligned
from saeaudit.formats.screen.wording import counted
from saeaudit.records import Code


def code_lines(
    before: Sequence[Code], after: Sequence[Code], texts: Mapping[int, str], width: int,
    most: int | None = None,
) -> list[str]:  # fmt: skip
    """Features that leave, then those that enter, then by how much the others change.

    Args:
        before, after: codes.
        texts: each feature's label, as far as there are any.
        width: cells of a line.
        most: features shown; all where None. Those that leave or enter are all shown.
    """
    old = {code.feature: code.value for code in before}
    new = {code.feature: code.value for code in after}
    difference = {f: new.get(f, 0.0) - old.get(f, 0.0) for f in old | new}
    order = sorted(difference, key=lambda f: (f in new, f in old, -abs(difference[f]), f))
    exchanged = sum((f in old) != (f in new) for f in order)
    shown = order if most is None else order[: max(most, exchanged)]
    rows = [("feature", "z", "z'", "", "label" if any(f in texts for f in shown) else "")]
    for feature in shown:
        what = f"{difference[feature]:+.3f}"
        if feature not in new:
            what = "leaves"
        elif feature not in old:
            what = "enters"
        values = [f"{codes[feature]:.3f}" if feature in codes else "-" for codes in (old, new)]
        rows.append(
            (str(feature), values[0], values[1], what, escape(texts.get(feature, ""), NAME))
        )
    lines = aligned(rows, width, range(4), cut_last=True)
    if len(shown) < len(order):
        rest = counted(len(order) - len(shown), "feature changes", "features change")
        lines.append(f"  … {rest} by less: --details shows all")
    return lines
