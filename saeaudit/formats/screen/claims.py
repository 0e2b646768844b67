"""A claim's answer for people: the sentence, and below it what it rests on, a short line each."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

from saeaudit.escape import MESSAGE, NAME, escape
from saeaudit.formats.screen.findings import members, said
from saeaudit.formats.screen.wording import percent
from saeaudit.records import ClaimRecord

NOISE = 1e-6
"""A value below it in a code is what float32 weights leave of none."""


def claim_lines(record: ClaimRecord, show: Callable[[str, int], str] = escape) -> list[str]:
    """The block of one claim, the claim itself first.

    Example: a pair's begins ``claim about sample/stitched: 114 and 2280 are duplicates``.

    Args:
        record: the claim.
        show: makes texts safe where they are read, in so many characters.
    """
    facts = (_residuals(record), *_cosines(record), _codes(record), *_labels(record, show))
    return [
        f"claim about {show(record.sae, NAME)}: {claim_text(record)}",
        f"  {show(record.sentence, MESSAGE)}",
        *(f"  {line}" for line in facts),
    ]


def claim_text(record: ClaimRecord) -> str:
    """What is claimed, in a line."""
    if len(record.features) == 3:
        f1, f2, f3 = record.features
        return f"{f3} = beta ({f2} - alpha {f1})"
    return f"{' and '.join(map(str, record.features))} are duplicates"


def _residuals(record: ClaimRecord) -> str:
    line = f"residual {record.residual:.3g}"
    if record.residual_without_f1 is not None:
        line += f", {record.residual_without_f1:.3g} without {record.features[0]}"
    named = {"alpha": record.alpha, "beta": record.beta}
    return ", ".join(
        [line, *(f"{name} {value:.3g}" for name, value in named.items() if value is not None)]
    )


def _cosines(record: ClaimRecord) -> list[str]:
    """A line for each two features: cosine of decoder rows, and of encoder directions if any."""
    sides = combinations(range(len(record.features)), 2)
    lines = []
    for (i, j), cosine, encoder in zip(sides, record.cosines, record.encoder_cosines, strict=False):
        beside = "" if encoder is None else f", encoder {encoder:.4f}"
        both = f"{record.features[i]} and {record.features[j]}"
        lines.append(f"cosine of {both}: {cosine:.4f}{beside}")
    return lines


def _codes(record: ClaimRecord) -> str:
    """Both codes, and how far apart what they decode to is."""
    z, other = (
        ", ".join(
            f"{feature}: {value:.3g}"
            for feature, value in zip(record.features, code, strict=False)
            if value >= NOISE
        )
        for code in (record.z, record.z_prime)
    )
    error = "" if record.error is None else f", to {percent(record.error)}"
    out = "" if record.z_prime[-1:] > (0,) else f", and {record.features[-1]} comes no nearer"
    return f"z is {z}; z' is {other or 'zero'}{error}{out}"


def _labels(record: ClaimRecord, show: Callable[[str, int], str]) -> list[str]:
    """What is known of each feature, and how far labels differ where that is known."""
    lines = list(filter(None, (said(member, show) for member in members(record))))
    if record.label_disagreement is not None:
        line = (
            f"labels of {record.leaving} and {record.features[-1]} differ by "
            f"{record.label_disagreement:.2f} ({show(record.similarity_method or '', NAME)})"
        )
        if record.label_percentile is not None and record.label_chance is not None:
            line += (
                f"; random pairs do by {record.label_chance:.2f} on average, and "
                f"{record.label_percentile:.0%} of them by less"
            )
        lines.append(line)
    return lines
