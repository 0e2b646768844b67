"""Counts of firing against loops over dense codes in numpy; intervals against what they promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saeaudit.core import firing as counting
from saeaudit.core.firing import BINS, Firing, Histograms, Share

SETS = ((1, 2), (5, 3), (7, 8, 9), (9, 7, 0), (2, 1), (3, 10))
TOKENS, FEATURES, LENGTH = 1200, 11, 20


@pytest.fixture(scope="module")
def codes() -> np.ndarray:
    """``[1200, 11]``: magnitudes over many octaves; feature 10 never fires, 1 and 2 often both."""
    rng = np.random.default_rng(3)
    on = rng.random((TOKENS, FEATURES)) < rng.uniform(0.02, 0.3, FEATURES)
    on[:, 2] |= on[:, 1] & (rng.random(TOKENS) < 0.5)
    on[:, 10] = False
    return np.where(on, np.exp(rng.normal(0, 2, on.shape)), 0.0)


def counted(codes: np.ndarray, step: int, length: int = LENGTH) -> Firing:
    firing = Firing(SETS, codes.shape[1], torch.arange(len(codes)) // length)
    for tokens in torch.arange(len(codes)).split(step):
        dense = torch.from_numpy(codes)[tokens]
        place, feature = (dense > 0).nonzero().unbind(1)
        firing.add(tokens, place, feature, dense[place, feature])
    return firing


@pytest.mark.parametrize(("step", "at_once"), [(1200, 1 << 20), (7, 1 << 20), (400, 3)])
def test_counts_and_sums(
    codes: np.ndarray, step: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(counting, "AT_ONCE", max(at_once, counting.RESAMPLES))
    firing = counted(codes, step)
    on = codes > 0
    together, chance, ratio = firing.together()
    for number, features in enumerate(SETS):
        pattern = sum(on[:, f].astype(int) << place for place, f in enumerate(features))
        expected = np.bincount(pattern, minlength=8)
        assert firing.counted()[number].tolist() == expected.tolist()
        for value in range(1, 2 ** len(features)):
            sums = codes[pattern == value][:, features].sum(0)
            assert firing.sums[number, value, : len(features)].numpy() == pytest.approx(sums)
        rates = on[:, features].mean(0)
        every = on[:, features].all(1).mean()
        assert float(together.value[number]) == pytest.approx(every, abs=1e-15)
        assert float(chance[number]) == pytest.approx(rates.prod(), rel=1e-14)
        if rates.all():
            assert float(ratio.value[number]) == pytest.approx(every / rates.prod(), rel=1e-14)
        else:
            assert np.isnan([ratio.value[number], ratio.low[number]]).all()


def test_magnitudes_do_not_depend_on_the_order_in_which_their_range_grows(
    codes: np.ndarray,
) -> None:
    whole, parts = counted(codes, TOKENS).histograms, counted(codes, 5).histograms
    assert torch.equal(whole.counts, parts.counts) and torch.equal(whole.widths, parts.widths)
    for column, feature in enumerate(sorted({f for features in SETS for f in features})):
        values = codes[codes[:, feature] > 0, feature]
        if len(values):
            width = 2.0 ** (np.floor(np.log2(values.max())) + 1) / BINS
            assert float(whole.widths[column]) == width
            expected = np.bincount((values / width).astype(int), minlength=BINS)
            assert whole.counts[column].tolist() == expected.tolist()
        else:
            assert not whole.counts[column].any()


def test_magnitudes_of_any_size() -> None:
    histograms = Histograms(1)
    values = torch.tensor([5e-324, 1e-300, 0.3, 1.0, 1e300], dtype=torch.float64)
    for value in values:
        histograms.add(torch.tensor([0]), value[None])
    assert int(histograms.counts.sum()) == 5 and int(histograms.counts[0, 0]) == 4
    assert 1e300 / float(histograms.widths) < BINS


def ends(codes: np.ndarray, features: tuple[int, ...]) -> np.ndarray:
    """Ends of the intervals of together and of the ratio, by resampling whole documents anew."""
    rng = np.random.default_rng(11)
    on = (codes > 0)[:, features].reshape(-1, LENGTH, len(features))
    sums = np.column_stack([on.sum(1), on.all(2).sum(1)])
    drawn = rng.integers(len(sums), size=(4000, len(sums)))
    shares = sums[drawn].mean(1) / LENGTH
    ratio = shares[:, -1] / shares[:, :-1].prod(1)
    return np.quantile(np.column_stack([shares[:, -1], ratio]), (0.025, 0.975), axis=0)


def test_intervals_are_those_of_documents_drawn_anew(codes: np.ndarray) -> None:
    together, _, ratio = counted(codes, 500).together()
    for number in (0, 1):
        oracle = ends(codes, SETS[number])
        for share, (low, high) in zip((together, ratio), oracle.T, strict=True):
            room = 0.25 * (high - low)
            assert float(share.low[number]) == pytest.approx(low, abs=room)
            assert float(share.high[number]) == pytest.approx(high, abs=room)
    assert float(ratio.low[0]) > 1.5  # 2 fires where 1 does
    assert float(ratio.low[1]) < 1 < float(ratio.high[1])


def test_there_is_no_interval_where_there_is_too_little_to_go_by(codes: np.ndarray) -> None:
    def known(share: Share) -> list[bool]:
        return share.low.isfinite().tolist()

    assert not any(known(counted(codes, 500, length=134).rates()))  # nine documents
    assert not any(known(counted(codes[:19], 19, length=1).rates()))
    firing = counted(codes, 500)
    column = firing.watched.tolist().index(10)
    assert not known(firing.rates())[column] and sum(known(firing.rates())) == 8
    seldom = codes.copy()
    seldom[3 * LENGTH :, 3] = 0.0  # in three documents alone
    assert not known(counted(seldom, 500).rates())[firing.watched.tolist().index(3)]


def test_features_that_have_nothing_to_do_with_each_other_are_seldom_told_apart() -> None:
    rng = np.random.default_rng(5)
    # Documents differ in length, and in how much fires in them.
    lengths = rng.integers(5, 60, 80)
    part = np.repeat(np.arange(80), lengths)
    rates = rng.uniform(0.05, 0.5, (80, 60))
    rates[:, 1::2] = rng.permutation(rates[:, 1::2])
    on = rng.random((len(part), 60)) < rates[part]
    sets = [(2 * n, 2 * n + 1) for n in range(30)]
    firing = Firing(sets, 60, torch.from_numpy(part))
    place, feature = map(torch.from_numpy, on.nonzero())
    firing.add(torch.arange(len(part)), place, feature, torch.ones(len(place)).double())
    ratio = firing.together()[2]
    inside = ((ratio.low <= 1) & (ratio.high >= 1)).sum()
    assert 25 <= int(inside) <= 30
