"""Which findings deserve a look first: strength x disagreement x how often all can fire."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations

from saeaudit.formats.screen.findings import distance
from saeaudit.records import Finding, GroupRecord, PairRecord, TripleRecord

UNKNOWN = 0.5
"""What a factor is that is not known of a finding: neither high nor low."""


@dataclass(frozen=True)
class Weighed:
    """A finding, and how much it deserves a look."""

    finding: Finding
    weight: float
    """0 to 1; 0 for what allows no exchange of codes."""


def weighed(findings: Iterable[Finding]) -> list[Weighed]:
    """Each finding with its weight.

    How often features can fire together counts by its rank among the findings: the rates
    themselves lie orders of magnitude apart, and would decide alone. It counts as 1 where no rate
    of any finding is known.
    """
    listed = list(findings)
    rates = sorted(rate for finding in listed if (rate := both_fire(finding)) is not None)
    entries = []
    for finding in listed:
        rate = both_fire(finding)
        firing = 1.0 if not rates else UNKNOWN
        if rate is not None:
            firing = bisect_right(rates, rate) / len(rates)
        entries.append(Weighed(finding, strength(finding) * disagreement(finding) * firing))
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


def both_fire(finding: Finding) -> float | None:
    """The least firing rate of the features: all of them fire together on no larger share.

    None where a rate is not known. Of a group it is the second largest rate, of its likeliest two.
    """
    rates = [rate for rate in finding.firing_rates or () if rate is not None]
    if len(rates) < min(2, len(finding.features)):
        return None
    return sorted(rates)[-2] if isinstance(finding, GroupRecord) else min(rates)
