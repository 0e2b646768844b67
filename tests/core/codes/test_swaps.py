"""Swaps in closed form against enumeration: every subset of every swapped support, solved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.full import Farthest, full_swaps
from saeaudit.core.codes.swaps import one_swaps
from saeaudit.core.codes.tolerances import ENTERS, TOLERANCE
from tests.support.enumeration import least_squares, nonnegative, units_of

NEAR = 1e-7
"""Share of |target|^2 around a limit, and of codes around their floor, in which either answer is
right."""


@st.composite
def problems(draw: st.DrawFn):
    """A dictionary of up to 24 rows in up to 8 dimensions, a support of up to 3, a target."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    width = draw(st.integers(2, 8))
    count = draw(st.integers(4, 24))
    rows = rng.normal(size=(count, width))
    kind = draw(st.sampled_from(["random", "conic", "twins", "triples", "idle"]))
    if kind == "conic":
        rows[:, 0] = np.abs(rows[:, 0]) + 1
    if kind == "twins":
        rows[1] = rows[0] + draw(st.sampled_from([0.0, 1e-3, 0.1])) * rng.normal(size=width)
    if kind == "triples":
        rows[2] = rows[1] - rng.uniform(-0.9, 2) * rows[0]
    rows *= 10 ** rng.uniform(-2, 2, size=(count, 1))
    k = draw(st.integers(0, min(3, width)))
    first = list(range(k)) if kind in ("twins", "triples") else []
    support = first or rng.choice(count, k, replace=False).tolist()
    codes = rng.exponential(size=k) / np.linalg.norm(rows[support], axis=1)
    if kind == "idle":  # features that the refit has no use for
        codes[1:] *= -1
    target = codes @ rows[support] + draw(st.sampled_from([0.0, 0.1, 1.0])) * rng.normal(size=width)
    return rows, support, target


def fitted(rows: np.ndarray, support: list[int], target: np.ndarray) -> tuple[np.ndarray, Fit]:
    """Unit rows ``[n, d]``, and the fit of one token's target."""
    supports = Supports(units_of(rows, cells=64), torch.tensor([support], dtype=torch.int64))
    fit = Fit(supports, torch.from_numpy(target)[None])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), fit


def is_independent(problem: tuple[np.ndarray, list[int], np.ndarray]) -> bool:
    """Whether there is a support, whose rows are far from depending on each other."""
    rows, support, _ = problem
    unit = rows[support] / np.linalg.norm(rows[support], axis=1, keepdims=True)
    return bool(support) and bool(np.linalg.svd(unit, compute_uv=False)[-1] > 1e-3)


class Enumerated:
    """What every swap of one problem is, solved one at a time."""

    def __init__(self, unit: np.ndarray, support: list[int], target: np.ndarray, enter) -> None:
        self.size = float((target**2).sum())
        self.refit, _ = nonnegative(unit[support], target)
        self.floor = ENTERS * np.linalg.norm(self.refit)
        self.swaps: dict[tuple[int, int], tuple[np.ndarray, float]] = {}
        self.free: dict[tuple[int, int], tuple[np.ndarray, float]] = {}
        for place in range(len(support)):
            for j in range(len(unit)):
                if j in support or not enter[j]:
                    continue
                rows = unit[[j if p == place else s for p, s in enumerate(support)]]
                self.swaps[place, j] = nonnegative(rows, target)
                self.free[place, j] = least_squares(rows, target)

    def counted(self, limit: float, slack: float) -> set[tuple[int, int]]:
        """Swaps that count with a limit wider by `slack` of |target|^2 and as much less a floor."""
        scale = slack * self.size**0.5
        return {
            swap
            for swap, (codes, error) in self.swaps.items()
            if error <= limit + (TOLERANCE + slack) * self.size
            and codes[swap[0]] > self.floor - scale
        }

    def change(self, swap: tuple[int, int]) -> float:
        """How far a swap's codes are from the refit."""
        place, (codes, _) = swap[0], self.swaps[swap]
        rest = [p for p in range(len(codes)) if p != place]
        moved = np.abs(codes - self.refit)[rest].sum() + codes[place] + self.refit[place]
        return float(moved / self.refit.sum())


