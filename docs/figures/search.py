"""What docs/mathematics.md says of the searches on the sample."""

from __future__ import annotations

from figures.measured import NORMED, measured, summary
from figures.words import percent
from findings.markdown import prose

import saeaudit


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    of, kept = summary(), measured()
    least, most = kept["features"]
    rows = saeaudit.open("sample").d_sae - round(kept["mean_l0"])
    assert of.proved_fraction is not None
    (l1, all_l1), (l2, all_l2) = (
        (sum(rows for rows, _ in each) / NORMED, sum(gap == 0 for _, gap in each))
        for each in (kept["norms"][name] for name in ("L1", "L2"))
    )
    return {
        "search": prose(
            f"On {of.choices} tokens of the bundled sample (k from {least} to {most}) "
            f"{kept['solved']:.0f} of {rows:,} rows are solved a token, and the search is complete "
            f"on {percent(of.proved_fraction.value)}.",
            f"Those of least L1 and least L2, on {NORMED} of these, solve {l1:.0f} and {l2:.0f} "
            f"rows a token, and are complete on {all_l1} and {all_l2}.",
        )
    }
