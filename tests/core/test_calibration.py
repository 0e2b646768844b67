"""Ranks, permutations and areas under curves, each against a count in plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saeaudit.core.calibration import (
    RESAMPLES,
    like_permutations,
    mid_ranks,
    resampled_sums,
    separation,
)


def rank(sample: np.ndarray, value: float) -> float:
    return ((sample < value).sum() + 0.5 * (sample == value).sum()) / len(sample)


@pytest.mark.parametrize("seed", range(5))
def test_mid_ranks_count_ties_half(seed: int) -> None:
    rng = np.random.default_rng(seed)
    sample = np.sort(rng.integers(0, 8, 50) / 4)
    values = np.concatenate([sample, rng.integers(-2, 12, 20) / 4])
    ranks = mid_ranks(torch.from_numpy(sample), torch.from_numpy(values))
    assert ranks.tolist() == pytest.approx([rank(sample, value) for value in values])
    one = torch.ones(9, dtype=torch.float64)
    assert mid_ranks(one, one).tolist() == [0.5] * 9  # all tied: neither end of the scale


def test_permutations_stay_among_like_rates() -> None:
    rates = np.random.default_rng(0).exponential(1, 230)
    permutations = like_permutations(rates.tolist(), 50, 20).numpy()
    assert permutations.shape == (20, 230)
    assert len({tuple(p) for p in permutations}) == 20
    group = np.empty(230, dtype=int)
    for number, members in enumerate(np.array_split(np.argsort(rates), 4)):
        group[members] = number
    for permutation in permutations:
        assert sorted(permutation) == list(range(230))
        assert (group[permutation] == group).all()
    assert np.mean(permutations == np.arange(230)) < 0.05  # of 50, one stays where it was
    assert (like_permutations(rates.tolist(), 50, 20).numpy() == permutations).all()
    assert sorted(like_permutations([0.0, 0.0, 1.0], 50, 1)[0].tolist()) == [0, 1, 2]
    assert like_permutations([], 50, 20).shape == (20, 0)


@pytest.mark.parametrize("levels", [3, 1000])
def test_separation_is_the_area_under_the_curve(levels: int) -> None:
    rng = np.random.default_rng(levels)
    same = rng.integers(0, levels, 60) + levels // 3
    other = rng.integers(0, levels, (60, 7))
    area, low, high = separation(
        torch.from_numpy(same.astype(float)), torch.from_numpy(other.astype(float))
    )
    wins = (same[:, None] > other.ravel()) + 0.5 * (same[:, None] == other.ravel())
    assert area == pytest.approx(wins.mean())
    areas = []
    for _ in range(500):
        drawn = rng.integers(60, size=60)
        one, many = same[drawn], other[drawn].ravel()
        areas.append(((one[:, None] > many) + 0.5 * (one[:, None] == many)).mean())
    assert [low, high] == pytest.approx(np.quantile(areas, [0.025, 0.975]), abs=0.02)


def test_values_that_say_nothing_part_half_of_the_time() -> None:
    same, other = torch.zeros(30).double(), torch.zeros(30, 4).double()
    assert separation(same, other) == (0.5, 0.5, 0.5)


def test_resamples_draw_as_many_rows_with_replacement() -> None:
    values = torch.stack([torch.ones(40), torch.arange(40.0)], dim=1).double()
    sums = resampled_sums(values).numpy()
    assert sums.shape == (RESAMPLES, 2) and (sums[:, 0] == 40).all()
    means = sums[:, 1] / 40
    assert means.mean() == pytest.approx(19.5, abs=0.2)
    assert means.std() == pytest.approx(np.arange(40).std() / 40**0.5, rel=0.1)
