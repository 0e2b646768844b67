"""Findings as rows of the page's table: the first as HTML has them, all of them packed."""

from __future__ import annotations

import base64
import gzip
import heapq
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any, NamedTuple
from urllib.parse import quote

from saeaudit.escape import visible
from saeaudit.formats.screen.findings import Member, members
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
    every = [finding for audited in gathered.saes for finding in audited.findings]
    made = [_row(entry, places[id(entry.finding)]) for entry in weighed(every)]
    return sorted(made, key=lambda row: (row.sae, row.kind, [m.feature for m in row.members]))


def first_rows(listed: Sequence[Row]) -> list[Row]:
    """Those that deserve a look first, in that order."""
    return heapq.nsmallest(FIRST, listed, key=lambda row: row.order)


def rate_text(member: Member) -> str:
    """A firing rate in words; empty where it is not known."""
    return "" if member.firing_rate is None else percent(member.firing_rate)


def page_of_features(audited: Audited) -> str:
    """What a feature's page begins with, the feature to be added; empty where there are none."""
    source = audited.dictionary.neuronpedia
    return FEATURE_URL.format(source=quote(source, safe="/"), feature="") if source else ""


def packed(listed: Sequence[Row], gathered: Gathered) -> str:
    """All rows as columns of JSON, gzipped, in base64: what the page's script unpacks."""
    sparse: dict[str, dict[int, Any]] = {
        "more": {place: row.more for place, row in enumerate(listed) if row.more},
        "known": {place: 1 for place, row in enumerate(listed) if row.known},
        "roles": {
            place: [member.role for member in row.members]
            for place, row in enumerate(listed)
            if any(member.role for member in row.members)
        },
    }
    table = {
        "kinds": [TITLES[kind][0] for kind in KINDS],
        "saes": [
            _sae(audited, [row for row in listed if row.sae == place])
            for place, audited in enumerate(gathered.saes)
        ],
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
    finding = entry.finding
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
        _in_parts(measure, 1000), _in_parts(encoder, 100), round(1000 * entry.weight),
        bool(finding.known),
    )  # fmt: skip


def _in_parts(value: float | None, parts: int) -> int | None:
    return None if value is None else round(parts * value)
