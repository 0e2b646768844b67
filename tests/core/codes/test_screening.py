"""Swaps that estimates decide are those that float64 decides; and how many they leave to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeaudit.core.codes import estimates, swaps
from saeaudit.core.codes.algebra import AgainstPositive, enter_rows, least_squares
from saeaudit.core.codes.estimates import Estimator
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.full import Farthest
from saeaudit.core.codes.pivots import Column, exchanged
from saeaudit.core.codes.settled import Settler
from saeaudit.core.codes.swaps import one_swaps
from saeaudit.core.rows import UnitRows
from tests.support.enumeration import units_of

EXACT = -1.0
"""No support's squared distances are known to this: all rows are left to float64."""
DISCRETE = ("count", "distinct", "unsigned", "passing", "droppable")
KINDS = ("random", "clustered", "twins", "triples", "idle", "scales")


def problem(seed: int, kind: str, *, cells: int = 4000, tokens: int = 4, count: int = 200):
    """Rows of one kind, and fits of targets and of what codes on their supports decode to."""
    rng = np.random.default_rng(seed)
    width, k = int(rng.integers(12, 90)), int(rng.integers(1, 9))
    rows = rng.normal(size=(count, width))
    if kind == "clustered":
        rows += 2 * rng.normal(size=(6, width))[rng.integers(6, size=count)]
    if kind == "scales":
        rows *= 10.0 ** rng.integers(-25, 25, size=(count, 1))
    supports = np.stack([rng.permutation(count)[:k] for _ in range(tokens)])
    if kind == "twins":
        rows[50:100] = rows[:50] + rng.choice([0, 1e-7, 1e-4, 0.05]) * rng.normal(size=(50, width))
    if kind == "triples":
        rows[50:100] = rows[:50] - rng.uniform(0.2, 2, size=(50, 1)) * rows[100:150]
    supports[-1, k // 2 + 1 :] = -1
    codes = rng.exponential(size=supports.shape) * (supports >= 0)
    if kind == "idle":
        codes[:, 0] *= -1
    rows32 = torch.from_numpy(rows).float()
    units = units_of(rows32.double().numpy(), cells)
    index = torch.from_numpy(supports)
    fitted = Supports(units, index)
    decoded = (torch.from_numpy(codes)[:, None, :] @ fitted.vectors).squeeze(1)
    noise = torch.from_numpy(rng.normal(size=(tokens, width))) / width**0.5
    target = decoded + noise * decoded.norm(dim=1, keepdim=True) * rng.choice([0, 0.1, 0.5])
    return fitted, target, decoded


def swaps_of(fitted: Supports, target, decoded):
    """Swaps of a target and of what was decoded, at several limits, and the farthest of them."""
    fits = [Fit(fitted, target), Fit(fitted, decoded)]
    wider = torch.tensor([1.0, 1.02, 1.1], dtype=torch.float64)
    limits = [
        torch.cat([wider * fits[0].error[:, None], 1.3 * wider * fits[0].error[:, None]], 1),
        (wider - 1) ** 2 * fits[1].size[:, None],
    ]
    thresholds = torch.full((fitted.units.count,), 0.05, dtype=torch.float64)
    far = [Farthest(fit, limit, thresholds) for fit, limit in zip(fits, limits, strict=True)]
    enter = torch.ones(fitted.units.count, dtype=torch.bool)
    enter[::17] = False
    return one_swaps(fits, limits, enter, far), far


def alike(one: torch.Tensor, other: torch.Tensor, kind: str) -> bool:
    """Whether numbers of features are the same; of twins any may stand for the others."""
    if kind == "twins":
        return torch.equal(one >= 0, other >= 0)
    return torch.equal(one, other)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.sampled_from([1.0, 30.0, 3000.0]))
