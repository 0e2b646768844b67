"""Claims about named features: the answer, by the scan's own thresholds, in the roles asked."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch

from saeaudit import AuditError
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.records import ClaimRecord, TripleRecord, dump
from tests.support import oracle
from tests.support.dictionaries import make, opened, opposed


def answers(rows: np.ndarray, **options: object) -> dict[tuple[int, ...], ClaimRecord]:
    records = scan(opened(rows), ScanOptions(**options))
    return {record.features: record for record in records if isinstance(record, ClaimRecord)}


def answer(rows: np.ndarray, *claim: int, **options: object) -> ClaimRecord:
    kind = "pairs" if len(claim) == 2 else "triples"
    (record,) = answers(rows, **{kind: (claim,)}, **options).values()
    return record


def planted(a: float, b: float, other: float = 0.0) -> np.ndarray:
    """Twenty random rows of width 64; row 2 is a times row 0, b times row 1, other times row 4."""
    rows = np.random.default_rng(3).normal(size=(20, 64))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    mixed = a * rows[0] + b * rows[1] + other * rows[4]
    rows[2] = 3 * mixed / np.linalg.norm(mixed)
    return rows


def test_it_holds() -> None:
    record = answer(planted(-0.7, 1, 0.05), 0, 1, 2)
    assert record.holds == "yes"
    assert record.alpha == pytest.approx(0.7, abs=0.05) and record.beta > 0
    assert record.residual < 0.06 < 0.4 < record.residual_without_f1
    assert record.z == (1, 1, 0) and record.z_prime[1] == 0 and record.error < 0.06
    assert record.z_prime[0] == pytest.approx(1.7, abs=0.05)
    assert record.sentence.startswith("holds: 2 = 0.79") and "x (1 - 0.7" in record.sentence
    assert "4 % is left, " in record.sentence and " without 0" in record.sentence


def test_it_does_not_hold() -> None:
    record = answer(planted(-0.7, 1, 1), 0, 1, 2)
    assert record.holds == "no" and record.sentence == (
        f"does not hold: {100 * record.residual:.0f} % of 2 is left, and at most 20 % may be"
    )
    assert record.error is not None and record.error > 0.2


def test_a_pair_explains_it() -> None:
    """The post's own alpha, 0.01: f3 is f2 again."""
    record = answer(planted(-0.01, 1), 0, 1, 2)
    assert record.holds == "pair" and record.residual < 1e-9
    assert record.alpha == pytest.approx(0.01)
    assert record.residual_without_f1 == pytest.approx(0.01, abs=1e-3)
    assert record.sentence == "0 adds nothing: 1 and 2 are duplicates (cosine 1.0000)"
    swapped = answer(planted(-0.01, 1), 1, 0, 2)
    assert (swapped.holds, swapped.sentence) == ("pair", record.sentence)
    # Rows 2 and 1 span the plane of rows 0 and 1, but for telling the two apart there is no use.
    between = answer(planted(-0.01, 1), 2, 1, 0)
    assert (between.holds, between.residual) == ("pair", pytest.approx(0, abs=1e-9))
    assert between.sentence == "0 adds nothing: 2 and 1 are duplicates (cosine 1.0000)"
    far = answer(planted(0.7, 1), 0, 1, 2, max_residual=0.6)
    assert far.holds == "pair" and far.sentence.startswith("0 adds nothing: 1 alone leaves 5")


@pytest.mark.parametrize(
    ("a", "b", "claim", "holds", "says"),
    [
        (0.8, 1, (0, 1, 2), "yes", "x (1 + 0.8 x 0)"),
        (3, 1, (0, 1, 2), "yes", "x (1 + 3 x 0)"),  # f1 leaves, but both codes are there
        (1, -0.6, (0, 1, 2), "no", "which is --triple 1,0,2"),
        (1, -0.6, (1, 0, 2), "yes", "x (0 - 0.6 x 1)"),
        (-0.6, -1, (0, 1, 2), "no", "points against both"),
        (0, -1, (0, 1, 2), "pair", "0 adds nothing: 1 and 2 are antipodal (cosine -1.0000)"),
        (-1, 0, (0, 1, 2), "pair", "1 adds nothing: 0 and 2 are antipodal"),
        (-1, 0, (0, 2, 1), "no", "left"),
        (-50, 1, (0, 1, 2), "yes", "x (1 - 50 x 0)"),
        (-1000, 1, (0, 1, 2), "pair", "1 adds nothing: 0 and 2 are antipodal"),
        (1, -0.1, (0, 2, 1), "pair", "1 adds nothing: 0 and 2 are duplicates"),
    ],
)
def test_signs_and_antipodes(
    a: float, b: float, claim: tuple[int, ...], holds: str, says: str
) -> None:
    record = answer(planted(a, b), *claim)
    assert record.holds == holds and says in record.sentence, record.sentence
    if holds == "yes":
        assert record.error == pytest.approx(0, abs=1e-9) and min(record.z_prime) >= 0


