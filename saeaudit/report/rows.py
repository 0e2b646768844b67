"""Findings as rows of the page's table: the first as HTML has them, all of them packed."""

from __future__ import annotations

import base64
import gzip
import heapq
import json
import math
from collections.abc import Container, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

from saeaudit.escape import visible
from saeaudit.formats.screen.findings import Member, members
from saeaudit.formats.screen.firing import times
from saeaudit.formats.screen.scan import TITLES
from saeaudit.formats.screen.wording import percent
from saeaudit.records import GroupRecord, TripleRecord, kind_of
from saeaudit.report.gather import Audited, Gathered
from saeaudit.report.ranking import Weighed, weighed
from saeaudit.vocabulary import FEATURE_URL

FIRST = 200
"""Rows that the page has without its script."""
LABEL = 200
"""Characters of a label."""
MEMBERS = 3
"""Features of a finding that a row names."""
LESS = 0.97
"""Share of the rows that would just fit which is tried: what they say is not spread evenly."""
KINDS = tuple(TITLES)


class Row(NamedTuple):
    """A finding as a row shows it."""

    kind: int
    """Place in `KINDS`."""
    sae: int
    """Which of the page's SAEs."""
    members: list[Member]
    """Features with their roles; labels are cut, and safe to read."""
    more: int
    """Features that are not among the members."""
    measure: int | None
    """Cosine of a pair or the nearest two of a group, residual of a triple; in thousandths."""
    encoder: int | None
    """Cosine of encoder directions, in hundredths."""
    together: str
    """How often all of them fire together, in percent, and how many times as often as by chance:
    "0.12% 3.4"; empty where that was not counted."""
    weight: int
    """Where it stands in the order, in thousandths."""
    known: bool
    """Whether a baseline has it."""

    @property
    def title(self) -> str:
        """What kind of finding it is."""
        return TITLES[KINDS[self.kind]][0]

    @property
    def is_residual(self) -> bool:
        """Whether `measure` is what is left, and not a cosine."""
        return KINDS[self.kind] == "triple"

    @property
    def order(self) -> tuple[float, float]:
        """Sort key, of numbers as rounded as the page's script has them."""
        value = (self.measure or 0) / 1000
        return -self.weight, value if self.is_residual else math.sqrt(max(0.0, 1 - value * value))


def rows(gathered: Gathered) -> list[Row]:
    """All findings by SAE, kind and features: what is alike stands together, and packs well."""
    places = {id(finding): place for place, audited in enumerate(gathered.saes)
              for finding in audited.findings}  # fmt: skip
    made = [_row(entry, places[id(entry.finding)]) for entry in weighed(gathered.saes)]
    return sorted(made, key=lambda row: (row.sae, row.kind, [m.feature for m in row.members]))


def first_rows(listed: Sequence[Row]) -> list[Row]:
    """Those that deserve a look first, in that order."""
    return heapq.nsmallest(FIRST, listed, key=lambda row: row.order)


def rate_text(member: Member) -> str:
    """A firing rate in words; empty where it is not known."""
    return "" if member.firing_rate is None else percent(member.firing_rate)


def together_text(row: Row) -> str:
    """How often all fire together, in words; empty where it is not known.

    Example: "together on 0.12%, 3.4 times chance".
    """
    share, _, ratio = row.together.partition(" ")
    if not share:
        return ""
    return f"together on {share}, {ratio} times chance" if ratio else "never together"


def page_of_features(audited: Audited) -> str:
    """What a feature's page begins with, the feature to be added; empty where there are none."""
    source = audited.dictionary.neuronpedia
    return FEATURE_URL.format(source=quote(source, safe="/"), feature="") if source else ""


class Packed(NamedTuple):
    """What the page's script unpacks."""

    text: str
    described: int
    """Rows with all that is known of their features: the first of the order."""