def test_estimates_decide_what_float64_does(seed: int, kind: str, wider: float) -> None:
    """Whatever the margins, and whatever is left to float64: the same swaps."""
    case = problem(seed, kind)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "UNIT_ERROR", wider * estimates.UNIT_ERROR)
        quick, quick_far = swaps_of(*case)
        patch.setattr(estimates, "UNSURE", EXACT)
        exact, exact_far = swaps_of(*case)
    size = case[1].square().sum(1).max()
    for one, other in zip(quick, exact, strict=True):
        for name in DISCRETE:
            assert torch.equal(getattr(one, name), getattr(other, name)), name
        apart = (one.error - other.error).nan_to_num(0.0, 0.0, 0.0).abs()
        assert bool((apart <= 1e-9 * size).all())
        assert torch.equal(one.error.isfinite(), other.error.isfinite())
        assert alike(one.feature, other.feature, kind)
    for far, other_far in zip(quick_far, exact_far, strict=True):
        assert torch.equal(far.attainable, other_far.attainable)
        assert alike(far.place, other_far.place, kind) and alike(far.row, other_far.row, kind)
        assert torch.allclose(far.change, other_far.change, atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_estimates_are_within_their_bounds(seed: int, kind: str) -> None:
    fitted, target, _ = problem(seed, kind)
    estimator = Estimator(fitted, target[:, None])
    enter = torch.ones(fitted.units.count, dtype=torch.bool)
    clear = 0
    for rows in estimator.all_rows(enter):
        exact = enter_rows(fitted, enter, rows.start, rows.start + rows.apart.shape[1])
        sound = estimator.sound[:, None] & ~rows.barred
        cosine = exact.weight / estimator.root[:, :, None]
        assert bool(((rows.cosine - cosine).abs().amax(1)[sound] <= estimator.off).all())
        along = exact.along(target) / target.norm(dim=1, keepdim=True)
        assert bool(((rows.beside[:, 0] - along).abs()[sound] <= estimator.off).all())
        assert bool((rows.beside[:, 0][rows.barred] == estimates.BARRED).all())
        sure = sound & ~rows.unclear
        off = estimator.off_apart(rows.apart)
        assert bool(((rows.apart - exact.apart).abs() <= off)[sure].all())
        nearness = (exact.apart[:, None] + cosine.square()).rsqrt()
        off_by = (rows.nearness / nearness - 1).abs().amax(1)
        assert bool((off_by <= rows.share_off)[sure].all())
        assert bool((nearness.amax(1) <= rows.steep)[sure].all())
        clear += int(sure.sum())
    assert clear or kind != "random"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(KINDS))
def test_a_few_changes_lead_to_the_codes_that_a_solver_finds(seed: int, kind: str) -> None:
    """Of supports less one feature, and of exchanges chosen at random."""
    fitted, target, _ = problem(seed, kind)
    fit = Fit(fitted, target)
    token, place = fitted.active.nonzero().unbind(1)
    system = fit.system(token)
    system.gram[torch.arange(len(token)), place] = 0.0
    system.gram[torch.arange(len(token)), :, place] = 0.0
    alone = exchanged(fit.tableau, token, place)
    known = agree(fit, token, system, alone, torch.zeros_like(alone.known))

    entering = enter_rows(fitted, torch.ones(200, dtype=torch.bool), 0, 200)
    column = torch.randint(200, token.shape, generator=torch.Generator().manual_seed(seed))
    able = entering.barred[token, 0, column] == 0
    token, place, column = token[able], place[able], column[able]
    moment = (target[token] * entering.vector(token, column)).sum(1)
    system = fit.exchange(token, place, entering.cross[token, :, column], moment)
    rows = AgainstPositive.of(fit, entering).pairs(token, column)
    row = Column(torch.where(fit.positive.mask[token], *rows[:2]), rows.apart, rows.beside)
    pair = exchanged(fit.tableau, token, place, row)
    new = pair.codes.gather(1, place[:, None]).squeeze(1)
    solved = system.solve(pair.codes > 0).gather(1, place[:, None]).squeeze(1)
    apart = (new.clamp(min=0) - solved).abs() <= 1e-7 * fit.size[token].sqrt()
    assert bool(apart[pair.known].all())
    known &= agree(fit, token, system, pair, new <= 0)
    assert known or kind in ("twins", "triples")


def agree(fit: Fit, token, system, pivoted, needless) -> bool:
    """Check known codes, but of needless rows, against a solver's; whether nearly all are known."""
    solved = system.solve(torch.ones_like(system.moment, dtype=torch.bool))
    error = fit.positive.error[token] + pivoted.gain
    sure, size = pivoted.known & ~needless, fit.size[token]
    assert bool(((error - system.error(solved)).abs() <= 1e-10 * size)[sure].all())
    off = (pivoted.codes - solved).abs().amax(1) <= 1e-6 * size.sqrt()
    assert bool(off[sure].all())
    return int(pivoted.known.sum()) >= 0.9 * len(token)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from(KINDS), st.sampled_from([1.0, 300.0]))
