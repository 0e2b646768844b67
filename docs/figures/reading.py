"""What docs/reading.md says of the bundled SAEs: figures that were seen, to compare others with."""

from __future__ import annotations

from figures.measured import summary
from figures.words import percent
from findings.markdown import holds, prose, table

import saeaudit
from saeaudit.records import ScanSummary

HEAD = ("figure", "one SAE (`sample`)", "two merged (`sample/stitched`)")


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    one, merged = scanned("sample"), scanned("sample/stitched")
    rows = [
        ["features that could go (`duplicate_fraction`)", *(
            percent(of.duplicate_fraction, 2) for of in (one, merged)
        )],
        ["duplicate pairs (`pairs`)", str(one.pairs), str(merged.pairs)],
        ["antipodal pairs", str(one.antipodal_pairs), str(merged.antipodal_pairs)],
        ["triples (`triples`)", str(one.triples), str(merged.triples)],
        ["nearest neighbour of the median feature", *map(median, (one, merged))],
        ["nearest pair of all (`coherence`)", *map(nearest, (one, merged))],
    ]  # fmt: skip
    score = summary()
    assert score.fvu is not None
    return {
        "scan": "\n\n".join((table(HEAD, rows), two_marks(one, merged))),
        "score": f"`saeaudit score sample`: {score.bits_per_token:.0f} bits a token, "
        f"{percent(score.fvu)} of the variance left over, settled on "
        f"{percent(score.resolved_fraction)} of the tokens that have another code.",
    }


def two_marks(one: ScanSummary, merged: ScanSummary) -> str:
    """What the two columns are to be used for."""
    return prose(
        "The second dictionary is the first SAE and another training of it on the same data, put "
        "together.",
        holds(
            0 < merged.duplicate_fraction < 0.05,
            "You would expect everything to be there twice. It is not: few directions are the same "
            "in both.",
        ),
        holds(one.pairs == 0, "One training by itself has no duplicate."),
        "Take the columns as two marks on a scale: an SAE as it was trained, and a dictionary that "
        "is known to repeat itself.",
    )


def scanned(target: str) -> ScanSummary:
    """The summary of a scan."""
    *_, last = saeaudit.scan(target)
    assert isinstance(last, ScanSummary)
    return last


def median(of: ScanSummary) -> str:
    """The median feature's largest |cosine|, and what it is among random rows."""
    return f"{of.max_cosine.quantiles.p50:.3f} (random rows: {of.random_control.p50:.3f})"


def nearest(of: ScanSummary) -> str:
    """The largest |cosine| of all, and what it is among random rows."""
    return f"{of.coherence:.3f} (random rows: {of.random_control.max:.3f})"
