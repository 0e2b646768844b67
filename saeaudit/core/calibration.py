"""What a figure is compared with: ranks, permutations, resamples, and how well two kinds part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

RESAMPLES = 1000
"""Bootstrap samples."""
LEAST_VALUES = 20
"""With fewer values there is no interval,"""
LEAST_UNITS = 10
"""nor with fewer documents (or blocks of neighbours): they are what is drawn anew."""
ENDS = (0.025, 0.975)
"""Quantiles between which 95 % of a distribution lie."""


def mid_ranks(sample: Tensor, values: Tensor) -> Tensor:
    """Share of a sample that is less than each value, ties counted half.

    Args:
        sample: ``[n]`` ascending, n >= 1.
        values: ``[m]`` of the same dtype.

    Returns:
        ``[m]`` float64 from 0 to 1. Example: 2 among 1, 2, 2, 3 is 0.5.
    """
    below = torch.searchsorted(sample, values, right=False)
    not_above = torch.searchsorted(sample, values, right=True)
    return (below + not_above).to(torch.float64) / (2 * len(sample))


def interval(values: Tensor) -> tuple[float, float]:
    """The ends of the central 95 % of ``[n]`` float64 values."""
    low, high = torch.quantile(values, torch.tensor(ENDS, dtype=torch.float64)).tolist()
    return low, high


def like_permutations(rates: Sequence[float], like: int, count: int) -> Tensor:
    """Permutations that move each place only to one of a like rate, always the same ones.

    Args:
        rates: ``[n]`` rate of each place.
        like: places in the order of their rates are parted into groups of at least so many.
        count: permutations wanted.

    Returns:
        ``[count, n]`` int64; row p says whose label each place has in permutation p.
    """
    generator = torch.Generator().manual_seed(0)
    order = torch.tensor(rates, dtype=torch.float64).argsort(stable=True)
    groups = order.tensor_split(max(len(order) // like, 1))
    permutations = torch.empty(count, len(order), dtype=torch.int64)
    for permutation in permutations:
        for group in groups:
            permutation[group] = group[torch.randperm(len(group), generator=generator)]
    return permutations


def resampled_sums(values: Tensor) -> Tensor:
    """Sums of the rows of bootstrap samples of ``[n, m]`` float64 values: ``[RESAMPLES, m]``.

    Each sample has n rows, drawn with replacement, always the same draws.
    """
    generator = torch.Generator().manual_seed(0)
    rows = len(values)
    sums = torch.empty(RESAMPLES, values.shape[1], dtype=torch.float64)
    for sample in sums:
        drawn = torch.randint(rows, (rows,), generator=generator)
        sample[:] = drawn.bincount(minlength=rows).to(torch.float64) @ values
    return sums


def mean_intervals(sums: Tensor, counts: Tensor) -> Tensor | None:
    """Ends of the 95 % intervals of m means: a bootstrap over units, always the same draws.

    Args:
        sums: ``[u, m]`` float64: of each unit's values.
        counts: ``[u]`` float64: how many values each has.

    Returns:
        ``[m, 2]``; None with fewer than `LEAST_VALUES` values or `LEAST_UNITS` units that have any.
    """
    known = counts > 0
    if float(counts.sum()) < LEAST_VALUES or int(known.sum()) < LEAST_UNITS:
        return None
    resampled = resampled_sums(torch.cat([sums[known], counts[known, None]], dim=1))
    means = resampled[:, :-1] / resampled[:, -1:]
    return torch.quantile(means, torch.tensor(ENDS, dtype=torch.float64), dim=0).T


def separation(same: Tensor, other: Tensor) -> tuple[float, float, float]:
    """Area under the ROC curve: how often a "same" value is above an "other" one, ties half.

    Args:
        same: ``[n]`` one value of each thing with itself, in another guise.
        other: ``[n, m]`` values of each of these things with other ones.

    Returns:
        The area, and the ends of its bootstrap interval of 95 % (things resampled, each with all of
        its values).
    """
    wins = torch.stack([mid_ranks(values.sort().values, same) for values in other], dim=1)
    generator = torch.Generator().manual_seed(0)
    areas = torch.empty(RESAMPLES, dtype=torch.float64)
    things = len(same)
    for number in range(RESAMPLES):
        drawn = torch.randint(things, (things,), generator=generator)
        times = drawn.bincount(minlength=things).to(torch.float64)
        areas[number] = times @ wins @ times / things**2
    return float(wins.mean()), *interval(areas)
