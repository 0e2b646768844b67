"""Which findings come first: each factor by itself, against what it is documented to be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from saeaudit.records import (
    DictionaryRecord,
    Finding,
    FiringRecord,
    GroupRecord,
    PairRecord,
    TripleRecord,
)
from saeaudit.report.ranking import both_fire, disagreement, strength, weighed
from tests.support.reports import gathered, golden

DICTIONARY = replace(
    next(record for record in golden("stitched") if isinstance(record, DictionaryRecord)),
    sae="made",
)

PAIR = PairRecord("made", (1, 2), "duplicate", 0.96, 1.0, 0.2)
TRIPLE = TripleRecord(
    "made", (1, 2, 3), (-0.4, 0.9), 0.44, 0.1, 0.3, (0.1, 0.2, 0.7), "2,1", 3, (1, 2),
    ("always", "sometimes", "never"),
)  # fmt: skip


def test_strength() -> None:
    assert strength(PAIR) == pytest.approx(1 - math.sqrt(1 - 0.96**2))
    assert strength(TRIPLE) == pytest.approx(0.9)
    assert strength(replace(PAIR, kind="antipodal", cosine=-0.96)) == 0
    assert strength(replace(TRIPLE, pattern="3,0", exchange=("never",) * 3)) == 0
    assert strength(GroupRecord("made", (1, 2, 3), 3, 0.9, 1.0)) == 1


def test_disagreement() -> None:
    assert disagreement(replace(PAIR, labels=("past tense verbs", "verbs"))) == pytest.approx(2 / 3)
    assert disagreement(replace(PAIR, labels=("Verbs", "verbs"))) == 0
    assert disagreement(replace(PAIR, labels=("verbs", None))) == 0.5 == disagreement(PAIR)
    assert disagreement(replace(TRIPLE, labels=("a", "a", "b"))) == pytest.approx(2 / 3)


def test_how_often_all_fire() -> None:
    assert both_fire(replace(PAIR, firing_rates=(0.1, 0.02))) == 0.02
    assert both_fire(replace(PAIR, firing_rates=(0.1, None))) is None is both_fire(PAIR)
    group = GroupRecord("made", (1, 2, 3), 3, 0.9, 1.0, firing_rates=(0.3, 0.1, 0.2))
    assert both_fire(group) == 0.2


def counted(*rates: float, together: float) -> FiringRecord:
    return FiringRecord(
        "made", PAIR.features, 1000, "documents", rates, (None,) * 2, (0,) * 4, together, None,
        0.1, 1.0, None, (), None,
    )  # fmt: skip


def weights(*findings: Finding, firing: FiringRecord | None = None) -> list[float]:
    records = [DICTIONARY, *findings, *([firing] if firing else [])]
    (audited,) = gathered(records).saes
    return [entry.weight for entry in weighed([audited])]


def test_the_weight_is_their_product() -> None:
    rare, common = (replace(PAIR, firing_rates=(rate, 0.5)) for rate in (1e-5, 1e-2))
    base = strength(PAIR) * 0.5
    assert weights(rare, common, PAIR) == pytest.approx([base / 2, base, base / 2])
    assert weights(PAIR) == pytest.approx([base])
    assert weights(replace(PAIR, firing_rates=(0.0, 0.0))) == pytest.approx([base])


def test_firing_together_counts_where_that_is_known() -> None:
    """Twins that both fire often and never together come after those that do."""
    firing = counted(0.4, 0.4, together=0.001)
    assert both_fire(PAIR, firing) == 0.001
    others = [replace(PAIR, features=(3, place), firing_rates=(0.01, 0.01)) for place in (4, 5, 6)]
    base = strength(PAIR) * 0.5
    assert weights(PAIR, *others, firing=firing) == pytest.approx([base / 4, base, base, base])
    assert weights(PAIR, *others) == pytest.approx([base / 2, base, base, base])


def test_counted_rates_stand_beside_findings_without_any() -> None:
    group = GroupRecord("made", (1, 7, 9), 3, 0.9, 1.0)
    rated = replace(PAIR, firing_rates=(0.3, 0.2))
    records = [DICTIONARY, PAIR, rated, group, counted(0.4, 0.1, together=0.0)]
    (audited,) = gathered(records).saes
    rates = [finding.firing_rates for finding in audited.findings]
    assert rates == [(0.4, 0.1), (0.3, 0.2), (0.4, None, None)]