def packed(listed: Sequence[Row], gathered: Gathered, room: int) -> Packed:
    """All rows as columns of JSON, gzipped, in base64, in no more than so many characters.

    Labels and firing rates are most of it: where there is too little room they are left out of
    the rows that stand last in the order, and numbers alone stand there. The first `FIRST` rows
    have them whatever the room.

    Args:
        listed: rows.
        gathered: what they are of.
        room: characters.
    """
    order = sorted(range(len(listed)), key=lambda place: listed[place].order)
    count, least = len(listed), min(len(listed), FIRST)
    text = _pack(listed, gathered, set(order))
    if len(text) > room:
        bare = len(_pack(listed, gathered, set()))
        while count > least and len(text) > room:
            share = max(0.0, (room - bare) / (len(text) - bare)) if len(text) > bare else 0.0
            count = max(least, int(count * share * LESS))
            text = _pack(listed, gathered, set(order[:count]))
    return Packed(text, count)


def _pack(listed: Sequence[Row], gathered: Gathered, described: Container[int]) -> str:
    """Columns of all rows; what is known of features is of those that are described."""
    sparse: dict[str, dict[int, Any]] = {
        "more": {place: row.more for place, row in enumerate(listed) if row.more},
        "known": {place: 1 for place, row in enumerate(listed) if row.known},
        "together": {
            place: row.together
            for place, row in enumerate(listed)
            if row.together and place in described
        },
        "roles": {
            place: [member.role for member in row.members]
            for place, row in enumerate(listed)
            if any(member.role for member in row.members)
        },
    }
    rows_of: list[list[Row]] = [[] for _ in gathered.saes]
    for place, row in enumerate(listed):
        if place in described:
            rows_of[row.sae].append(row)
    table = {
        "kinds": [TITLES[kind][0] for kind in KINDS],
        "saes": [_sae(*pair) for pair in zip(gathered.saes, rows_of, strict=True)],
        "kind": [row.kind for row in listed],
        "sae": [row.sae for row in listed],
        "features": _features(listed),
        "measure": [row.measure for row in listed],
        "encoder": [row.encoder for row in listed],
        "weight": [row.weight for row in listed],
        **sparse,
    }
    data = json.dumps(table, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    return base64.b64encode(gzip.compress(data, mtime=0)).decode()


def _features(listed: Sequence[Row]) -> list[list[int]]:
    """Features of each row: the first as a step from the row before, others from the first."""
    steps, before = [], 0
    for row in listed:
        first, *others = (member.feature for member in row.members)
        steps.append([first - before, *(other - first for other in others)])
        before = first
    return steps


def _sae(audited: Audited, listed: Sequence[Row]) -> dict[str, Any]:
    """What rows say of an SAE's features, once for each: numbers as steps from the one before."""
    known = {member.feature: member for row in listed for member in row.members
             if member.label or member.firing_rate is not None}  # fmt: skip
    features = sorted(known)
    return {
        "name": audited.name,
        "page": page_of_features(audited),
        "steps": [after - before for before, after in pairwise([0, *features])],
        "labels": [known[feature].label or "" for feature in features],
        "rates": [rate_text(known[feature]) for feature in features],
    }


def _row(entry: Weighed, sae: int) -> Row:
    finding, firing = entry.finding, entry.firing
    together = "" if firing is None else percent(firing.together)
    if firing is not None and firing.together and firing.ratio is not None:
        together += f" {times(firing.ratio)}"
    shown = [
        member if member.label is None else replace(member, label=visible(member.label, LABEL))
        for member in members(finding)[:MEMBERS]
    ]
    if isinstance(finding, TripleRecord):
        measure: float | None = finding.residual
        encoder: float | None = None
    elif isinstance(finding, GroupRecord):
        measure, encoder = finding.cosine_max, None
    else:
        measure, encoder = finding.cosine, finding.encoder_cosine
    return Row(
        KINDS.index(kind_of(finding)), sae, shown, len(finding.features) - len(shown),
        _in_parts(measure, 1000), _in_parts(encoder, 100), together, round(1000 * entry.weight),
        bool(finding.known),
    )  # fmt: skip


def _in_parts(value: float | None, parts: int) -> int | None:
    return None if value is None else round(parts * value)
