"""Swaps in closed form against enumeration: every subset of every swapped support, solved."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.swaps import one_swaps
from saeaudit.core.codes.tolerances import TOLERANCE
from tests.support.enumeration import exhaustive_nonnegative, least_squares, units_of

NEAR = 1e-7
"""Share of |target|^2 around a limit in which either answer is right."""


@st.composite
def problems(draw: st.DrawFn):
    """A dictionary of up to 24 rows in up to 8 dimensions, a support of up to 3, a target."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    width = draw(st.integers(2, 8))
    count = draw(st.integers(4, 24))
    rows = rng.normal(size=(count, width))
    kind = draw(st.sampled_from(["random", "conic", "twins", "triples"]))
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
    target = codes @ rows[support] + draw(st.sampled_from([0.0, 0.1, 1.0])) * rng.normal(size=width)
    return rows, support, target


@settings(max_examples=200, deadline=None)
@given(problems(), st.sampled_from([0.0, 0.01, 0.05, 0.3]), st.sampled_from([1.0, 1.2]))
def test_one_swap_equals_enumeration(problem, epsilon: float, reference: float) -> None:
    rows, support, target = problem
    if (target**2).sum() == 0:
        return
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if support:  # between those, what is a direction of its own is a matter of definition
        least = np.linalg.svd(unit[support], compute_uv=False)[-1]
        assume(least < 1e-9 or least > 1e-4)
    supports = Supports(units_of(rows, cells=64), torch.tensor([support], dtype=torch.int64))
    fit = Fit(supports, torch.from_numpy(target)[None])
    least = least_squares(unit[support], target)[1]
    size = float((target**2).sum())
    assert float(fit.error[0]) == pytest.approx(least, abs=1e-8 * size)
    limit = (1 + epsilon) ** 2 * reference * least
    enter = torch.ones(len(rows), dtype=torch.bool)
    enter[-1] = len(rows) - 1 in support
    (swaps,) = one_swaps([fit], [torch.tensor([[limit]], dtype=torch.float64)], enter, listing=True)
    (counted,) = one_swaps([fit], [torch.tensor([[limit]], dtype=torch.float64)], enter)
    for name in ("count", "unsigned", "passing", "feature"):
        assert torch.equal(getattr(counted, name), getattr(swaps, name)), name
    assert torch.allclose(counted.error, swaps.error, rtol=0, atol=1e-9 * size)
    found = {(support[i], j) for _, _, i, j in swaps.listed.tolist()}
    for i in swaps.droppable[0, 0].nonzero().flatten().tolist():
        found |= {(support[i], j) for j in range(len(rows)) if j not in support and enter[j]}
    sure, possible, unsigned = set(), set(), [0, 0]
    best: dict[int, float] = {}
    for place, i in enumerate(support):
        for j in range(len(rows)):
            if j in support or not enter[j]:
                continue
            swapped = [j if s == i else s for s in support]
            error = exhaustive_nonnegative(unit[swapped], target)
            if error <= limit + (TOLERANCE - NEAR) * size:
                sure.add((i, j))
            if error <= limit + (TOLERANCE + NEAR) * size:
                possible.add((i, j))
                best[place] = min(best.get(place, np.inf), error)
            free = least_squares(unit[swapped], target)[1]
            unsigned[0] += free <= limit + (TOLERANCE - NEAR) * size
            unsigned[1] += free <= limit + (TOLERANCE + NEAR) * size
    assert sure <= found <= possible
    assert len(found) == int(swaps.count)
    assert unsigned[0] <= int(swaps.unsigned) <= unsigned[1]
    removed = {support[i] for i in swaps.passing[0, 0].nonzero().flatten().tolist()}
    assert removed == {i for i, _ in found}
    for place, error in best.items():
        if (support[place], int(swaps.feature[0, place])) in found:
            assert float(swaps.error[0, place]) >= error - 1e-7 * size
        if not swaps.droppable[0, 0, place] and int(swaps.feature[0, place]) >= 0:
            assert float(swaps.error[0, place]) == pytest.approx(error, abs=1e-7 * size)


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
        return one_swaps([fit], [limits], enter)[0]

    together = run([0, 1, 2, 3, 4], 10_000)
    assert together.count[0].tolist() == [0, 0], "nothing can be swapped where nothing is active"
    for b in range(5):
        alone = run([b], 100)
        for name in ("count", "unsigned", "passing", "feature"):
            assert torch.equal(getattr(alone, name)[0], getattr(together, name)[b]), name
        assert torch.allclose(alone.error[0], together.error[b])
