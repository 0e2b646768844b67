"""The figures of one SAE, each beside what chance gives and what it does not say."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.mediators import strictest
from saeaudit.formats.screen.wording import between, percent
from saeaudit.records import MediatorsSummary, NonUnique, ScanSummary, ScoreSummary
from saeaudit.report.gather import Audited

UNMEASURED = "-"
"""Where there is no null, or the records hold none."""
FIFTH = 0.2
"""Change of a code that is told."""


class Figure(NamedTuple):
    """A row of the table."""

    name: str
    value: str
    null: str
    """What chance gives, or another yardstick."""
    caution: str
    """What it does not say."""


def figures(audited: Audited, controls: Iterable[Audited]) -> list[Figure]:
    """All figures that the records have."""
    rows: list[Figure] = []
    if scan := audited.scanned.summary:
        rows += of_scan(scan, audited.limits["min_cosine"])
    if (codes := audited.listed.summary) and codes.tokens:
        rows += of_codes(codes, list(controls))
    if score := audited.scored.summary:
        rows += of_score(score)
    return rows


def of_scan(summary: ScanSummary, min_cosine: float) -> list[Figure]:
    """Figures of the decoder."""
    random = summary.random_control
    redundant = "0%" if random.max < min_cosine else "not 0%"
    return [
        Figure(
            "Features that could go", percent(summary.duplicate_fraction),
            f"{redundant} (the nearest random rows: {random.max:.3f})",
            "Not that the two of a pair fire alike: that is for the encoder.",
        ),
        Figure(
            "Nearest neighbour of the median feature", f"{summary.max_cosine.quantiles.p50:.3f}",
            f"{random.p50:.3f} (random rows)",
            "Features of related things lie near each other in any good dictionary.",
        ),
        Figure(
            "Largest |cosine| of two features", f"{summary.coherence:.4f}",
            f"{random.max:.3f} (random rows)",
            "One pair decides it, whatever all others do.",
        ),
        Figure(
            "Dependent triples", f"{summary.triples:,}" + ("" if summary.complete else " (cut)"),
            UNMEASURED, "Not that a code uses two of the three: that is for real activations.",
        ),
        Figure(
            "Dead features", f"{summary.dead_features:,} ({percent(summary.dead_fraction)})",
            UNMEASURED, "Rows alone say it: a feature with a row may never fire.",
        ),
    ]  # fmt: skip


def changing(row: NonUnique) -> float | None:
    """Share of tokens with a code that changes by at least a fifth."""
    return next((share.fraction for share in row.by_change if share.change == FIFTH), None)


def of_codes(summary: MediatorsSummary, controls: list[Audited]) -> list[Figure]:
    """Figures of other codes; codes pursued on random rows stand beside, where there are any."""
    row = strictest(summary)
    if row is None:
        return []
    nulls = {
        control.dictionary.control: null
        for control in controls
        if (null := strictest(control.listed.summary)) is not None
    }

    def beside(share: Callable[[NonUnique], float | None]) -> str:
        shares = [share(nulls[kind]) for kind in ("pursuit", "random-decoder") if kind in nulls]
        known = [percent(value) for value in shares if value is not None]
        if len(known) < 2:
            return UNMEASURED
        return f"{known[0]} pursued on its rows, {known[1]} on random rows"

    rows = [
        Figure(
            "Tokens with another code",
            percent(row.non_unique_fraction) + between(row.non_unique_interval, ".0%"),
            beside(lambda null: null.non_unique_fraction),
            "Many other codes are usual where features are correlated; see how far they differ.",
        )
    ]
    if (fifth := changing(row)) is not None:
        rows.append(
            Figure(
                "… that changes a fifth of it", percent(fifth),
                beside(changing),
                "Not that its explanation differs: labels may say the same.",
            )
        )  # fmt: skip
    if row.attainable_fraction is not None:
        rows.append(
            Figure(
                "… that the encoder could output",
                percent(row.attainable_fraction) + between(row.attainable_interval, ".0%"),
                UNMEASURED, "A code below a threshold is no less true of the activation.",
            )
        )  # fmt: skip
    return rows


def of_score(summary: ScoreSummary) -> list[Figure]:
    """Figures of description lengths and labels."""
    rows = [
        Figure(
            "Bits a token", f"{summary.bits_per_token:.1f}" + between(summary.bits_interval, ".1f"),
            f"{summary.bound_bits_per_token:.1f} (each feature named and valued by itself)",
            "Bits compare two SAEs only together with their error.",
        )
    ]  # fmt: skip
    if (excess := summary.mean_encoder_excess_bits) is not None:
        rows.append(Figure(
            "Bits of the encoder's code beyond the shortest", f"{excess.value:.1f}", "0",
            "The shortest of the codes one exchange away: there may be shorter ones.",
        ))  # fmt: skip
    if summary.resolved_fraction is not None:
        rows.append(Figure(
            "Choices that bits settle",
            percent(summary.resolved_fraction) + between(summary.resolved_interval, ".0%"),
            UNMEASURED, "Where a choice is not settled, no explanation is better founded.",
        ))  # fmt: skip
    said, chance = summary.disagreements, summary.incoherence_chance
    if summary.incoherence is not None and chance is not None:
        rows.append(Figure(
            "Choices whose labels disagree", percent(summary.incoherence),
            f"{percent(chance.value)} (labels dealt at random)",
            "At or below chance it says that labels are all alike far apart, not that codes are.",
        ))  # fmt: skip
    if said is not None and said.mean is not None and said.random_mean is not None:
        rows.append(Figure(
            "Disagreement of exchanged labels", f"{said.mean:.2f}",
            f"{said.random_mean:.2f} (random pairs)",
            f"Compared by {escape(said.similarity_method, NAME)}: texts, not what they mean.",
        ))  # fmt: skip
    return rows