def test_parallel_f1_and_f2() -> None:
    for sign in (1, -1):
        record = answer(planted(sign, 0), 0, 2, 1)
        assert (record.alpha, record.beta, record.holds) == (None, None, "no")
        assert record.residual == record.residual_without_f1
    copies = planted(1, 0)
    copies[5] = 7 * copies[0]
    assert answer(copies, 0, 2, 5).holds == "pair"


@pytest.mark.parametrize(("kind", "seed"), [(make, 1), (make, 4), (opposed, 2)])
def test_what_holds_is_what_a_scan_finds(kind: Callable[[int], np.ndarray], seed: int) -> None:
    """A claim holds in some order of a finding's features, and in none of any other three."""
    rows = kind(seed)
    found = {
        frozenset(record.features): record
        for record in scan(opened(rows), ScanOptions(include_collapsed=True))
        if isinstance(record, TripleRecord)
    }
    live = oracle.usable(rows, include_collapsed=True)
    rng = np.random.default_rng(seed)
    asked = {frozenset(map(int, rng.choice(live, 3, replace=False))) for _ in range(12)}
    asked |= set(list(found)[:8])
    claims = tuple(order for three in asked for order in itertools.permutations(three))
    answered = answers(rows, triples=claims, include_collapsed=True)
    assert set(answered) == set(claims)
    for three in asked:
        holds = {answered[order].holds for order in itertools.permutations(three)}
        record = found.get(three)
        assert ("yes" in holds) == (record is not None and record.pattern == "2,1")
        if record:
            same = answered[record.features]
            assert same.residual == pytest.approx(record.residual, abs=2e-9)
            assert same.cosines == record.cosines
            assert same.holds == ("yes" if record.coefficients[1] > 0 else "no")


def test_pairs() -> None:
    rows = planted(-0.1, 1)
    rows[5] = -2 * rows[6]
    yes, no = answer(rows, 2, 1), answer(rows, 5, 6)
    assert (yes.holds, yes.features) == ("yes", (2, 1))
    assert yes.sentence == f"holds: 2 and 1 are duplicates (cosine {yes.cosines[0]:.4f})"
    assert yes.residual == pytest.approx(np.sqrt(1 - yes.cosines[0] ** 2), abs=1e-9)
    assert no.holds == "no" and "antipodal (cosine -1.0000)" in no.sentence
    assert no.z_prime == (0, 0) and no.error == 1
    neither = answer(rows, 7, 8)
    assert neither.holds == "no" and "0.9 is asked of duplicates" in neither.sentence
    assert answer(rows, 2, 1, min_cosine=0.9999).holds == "no"


def test_the_encoder_s_cosines_stand_beside() -> None:
    rows = planted(-0.7, 1)
    encoder = torch.from_numpy(np.random.default_rng(0).normal(size=(64, 20)))
    encoder[:, 2] = 0
    dictionary = opened(rows, encoder=lambda: encoder, architecture="standard")
    records = scan(dictionary, ScanOptions(triples=((0, 1, 2),), pairs=((1, 0),)))
    claims = [record for record in records if isinstance(record, ClaimRecord)]
    a, b = encoder[:, 0].numpy(), encoder[:, 1].numpy()
    cosine = pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert claims[0].encoder_cosines == (cosine, None, None)
    assert claims[1].encoder_cosines == (cosine,)


def test_each_claim_is_answered_once_before_what_is_found() -> None:
    rows = planted(-0.7, 1)
    options = ScanOptions(triples=((5, 4, 3), (0, 1, 2), (5, 4, 3)), pairs=((5, 4),))
    records = list(scan(opened(rows), options))
    kinds = [record.type for record in records]
    assert kinds == ["dictionary", "claim", "claim", "claim", "triple", "summary"]
    assert [r.features for r in records[1:4]] == [(0, 1, 2), (5, 4), (5, 4, 3)]
    assert records[4:] == list(scan(opened(rows)))[1:], "findings do not depend on claims"
    assert dump(records[2]).startswith('{"type":"claim","sae":"rows","features":[5,4],"holds":"no"')


def test_features_that_cannot_be_asked_about() -> None:
    rows = planted(0, 1).astype(np.float32)
    rows[5] = 0
    rows[6, 3] = np.nan
    rows[7] *= 1e-5
    for claim, says in (
        ((0, 1, 20), "--triple 0,1,20: there is no feature 20 (rows has features 0 to 19)"),
        ((0, -1), "--pair 0,-1: there is no feature -1"),
        ((5, 1), "--pair 5,1: the row of feature 5 is zero: it has no direction"),
        ((0, 6, 1), "--triple 0,6,1: the row of feature 6 is not finite: it has no direction "
                    "(--pair 0,1 asks about the other two)"),
        ((7, 1), "--pair 7,1: the row of feature 7 is collapsed, so the feature is dead "
                 "(--include-collapsed takes such rows as they are)"),
    ):  # fmt: skip
        with pytest.raises(AuditError) as caught:
            answer(rows, *claim)
        assert caught.value.line().startswith(says)
    assert answer(rows, 7, 1, include_collapsed=True).holds == "no"
    for option in ({"triples": ((0, 1, 1),)}, {"pairs": ((2, 2),)}):
        with pytest.raises(AuditError, match="each feature must be another"):
            ScanOptions(**option)
