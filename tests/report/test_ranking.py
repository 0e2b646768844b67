"""Which findings come first: each factor by itself, against what it is documented to be."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from saeaudit.records import GroupRecord, PairRecord, TripleRecord
from saeaudit.report.ranking import both_fire, disagreement, strength, weighed

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


def test_the_weight_is_their_product() -> None:
    rare, common = (replace(PAIR, firing_rates=(rate, 0.5)) for rate in (1e-5, 1e-2))
    weights = [entry.weight for entry in weighed([rare, common, PAIR])]
    base = strength(PAIR) * 0.5
    assert weights == pytest.approx([base / 2, base, base / 2])
    assert [entry.weight for entry in weighed([PAIR])] == pytest.approx([base])
    nobody = replace(PAIR, firing_rates=(0.0, 0.0))
    assert weighed([nobody])[0].weight == pytest.approx(base)
