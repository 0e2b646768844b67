"""How a finding reads: its figures, and the features that it is of with what is known of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from saeaudit.escape import escape
from saeaudit.formats.screen.wording import percent
from saeaudit.records import (
    ClaimRecord,
    ClosestPair,
    Finding,
    GroupRecord,
    PairRecord,
    TripleRecord,
)

LABEL = 80
"""Characters of a label in a sentence."""
MEMBERS = 6
"""Features of a group that are named."""
UNKNOWN = "-"
"""A figure that is not defined."""

Value = TypeVar("Value")


@dataclass(frozen=True)
class Member:
    """A feature of a finding, and what is known of it."""

    feature: int
    label: str | None = None
    firing_rate: float | None = None
    """Share of tokens on which it fires."""
    url: str | None = None
    role: str = ""
    """What stands before it in a relation, such as "= 0.884 x"."""


def members(finding: Finding | ClosestPair | ClaimRecord) -> list[Member]:
    """The features of a finding: a triple's as its relation has them, a group's first few."""
    listed = [
        Member(
            feature,
            _nth(finding.labels, place),
            _nth(finding.firing_rates, place),
            _nth(finding.urls, place),
        )
        for place, feature in enumerate(finding.features)
    ]
    if isinstance(finding, GroupRecord):
        return listed[:MEMBERS]
    if isinstance(finding, TripleRecord):
        (first, second, third), (a, b) = listed, finding.coefficients
        sign = "-" if a < 0 else "+"
        return [
            third,
            _in_role(second, f"= {b:.3f} x"),
            _in_role(first, f"{sign} {abs(a):.3f} x"),
        ]
    return listed


def figures(finding: Finding | ClosestPair) -> list[tuple[str, str]]:
    """The numbers of a finding by name: cosines to 0.001 (0.01 of encoders), residuals to 0.001."""
    if isinstance(finding, GroupRecord):
        least, most = finding.cosine_min, finding.cosine_max
        if least is None or most is None:
            return [("features", f"{finding.size:,}")]
        return [("features", f"{finding.size:,}"), ("cosine from", f"{least:.3f}"),
                ("to", f"{most:.3f}")]  # fmt: skip
    if isinstance(finding, TripleRecord):
        return [("residual", f"{finding.residual:.3f}"),
                ("one alone", f"{finding.single_residual:.3f}")]  # fmt: skip
    encoder = finding.encoder_cosine
    return [
        ("decoder", f"{finding.cosine:z.3f}"),
        ("encoder", UNKNOWN if encoder is None else f"{encoder:z.2f}"),
    ]


def distance(finding: Finding | ClosestPair) -> float:
    """How far the features are from dependent, 0 to 1: what one or two rows leave of another's.

    Example: a pair of cosine 0.6 has 0.8; a triple its residual; a group its closest pair's.
    """
    if isinstance(finding, TripleRecord):
        return finding.residual
    cosine = finding.cosine_max if isinstance(finding, GroupRecord) else finding.cosine
    return 0.0 if cosine is None else math.sqrt(max(0.0, 1 - cosine * cosine))


def worst_first(finding: Finding) -> tuple[object, ...]:
    """Sort key: new findings before known ones, large groups, what is closest to dependent."""
    size = -finding.size if isinstance(finding, GroupRecord) else 0
    return bool(finding.known), size, distance(finding), finding.features


def sentence(finding: Finding) -> str:
    """A finding in one line, with what is known of its features.

    Example: "features 3 and 40: decoder cosine 0.995, encoder cosine 0.25; 3: dogs; 40: cats".
    """
    return "; ".join([_head(finding), *filter(None, map(said, members(finding)))])


def label_text(text: str, limit: int = LABEL) -> str:
    """A label as people may read it: on one line, and not longer than `limit` characters."""
    return escape(text, limit)


def pair_sentence(pair: PairRecord | ClosestPair) -> str:
    """Two features and their cosines, with what is known of them.

    Example: "3 and 40, decoder cosine 0.583, encoder cosine 0.12; 3: dogs; 40: cats".
    """
    first, second = pair.features
    head = f"{first} and {second}, {_cosines(pair)}"
    return "; ".join([head, *filter(None, map(said, members(pair)))])


def _head(finding: Finding) -> str:
    listed = list(map(str, finding.features))
    if isinstance(finding, PairRecord):
        values = dict(figures(finding))
        encoder = (
            f", encoder cosine {values['encoder']}" if finding.encoder_cosine is not None else ""
        )
        return f"features {' and '.join(listed)}: decoder cosine {values['decoder']}{encoder}"
    if isinstance(finding, GroupRecord):
        more = ", …" if finding.size > MEMBERS else ""
        numbers = ", ".join(listed[:MEMBERS])
        return f"{finding.size:,} features that duplicate each other: {numbers}{more}"
    return f"features {', '.join(listed)} are dependent, residual {finding.residual:.3f}"


def _cosines(pair: PairRecord | ClosestPair) -> str:
    known = [(name, value) for name, value in figures(pair) if value != UNKNOWN]
    return ", ".join(f"{name} cosine {value}" for name, value in known)


def said(member: Member, show: Callable[[str, int], str] = escape) -> str:
    """What is known of a feature; empty where nothing is.

    Args:
        member: the feature.
        show: makes a label safe where it is read, in so many characters.
    """
    rate = member.firing_rate
    known = [
        show(member.label, LABEL) if member.label else "",
        "" if rate is None else f"fires on {percent(rate)} of tokens",
        member.url or "",
    ]
    said = ", ".join(part for part in known if part)
    return f"{member.feature}: {said}" if said else ""


def _in_role(member: Member, role: str) -> Member:
    return Member(member.feature, member.label, member.firing_rate, member.url, role)


def _nth(values: Sequence[Value | None] | None, place: int) -> Value | None:
    """An entry of a list that may be shorter, as those of records made elsewhere are."""
    return values[place] if values is not None and place < len(values) else None