@settings(max_examples=200, deadline=None)
@given(problems(), st.sampled_from([0.0, 0.01, 0.05, 0.3]), st.sampled_from([1.0, 1.2]))
def test_one_swap_equals_enumeration(problem, epsilon: float, reference: float) -> None:
    rows, support, target = problem
    if (target**2).sum() == 0:
        return
    unit, fit = fitted(rows, support, target)
    if support:  # between those, what is a direction of its own is a matter of definition
        least = np.linalg.svd(unit[support], compute_uv=False)[-1]
        assume(least < 1e-9 or least > 1e-4)
    least = least_squares(unit[support], target)[1]
    size = float((target**2).sum())
    assert float(fit.error[0]) == pytest.approx(least, abs=1e-8 * size)
    limit = (1 + epsilon) ** 2 * reference * least
    enter = torch.ones(len(rows), dtype=torch.bool)
    enter[-1] = len(rows) - 1 in support
    limits = torch.tensor([[limit]], dtype=torch.float64)
    far = Farthest(fit, limits, None)
    (swaps,) = one_swaps([fit], [limits], enter, [far])
    every = Enumerated(unit, support, target, enter)
    sure, possible = every.counted(limit, -NEAR), every.counted(limit, NEAR)
    assert len(sure) <= int(swaps.count) <= len(possible)
    passing = set(swaps.passing[0, 0].nonzero().flatten().tolist())
    assert {i for i, _ in sure} <= passing <= {i for i, _ in possible}
    over = [error - limit - TOLERANCE * size for _, error in every.free.values()]
    assert sum(e <= -NEAR * size for e in over) <= int(swaps.unsigned)
    assert int(swaps.unsigned) <= sum(e <= NEAR * size for e in over)
    for place in range(len(support)):
        rest = [s for p, s in enumerate(support) if p != place]
        excess = nonnegative(unit[rest], target)[1] - limit - TOLERANCE * size
        if abs(excess) > NEAR * size:
            assert bool(swaps.droppable[0, 0, place]) == (excess < 0)
        best = min((every.swaps[i, j][1] for i, j in sure if i == place), default=np.inf)
        j = int(swaps.feature[0, place])
        if j >= 0:
            assert float(swaps.error[0, place]) == pytest.approx(
                every.swaps[place, j][1], abs=1e-7 * size
            )
        if not swaps.droppable[0, 0, place]:
            assert float(swaps.error[0, place]) <= best + 1e-7 * size
    # Different features of the codes counted, each with those of the support that it uses.
    sets = {
        (j, *sorted(support[p] for p in np.flatnonzero(every.swaps[i, j][0] > 0) if p != i))
        for i, j in possible
    }
    assert int(swaps.count > 0) <= int(swaps.distinct) <= len(sets)


@settings(max_examples=150, deadline=None)
@given(problems().filter(is_independent), st.sampled_from([0.01, 0.3]))
def test_a_best_swap_is_told_where_a_feature_cannot_simply_go(problem, epsilon: float) -> None:
    """Up to the widest such limit, and no other that was looked at for another reason."""
    rows, support, target = problem
    unit, fit = fitted(rows, support, target)
    error, size = nonnegative(unit[support], target)[1], float((target**2).sum())
    narrow = (1 + epsilon) ** 2 * error
    enter = torch.ones(len(rows), dtype=torch.bool)
    limits = torch.tensor([[narrow, 3 * narrow]], dtype=torch.float64)
    (swaps,) = one_swaps([fit], [limits], enter)
    every = Enumerated(unit, support, target, enter)
    for place in range(len(support)):
        barred = [t for t in (0, 1) if not swaps.droppable[0, t, place]]
        if not barred:
            continue
        widest = float(limits[0, barred[-1]])
        of_place = [swap for swap in every.counted(np.inf, 0.0) if swap[0] == place]
        best = min((every.swaps[swap][1] for swap in of_place), default=np.inf)
        told = float(swaps.error[0, place])
        assert (told < np.inf) == (int(swaps.feature[0, place]) >= 0)
        if best < widest - NEAR * size:
            assert told == pytest.approx(best, abs=1e-7 * size)
        elif best > widest + NEAR * size:
            assert told == np.inf