def test_settled_exchanges_enclose_the_error(seed: int, kind: str, wider: float) -> None:
    """Of all exchanges of a few rows, against solved systems."""
    fitted, target, _ = problem(seed, kind)
    fit = Fit(fitted, target)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(estimates, "UNIT_ERROR", wider * estimates.UNIT_ERROR)
        estimator = Estimator(fitted, torch.stack([fit.residual, fit.positive.residual], 1))
    rows = next(iter(estimator.all_rows(torch.ones(fitted.units.count, dtype=torch.bool))))
    clear = ~(rows.barred | rows.unclear)[:, None] & fitted.active[:, :, None]
    clear[:, :, 20:] = False
    token, place, column = clear.nonzero().unbind(1)
    number = torch.arange(len(token))
    low, high = Settler(fit, estimator, 1).settle(rows.columns(token, column), number, place)
    row = column + rows.start
    added = fitted.units.raw(row) / fitted.units.norms[row, None]
    moment = (target[token] * added).sum(1)
    system = fit.exchange(token, place, fitted.cosines(token, added), moment)
    codes = system.solve(torch.ones_like(system.moment, dtype=torch.bool))
    error, small = system.error(codes), 1e-11 * fit.size[token]
    assert bool((low <= error + small).all() and (error <= high + small).all())
    known = low.isfinite()
    assert torch.equal(known, high.isfinite())
    new = codes.gather(1, place[:, None]).squeeze(1)
    assert bool((new > fit.floor[token])[known].all())
    assert bool((high - low <= 1e-3 * wider * fit.size[token])[known].all())
    if kind == "random" and wider == 1:
        positive = fit.positive.mask == fitted.active
        plain = (codes > 1e-2) | ~fitted.active[token]
        assert bool(known[(plain & positive[token]).all(1)].all())


def test_a_swap_near_a_limit_is_decided_by_one_inner_product(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of codes of either sign: too near for float32, and no row is computed whole for it."""
    rng = np.random.default_rng(4)
    units = units_of(rng.normal(size=(300, 600)))
    fitted = Supports(units, torch.from_numpy(np.stack([rng.permutation(300)[:8] for _ in "12"])))
    decoded = (torch.from_numpy(1 + rng.exponential(size=(2, 1, 8))) @ fitted.vectors).squeeze(1)
    noise = torch.from_numpy(rng.normal(size=decoded.shape)) / 600**0.5
    fit = Fit(fitted, decoded + 0.3 * noise * decoded.norm(dim=1, keepdim=True))
    enter = torch.ones(300, dtype=torch.bool)
    every = least_squares(fit, enter_rows(fitted, enter, 0, 300))
    negative = torch.where(every.along < 0, every.error, torch.inf)
    error, at = negative.flatten(1).min(1)
    limit = error + 6e-8 * fit.size
    marks: list[torch.Tensor] = []
    measure = swaps.marked_rows

    def marked_rows(supports: Supports, marked: torch.Tensor):
        marks.append(marked)
        return measure(supports, marked)

    monkeypatch.setattr(swaps, "marked_rows", marked_rows)
    (counted,) = one_swaps([fit], [limit[:, None]], enter)
    within = every.error <= limit[:, None, None]
    assert torch.equal(counted.unsigned[:, 0], within.flatten(1).sum(1))
    assert not bool(marks[0].gather(1, (at % 300)[:, None]).any())


def test_few_rows_are_looked_at_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows in 600 dimensions, where most features can go, and of those where none can."""
    rng = np.random.default_rng(3)
    rows = torch.from_numpy(rng.normal(size=(4000, 600))).float()
    norms = rows.double().norm(dim=1)
    units = UnitRows(rows, torch.arange(len(rows)), norms)
    index = torch.from_numpy(np.stack([rng.permutation(4000)[:20] for _ in range(4)]))
    fitted = Supports(units, index)
    codes = torch.from_numpy(1 + rng.exponential(size=(4, 20)))
    decoded = (codes[:, None, :] @ fitted.vectors).squeeze(1)
    noise = torch.from_numpy(rng.normal(size=decoded.shape)) / 600**0.5
    target = decoded + 0.3 * noise * decoded.norm(dim=1, keepdim=True)
    enter = torch.ones(4000, dtype=torch.bool)
    looked_at = 0
    measure = swaps.marked_rows

    def marked_rows(supports: Supports, marked: torch.Tensor):
        nonlocal looked_at
        looked_at += int(marked.sum())
        return measure(supports, marked)

    monkeypatch.setattr(swaps, "marked_rows", marked_rows)
    for epsilon, most in ((0.02, 10), (0.1, 30), (0.5, 150)):
        fit, mirror = Fit(fitted, target), Fit(fitted, decoded)
        limits = [
            (1 + epsilon) ** 2 * fit.error[:, None],
            epsilon**2 * mirror.size[:, None],
        ]
        far = [Farthest(*pair, None) for pair in zip((fit, mirror), limits, strict=True)]
        looked_at = 0
        counted = one_swaps([fit, mirror], limits, enter, far)
        assert looked_at <= most, f"{epsilon}: of 4 x 2 x 3980 rows {looked_at} in float64"
        assert [int(swap.count.sum()) > 0 for swap in counted] == [epsilon > 0.02] * 2
