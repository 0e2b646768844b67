"""Bounds of rows that enter, from estimates: never above those in float64, which few then need."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saeaudit.core.codes.algebra import Entering, enter_rows
from saeaudit.core.codes.cheapest import Measure, Search, cheapest
from saeaudit.core.codes.codelength import Counts, Prices
from saeaudit.core.codes.estimates import Estimator
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.lengths import Lengths
from saeaudit.core.codes.norms import Norms, Squares, Sums
from saeaudit.core.codes.quantise import FINE, Grid
from tests.support.enumeration import units_of

MEASURES = ("bits", "l1", "l2")


def problem(
    seed: int, floor: float, scale: float = 1.0, *, features: int = 400, width: int = 24, k: int = 6
) -> tuple[Fit, tuple[torch.Tensor, torch.Tensor]]:
    """Three tokens of one, k - 1 and k features, and shrunk codes; rows of them have near-copies,
    and one is a sum of two others."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(features, width)) + 0.5 * rng.normal(size=width)
    rows[-20:] = rows[:20] + 0.05 * rng.normal(size=(20, width))
    rows[-1] = rows[0] + rows[1]
    units = units_of(rows)
    support = torch.from_numpy(np.stack([rng.permutation(30)[:k] for _ in range(3)]))
    support[0, 1:] = -1
    support[1, -1] = -1
    supports = Supports(units, support)
    codes = torch.from_numpy(floor + rng.exponential(size=(3, k))) * supports.active
    noise = torch.from_numpy(0.2 * rng.normal(size=(3, width)))
    target = (codes[:, None] @ supports.vectors)[:, 0] + noise
    codes = torch.where(supports.active, (0.9 * codes).clamp(min=floor), 0.0)
    fit = Fit(supports, scale * target)
    decoded = scale * (codes[:, None] @ supports.vectors)[:, 0]
    return fit, (scale * codes, (fit.target - decoded).square().sum(1))


def measure_of(name: str, seed: int, floor: float, count: int) -> Measure:
    floors = torch.full((count,), floor, dtype=torch.float64)
    if name != "bits":
        return Norms(floors, Sums if name == "l1" else Squares)
    rng = np.random.default_rng(seed)
    counts = Counts(Grid(floor / 4 if floor else 0.25, floors))
    for half in (0, 1):
        index = np.repeat(np.arange(count), rng.integers(3, 60, count))
        values = floor + rng.exponential(counts.grid.width * 4, len(index))
        counts.add(torch.from_numpy(index), torch.from_numpy(values), 500, half=half)
    return Lengths(Prices(counts, FINE))


def taken(search: Search, enter: torch.Tensor) -> Search:
    fit = search.fit
    for rows in Estimator(fit.supports, fit.residual[:, None]).all_rows(enter):
        search.take(rows)
    return search


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize(("floor", "scale"), [(0.0, 1.0), (0.3, 1.0), (0.3, 1e-20), (0.0, 1e20)])
def test_estimates_leave_bounds_that_are_never_above(name: str, floor: float, scale: float) -> None:
    for seed in range(2 if scale == 1 else 1):
        fit, reference = problem(seed, floor, scale)
        count = fit.supports.units.count
        measure = measure_of(name, seed, scale * floor, count)
        search = Search(fit, reference, measure)
        enter = torch.ones(count, dtype=torch.bool)
        enter[50:60] = False
        (rows,) = Estimator(fit.supports, fit.residual[:, None]).all_rows(enter)
        entering = enter_rows(fit.supports, enter, 0, count)
        index = torch.arange(count)[None]
        priced = measure.entering(index), measure.floor[index]
        below, exact = search.tables.below(rows, *priced), search.tables.of(entering, *priced)
        clear = ~(rows.unclear | rows.barred)
        assert bool((below <= exact)[clear].all())
        assert bool(below[rows.barred].isposinf().all())
        assert float((clear & ~below.isneginf()).float().mean()) > 0.8
        apart = (exact - below)[clear & below.isfinite() & exact.isfinite()]
        assert float(apart.max()) < 1e-2 * float(exact[exact.isfinite()].abs().max())


@pytest.mark.parametrize("name", MEASURES)
@pytest.mark.parametrize("slack", [1.0, 1e-9])
def test_the_lowest_bounds_are_those_of_all_rows(name: str, slack: float) -> None:
    """Where hardly any swap is within the limit most of the lowest estimates are of no row."""
    for seed in range(2):
        fit, (codes, error) = problem(seed, 0.0)
        error = fit.error + slack * (error - fit.error)
        count = fit.supports.units.count
        enter = torch.ones(count, dtype=torch.bool)
        search = taken(Search(fit, (codes, error), measure_of(name, seed, 0.0, count)), enter)
        few, every = search.bounds(9), search.bounds(count)
        lowest = every[0].sort(dim=1)
        first = lowest.indices[:, :9]
        least = few[0].sort(dim=1).values[:, :9]
        torch.testing.assert_close(least, lowest.values[:, :9], rtol=1e-9, atol=1e-9)
        assert torch.equal(few[1].gather(1, first), every[1].gather(1, first))


def test_few_rows_are_measured_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of tokens on which some swaps are within the limit."""
    fit, (codes, error) = problem(0, 0.0, features=2000)
    supports = Supports(fit.supports.units, fit.supports.rows[1:])
    fit, reference = Fit(supports, fit.target[1:]), (codes[1:], error[1:])
    measured = 0
    of = Entering.of

    def counted(supports: Supports, rows: torch.Tensor, barred: torch.Tensor) -> Entering:
        nonlocal measured
        measured += int((~barred).sum())
        return of(supports, rows, barred)

    monkeypatch.setattr(Entering, "of", counted)
    enter = torch.ones(2000, dtype=torch.bool)
    result = cheapest(fit, reference, enter, measure_of("bits", 0, 0.0, 2000), most=16)
    assert int(result.solved.sum()) > 16
    assert measured < 2 * 100
