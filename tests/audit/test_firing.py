"""How features of findings fire, in records of mediators and score, against numpy in float64."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from saeaudit import AuditError, MediatorInputs, MediatorOptions, ScoreInputs, ScoreOptions
from saeaudit import mediators as list_mediators
from saeaudit import score as score_sae
from saeaudit.records import (
    ClaimRecord,
    FiringRecord,
    GroupRecord,
    MediatorRecord,
    PairRecord,
    Record,
    TripleRecord,
    dump,
    parse,
)
from tests.support.dictionaries import sae

TOKENS, FEATURES, WIDTH, LENGTH = 900, 12, 14, 15
RNG = np.random.default_rng(2)
ROWS = RNG.normal(size=(FEATURES, WIDTH))
ROWS[1] = 1.7 * ROWS[0] + 0.3 * RNG.normal(size=WIDTH)
ROWS[5] = 0.6 * ROWS[3] + 0.8 * ROWS[4] + 0.1 * RNG.normal(size=WIDTH)
ROWS[7] = -ROWS[6]
ROWS[11] = 2 * ROWS[10]
ROWS = ROWS.astype(np.float32).astype(np.float64)


def magnitudes() -> np.ndarray:
    """Codes ``[N, F]``: 0 and 1 exclude each other, 4 fires where 3 does, 11 never."""
    on = RNG.random((TOKENS, FEATURES)) < RNG.uniform(0.05, 0.3, FEATURES)
    on[:, 4] |= on[:, 3] & (RNG.random(TOKENS) < 0.6)
    on[:, 1] &= ~on[:, 0]
    on[:, 11] = False
    return np.where(on, np.exp(RNG.normal(0, 0.7, on.shape)), 0.0)


CODES = magnitudes()
X = torch.from_numpy(np.pad(CODES, ((0, 0), (0, WIDTH - FEATURES))))
DOCUMENTS = torch.arange(TOKENS) // LENGTH
DICTIONARY = sae(ROWS, np.eye(WIDTH, FEATURES), b_dec=torch.zeros(WIDTH))
FINDINGS: list[Record] = [
    PairRecord(DICTIONARY.sae, (0, 1), "duplicate", 0.98, 1.0, None, labels=("dogs", None)),
    PairRecord(DICTIONARY.sae, (6, 7), "antipodal", -1.0, 1.0, None),
    PairRecord(DICTIONARY.sae, (10, 11), "duplicate", 0.9, 1.0, None),
    TripleRecord(
        DICTIONARY.sae, (3, 4, 5), (0.6, 0.8), -0.75, 0.1, 0.5, (0.1, 0.7, 0.8), "2,1", 5, (3, 4),
        ("always", "always", "always"),
    ),
    GroupRecord(DICTIONARY.sae, (0, 1, 2), 3, 0.9, 0.99),
]  # fmt: skip
CLAIM = ClaimRecord(
    DICTIONARY.sae, (5, 4, 3), "yes", "holds", 1.0, 1.0, 0.1, 0.2, (0.0,) * 3, (None,) * 3,
    (1.0, 1.0, 0.0), (1.0, 0.0, 1.0), 1, 0.1,
)  # fmt: skip
SETS = [(0, 1), (6, 7), (10, 11), (3, 4, 5), (5, 4, 3)]


def firing(records: Iterable[Record]) -> list[FiringRecord]:
    records = list(records)
    assert records[-1].type == "summary"
    made = [record for record in records if isinstance(record, FiringRecord)]
    for record in made:
        assert parse(dump(record)).type == "firing"
    return made


@pytest.fixture(scope="module")
def listed() -> list[FiringRecord]:
    options = MediatorOptions(max_tokens=0, keep_outliers=True, max_alternatives=0)
    inputs = MediatorInputs(X, documents=DOCUMENTS, findings=[*FINDINGS, CLAIM])
    return firing(list_mediators(DICTIONARY, inputs, options))


@pytest.fixture(scope="module")
def scored() -> list[FiringRecord]:
    options = ScoreOptions(max_tokens=1, keep_outliers=True, bin_width=0.1)
    inputs = ScoreInputs(X, documents=DOCUMENTS, findings=[*FINDINGS, CLAIM])
    return firing(score_sae(DICTIONARY, inputs, options))


def nearest(z: dict[int, float], features: Sequence[int]) -> tuple[dict[int, float], float]:
    """Over all exchanges of one feature of z for the other one: the code of the least error."""
    (entering,) = set(features) - z.keys()
    target = sum(code * ROWS[f] for f, code in z.items())
    best: tuple[float, dict[int, float]] = np.inf, {}
    for leaving in z:
        support = [f for f in features if f != leaving]
        for used in (support, [entering], *([f] for f in support)):
            values = np.linalg.lstsq(ROWS[used].T, target, rcond=None)[0]
            error = float(np.linalg.norm(target - values @ ROWS[used]))
            if (values > 0).all() and error < best[0] - 1e-12:
                best = error, dict(zip(used, values, strict=True))
    return best[1], best[0] / float(np.linalg.norm(target))


def test_every_figure(listed: list[FiringRecord]) -> None:
    assert [record.features for record in listed] == sorted(SETS, key=lambda s: (len(s), s))
    on = CODES > 0
    for record in listed:
        features = list(record.features)
        assert record.tokens == TOKENS and record.drawn_by == "documents"
        rates = on[:, features].mean(0)
        assert record.rates == pytest.approx(rates.tolist(), rel=1e-14)
        pattern = sum(on[:, f].astype(int) << place for place, f in enumerate(features))
        counts = np.bincount(pattern, minlength=2 ** len(features))
        assert record.patterns == tuple(counts.tolist())
        assert record.together == pytest.approx(on[:, features].all(1).mean(), abs=1e-15)
        assert record.together_chance == pytest.approx(rates.prod(), rel=1e-14)
        if rates.all():
            assert record.ratio == pytest.approx(record.together / rates.prod(), rel=1e-13)
        for feature, drawn in zip(features, record.magnitudes, strict=True):
            values = CODES[on[:, feature], feature]
            assert sum(drawn.counts) == len(values)
            if len(values):
                assert drawn.bin_width == 2.0 ** (np.floor(np.log2(values.max())) + 1) / 50
                expected = np.bincount((values / drawn.bin_width).astype(int), minlength=50)
                assert np.abs(expected - drawn.counts).sum() <= 2  # rounding at an edge


def test_the_typical_exchange(listed: list[FiringRecord]) -> None:
    exchanged = 0
    for record in listed:
        features, pair = record.features, record.typical
        if features in ((6, 7), (10, 11)):
            # Opposite rows allow no exchange; of the other two one never fires.
            assert (pair is None) == (features == (6, 7))
        if pair is None:
            continue
        full = 2 ** len(features) - 1
        most = max(record.patterns[full - 2**place] for place in range(len(features)))
        assert pair.tokens <= most and (pair.tokens == most or len(features) == 3)
        z = {code.feature: code.value for code in pair.codes}
        tokens = np.logical_and.reduce([(CODES[:, f] > 0) == (f in z) for f in features])
        assert pair.tokens == tokens.sum()
        for feature, value in z.items():
            assert value == pytest.approx(CODES[tokens, feature].mean(), rel=1e-12)
        other, difference = nearest(z, features)
        assert {c.feature: c.value for c in pair.alternative} == pytest.approx(other, rel=1e-7)
        assert pair.difference == pytest.approx(difference, rel=1e-6)
        assert pair.bits is None is pair.alternative_bits
        exchanged += 1
    assert exchanged >= 3


def test_what_excludes_and_what_follows(listed: list[FiringRecord]) -> None:
    by_features = {record.features: record for record in listed}
    apart, never = by_features[0, 1], by_features[10, 11]
    assert apart.together == 0 == apart.ratio and apart.together_interval is None
    assert apart.labels == ("dogs", None)
    assert all(interval is not None for interval in apart.rate_intervals)
    assert never.ratio is None is never.rate_intervals[1]
    assert never.magnitudes[1].bin_width is None and never.magnitudes[1].counts == ()
    both = by_features[3, 4, 5]
    assert both.ratio is not None and both.ratio_interval is not None
    assert 1 < both.ratio_interval.low < both.ratio < both.ratio_interval.high


def test_score_counts_the_same_and_says_bits(
    listed: list[FiringRecord], scored: list[FiringRecord]
) -> None:
    for one, other in zip(listed, scored, strict=True):
        typical = other.typical
        if typical is not None:
            typical = replace(typical, bits=None, alternative_bits=None)
        assert dump(replace(other, typical=typical)) == dump(one)
    bits = {record.features: record.typical for record in scored}
    never = bits[10, 11]
    assert never is not None and never.bits is not None and never.alternative_bits is None
    pair = bits[0, 1]
    assert pair is not None and pair.bits is not None and pair.alternative_bits is not None


def test_bits_of_codes_of_one_strength_are_those_of_their_gates() -> None:
    """Values that are all the same say nothing, so that bits are log odds of the rates."""
    codes = torch.from_numpy((CODES > 0).astype(float))
    x = torch.nn.functional.pad(codes, (0, WIDTH - FEATURES))
    rows = np.eye(WIDTH)[:FEATURES]
    rows[1] = rows[0]
    dictionary = sae(rows, np.eye(WIDTH, FEATURES))
    finding = PairRecord(dictionary.sae, (0, 1), "duplicate", 1.0, 1.0, None)
    options = ScoreOptions(max_tokens=1, bin_width=0.5)
    inputs = ScoreInputs(x, documents=DOCUMENTS, findings=[finding])
    (record,) = firing(score_sae(dictionary, inputs, options))
    assert record.typical is not None
    assert {c.value for c in (*record.typical.codes, *record.typical.alternative)} == {1.0}
    rates = dict(zip(record.features, record.rates, strict=True))
    for code, bits in (
        (record.typical.codes, record.typical.bits),
        (record.typical.alternative, record.typical.alternative_bits),
    ):
        rate = rates[code[0].feature]
        assert bits == pytest.approx(np.log2((1 - rate) / rate), abs=0.35)


def test_alternatives_that_are_given_are_watched_too() -> None:
    records = list(list_mediators(DICTIONARY, MediatorInputs(findings=FINDINGS)))
    sets = {record.features for record in records if isinstance(record, MediatorRecord)}
    options = ScoreOptions(max_tokens=1, keep_outliers=True, bin_width=0.1)
    inputs = ScoreInputs(X, documents=DOCUMENTS, mediators=records)
    assert {record.features for record in firing(score_sae(DICTIONARY, inputs, options))} == sets


def test_findings_need_activations_and_are_of_the_sae() -> None:
    for inputs in (
        ScoreInputs(features={}, findings=FINDINGS),
        ScoreInputs(X, features={}, findings=FINDINGS),
    ):
        with pytest.raises(AuditError, match="counted on activations, without features"):
            list(score_sae(DICTIONARY, inputs))
    with pytest.raises(AuditError, match="not of a control"):
        list(score_sae(DICTIONARY, ScoreInputs(X, findings=FINDINGS),
                       ScoreOptions(control="random-decoder")))  # fmt: skip
    others = [replace(record, sae="another") for record in FINDINGS]
    with pytest.raises(AuditError, match="a scan of another"):
        list(score_sae(DICTIONARY, ScoreInputs(X, findings=others)))
