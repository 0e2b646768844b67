"""Which findings deserve a look first: strength x disagreement x how often all fire."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from saeaudit.formats.screen.findings import distance
from saeaudit.records import Finding, FiringRecord, GroupRecord, PairRecord, TripleRecord
from saeaudit.report.gather import Audited

UNKNOWN = 0.5
"""What a factor is that is not known of a finding: neither high nor low."""


@dataclass(frozen=True)
class Weighed:
    """A finding, and how much it deserves a look."""

    finding: Finding
    weight: float
    """0 to 1; 0 for what allows no exchange of codes."""
    firing: FiringRecord | None = None
    """How its features fire, where that was counted."""


def weighed(saes: Iterable[Audited]) -> list[Weighed]:
    """Each finding of some SAEs with its weight.

    How often features fire together counts by its rank among the findings: the shares themselves
    lie orders of magnitude apart, and would decide alone. It counts as 1 where it is known of no
    finding.
    """
    listed = [
        (finding, audited.firing.get(finding.features))
        for audited in saes
        for finding in audited.findings
    ]
    shares = [both_fire(finding, firing) for finding, firing in listed]
    known = sorted(share for share in shares if share is not None)
    entries = []
    for (finding, firing), share in zip(listed, shares, strict=True):
        rank = 1.0 if not known else UNKNOWN
        if share is not None:
            rank = bisect_right(known, share) / len(known)
        weight = strength(finding) * disagreement(finding) * rank
        entries.append(Weighed(finding, weight, firing))
    return entries


def strength(finding: Finding) -> float:
    """1 less what one or two rows leave of another's; 0 where codes >= 0 allow no exchange.

    Example: 1 - sqrt(1 - 0.96^2) = 0.72 for a duplicate pair of cosine 0.96, 0 for an antipodal
    pair.
    """
    if isinstance(finding, PairRecord) and finding.kind == "antipodal":
        return 0.0
    if isinstance(finding, TripleRecord) and set(finding.exchange) == {"never"}:
        return 0.0
    return max(0.0, 1.0 - min(1.0, distance(finding)))


def disagreement(finding: Finding) -> float:
    """Mean over two labels at a time of the share of their words that only one of them has.

    Example: "past tense verbs" and "verbs" have 2/3. Of a group the first few members count.
    """
    labels = [label for label in (finding.labels or ())[:6] if label]
    words = [set(label.lower().split()) for label in labels]
    shares = [1 - len(a & b) / len(a | b) for a, b in combinations(words, 2) if a | b]
    return sum(shares) / len(shares) if shares else UNKNOWN


def both_fire(finding: Finding, firing: FiringRecord | None = None) -> float | None:
    """The share of tokens on which all the features fire, where that was counted.

    Else the least firing rate: they fire together on no larger share. None where a rate is not
    known. Of a group it is the second largest rate, of its likeliest two.
    """
    if firing is not None:
        return firing.together
    rates = [rate for rate in finding.firing_rates or () if rate is not None]
    if len(rates) < min(2, len(finding.features)):
        return None
    return sorted(rates)[-2] if isinstance(finding, GroupRecord) else min(rates)
