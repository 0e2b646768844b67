"""Two codes side by side, in full: what leaves, what enters, what changes, and what it all says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.table import Table
from rich.text import Text

from saeaudit.escape import NAME, escape
from saeaudit.records import Code


def codes_table(before: Sequence[Code], after: Sequence[Code], texts: Mapping[int, str]) -> Table:
    """Features that leave, then those that enter, then by how much the others change.

    Args:
        before, after: codes.
        texts: each feature's label, as far as there are any.
    """
    old = {code.feature: code.value for code in before}
    new = {code.feature: code.value for code in after}
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("", "feature", "z", "z'", "", "explanation"):
        table.add_column(name, justify="left" if name in ("", "explanation") else "right")
    difference = {f: new.get(f, 0.0) - old.get(f, 0.0) for f in old | new}
    order = sorted(difference, key=lambda f: (f in new, f in old, -abs(difference[f]), f))
    for feature in order:
        what = f"{difference[feature]:+.3f}"
        if feature not in new:
            what = "leaves"
        elif feature not in old:
            what = "enters"
        values = [f"{codes[feature]:.3f}" if feature in codes else "-" for codes in (old, new)]
        text = Text(escape(texts.get(feature, ""), NAME))
        table.add_row("  ", str(feature), *values, what, text)
    return table
