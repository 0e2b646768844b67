"""How often the features of findings fire, alone and together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from saeaudit.formats.screen.findings import Member
from saeaudit.formats.screen.layout import paragraph
from saeaudit.formats.screen.listing import Entry, entry_lines
from saeaudit.formats.screen.wording import Place, counted, percent
from saeaudit.records import FiringRecord

SHOWN = 3
"""Findings that are shown."""


@dataclass
class FiringList:
    """What is kept of one SAE's records."""

    records: list[FiringRecord] = field(default_factory=list)
    """Those whose features fire together on the most tokens."""
    count: int = 0
    """How many have gone by."""

    def add(self, record: FiringRecord) -> None:
        """Take one record."""
        self.count += 1
        self.records = sorted([*self.records, record], key=_most_often)[:SHOWN]

    def lines(self, width: int, place: Place) -> list[str]:
        """A heading and the findings; no line where there is none."""
        shown = [record for record in self.records if record.together]
        if not self.records:
            return []
        tokens = counted(self.records[0].tokens, "token", "tokens")
        if not shown:
            findings = counted(self.count, "finding", "findings")
            text = f"On none of {tokens} do the features of a finding fire together ({findings})."
            return ["", *paragraph(text, width)]
        lines = ["", *paragraph(f"Findings whose features fire together most often, of {tokens}",
                                width)]  # fmt: skip
        lines += entry_lines(list(map(firing_entry, shown)), width)
        more = self.count - len(shown)
        return [*lines, f"  … {more:,} more: {place.show}"] if more else lines


def firing_entry(record: FiringRecord) -> Entry:
    """Shares of tokens, and the features with the share of each."""
    figures = [("together", percent(record.together)), ("chance", percent(record.together_chance))]
    return Entry(figures, firing_members(record))


def firing_members(record: FiringRecord) -> list[Member]:
    """The features, with what is said of each and how often it fires."""
    labels = record.labels or ()
    return [
        Member(feature, labels[place] if place < len(labels) else None, rate)
        for place, (feature, rate) in enumerate(zip(record.features, record.rates, strict=False))
    ]


def firing_sentence(record: FiringRecord) -> str:
    """How often the features fire, in a line.

    Example: "features 3 and 40 fire on 1.0% and 2.0% of 1,500 tokens, together on 0.1%: 5 times
    as often as by chance".
    """
    names = listed_words([str(feature) for feature in record.features])
    rates = listed_words([percent(rate) for rate in record.rates])
    tokens = counted(record.tokens, "token", "tokens")
    return f"features {names} fire on {rates} of {tokens}, {together_words(record)}"


def together_words(record: FiringRecord) -> str:
    """How often they fire together, and how that compares with chance.

    Example: "together on 0.12%, 3.4 times as often as by chance".
    """
    if not record.together:
        return "never together"
    text = f"together on {percent(record.together)}"
    if record.ratio is None:
        return text
    interval = record.ratio_interval
    ends = "" if interval is None else f" ({times(interval.low)} to {times(interval.high)})"
    return f"{text}, {times(record.ratio)} times{ends} as often as by chance"


def times(ratio: float) -> str:
    """A ratio to two digits.

    >>> times(0.034), times(3.44), times(1234.0)
    ('0.034', '3.4', '1,200')
    """
    rounded = float(f"{ratio:.2g}")
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:.12g}"


def listed_words(words: Iterable[str]) -> str:
    """Words in a row.

    >>> listed_words(["3", "40", "7"])
    '3, 40 and 7'
    """
    *others, last = [*words] or [""]
    return f"{', '.join(others)} and {last}" if others else last


def _most_often(record: FiringRecord) -> tuple[float, tuple[int, ...]]:
    return -record.together, record.features