@settings(max_examples=80, deadline=None)
@given(problems().filter(is_independent), st.sampled_from([0.01, 0.3]))
def test_the_farthest_swap_equals_enumeration(problem, epsilon: float) -> None:
    rows, support, target = problem
    unit, fit = fitted(rows, support, target)
    refit, error = nonnegative(unit[support], target)
    size = float((target**2).sum())
    assume(refit.sum() > 1e-3 * size**0.5)
    limits = (1 + epsilon) ** 2 * torch.tensor([[error, 2 * error]], dtype=torch.float64)
    enter = torch.ones(len(rows), dtype=torch.bool)
    thresholds = torch.full((len(rows),), 0.2 * size**0.5, dtype=torch.float64)
    far = Farthest(fit, limits, thresholds)
    one_swaps([fit], [limits], enter, [far])
    every = Enumerated(unit, support, target, enter)
    for t, limit in enumerate(limits[0].tolist()):
        changes, attained = [[], []], [False, False]
        for n, slack in enumerate((-NEAR, NEAR)):
            for swap in every.counted(limit, slack):
                codes, scale = every.swaps[swap][0], slack * size**0.5
                alone = [swap[1] if p == swap[0] else s for p, s in enumerate(support)]
                if np.linalg.svd(unit[alone], compute_uv=False)[-1] < 1e-4:
                    return
                if (codes > every.floor - scale).all() and (codes > 0).all():
                    changes[n].append(every.change(swap))
                    attained[n] |= bool((codes > 0.2 * size**0.5 - scale).all())
        assert attained[0] <= bool(far.attainable[0, t]) <= attained[1]
        change = float(far.change[0, t])
        low, high = (max(column, default=-1.0) for column in changes)
        assert low - 1e-6 <= change <= high + 1e-6
        listed = full_swaps(fit, limits[:, t], enter)
        assert len(changes[0]) <= len(listed.token) <= len(changes[1])
        if change >= 0:
            swap = int(far.place[0, t]), int(far.row[0, t])
            assert every.change(swap) == pytest.approx(change, abs=1e-6)


def test_batches_of_tokens_do_not_mix() -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(60, 12))
    supports = [rng.choice(60, size, replace=False).tolist() for size in (0, 1, 3, 7, 12)]
    targets = rng.normal(size=(5, 12))
    enter = torch.ones(60, dtype=torch.bool)
    padded = torch.full((5, 12), -1)
    for b, support in enumerate(supports):
        padded[b, : len(support)] = torch.tensor(support, dtype=torch.int64)

    def run(index: list[int], cells: int):
        supports = Supports(units_of(rows, cells), padded[index])
        fit = Fit(supports, torch.from_numpy(targets)[index])
        limits = torch.stack([fit.error, 1.5 * fit.error], 1)
        far = Farthest(fit, limits, torch.full((60,), 0.01, dtype=torch.float64))
        return one_swaps([fit], [limits], enter, [far])[0], far

    together, farthest = run([0, 1, 2, 3, 4], 10_000)
    assert together.count[0].tolist() == [0, 0], "nothing can be swapped where nothing is active"
    for b in range(5):
        alone, far = run([b], 100)
        for name in ("count", "distinct", "unsigned", "passing", "droppable", "feature"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[b]), name
        assert torch.allclose(alone.error[0], together.error[b])
        for name in ("place", "row", "attainable"):
            assert torch.equal(getattr(far, name)[0], getattr(farthest, name)[b]), name
        assert torch.allclose(far.change[0], farthest.change[b])


def test_an_empty_place_is_no_feature_that_leaves() -> None:
    """A row that is added, and exchanged for none, makes a code of more features: no alternative.

    In a batch with a larger support the smaller one has an empty place, where the third row of four
    orthogonal ones would fit all that is left of (1, 0.5, 0.1, 0).
    """
    rows = torch.tensor([[0, 1, -1], [0, 1, 3]])
    target = torch.tensor([[1.0, 0.5, 0.1, 0.0]] * 2, dtype=torch.float64)
    fit = Fit(Supports(units_of(np.eye(4), 10_000), rows), target)
    limits = fit.error[:, None]
    far = Farthest(fit, limits, torch.zeros(4, dtype=torch.float64))
    (swaps,) = one_swaps([fit], [limits], torch.ones(4, dtype=torch.bool), [far])
    # Row 3 does nothing on the second token: row 2 may take its place, and no other.
    assert swaps.count.tolist() == [[0], [1]]
    assert far.attainable.tolist() == [[False], [True]]
    assert far.change[0].tolist() == [-1.0]
    assert (far.place.tolist(), far.row.tolist()) == ([[-1], [2]], [[-1], [2]])


@pytest.mark.parametrize("alpha", [5.0, 15.0, 33.0, 100.0])
def test_an_exact_triple_has_its_exchange_however_large_the_codes(alpha: float) -> None:
    """With f3 = f2 - alpha f1 codes (1, 1, 0) and (1 + alpha, 0, 1) fit a target alike."""
    rows = np.eye(3)
    rows[2] = rows[1] - alpha * rows[0]
    target = torch.tensor([[1.0, 1.0, 0.0, 0.3]], dtype=torch.float64)
    rows = np.pad(rows, ((0, 0), (0, 1)))
    fit = Fit(Supports(units_of(rows), torch.tensor([[0, 1]])), target)
    (swaps,) = one_swaps([fit], [fit.error[:, None]], torch.ones(3, dtype=torch.bool))
    assert swaps.count.tolist() == [[1]]
    assert swaps.feature[0, 1] == 2
    assert float(swaps.error[0, 1]) == pytest.approx(0.09, abs=1e-11)


def test_every_exchange_of_a_basis_is_counted_however_large_its_codes() -> None:
    """Four rows in four dimensions fit a target exactly, and so does any exchange of codes > 0."""
    rng = np.random.default_rng(0)
    tokens, count = 60, 30
    rows = rng.normal(size=(count, 4))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    supports = np.stack([rng.permutation(count)[:4] for _ in range(tokens)])
    targets = np.einsum("bk,bkd->bd", rng.exponential(size=(tokens, 4)), unit[supports])
    swapped = np.tile(unit[supports][:, None, None], (1, 4, count, 1, 1))
    for place in range(4):
        swapped[:, place, :, place] = unit
    enters = (supports[:, :, None] != np.arange(count)).all(1)[:, None, :]
    enters = np.broadcast_to(enters, (tokens, 4, count))
    swapped[~enters] = np.eye(4)  # rows of the support do not enter: no system of two alike
    codes = np.linalg.solve(swapped.swapaxes(3, 4), targets[:, None, None, :, None])[..., 0]
    counted = (codes > 0).all(3) & enters
    fit = Fit(Supports(units_of(rows), torch.from_numpy(supports)), torch.from_numpy(targets))
    limits = torch.zeros(tokens, 1, dtype=torch.float64)
    (swaps,) = one_swaps([fit], [limits], torch.ones(count, dtype=torch.bool))
    assert swaps.count[:, 0].tolist() == counted.sum((1, 2)).tolist()
