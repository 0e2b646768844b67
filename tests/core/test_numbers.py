from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeaudit.core import geometry
from saeaudit.core.exchange import exchange_classes, kernel, sign_pattern
from saeaudit.core.pairs import join
from saeaudit.core.rows import UnitRows, fold, round9, row_norms
from saeaudit.core.screen import (
    Rotation,
    calibrate,
    estimates,
    make_screen,
)
from saeaudit.core.sweep import sweep
from saeaudit.core.triples import near_cosine, second_cosine, strong_cosine

CPU = torch.device("cpu")


def units(rows: torch.Tensor) -> UnitRows:
    norms = row_norms(rows)
    live = (norms > 0).nonzero().squeeze(1)
    return UnitRows(rows, live, norms[live])


@given(st.lists(st.floats(-1e6, 1e6), max_size=40))
def test_fold_sums(values: list[float]) -> None:
    got = float(fold(torch.tensor(values, dtype=torch.float64)))
    assert got == pytest.approx(math.fsum(values), abs=1e-8)


def test_fold_has_one_order() -> None:
    assert fold(torch.tensor([1e16, 1.0, -1e16, 1.0])).tolist() == 0.0 + (1.0 + 1.0)


@given(st.floats(-1e8, 1e8))
def test_round9_is_what_nine_digits_print(value: float) -> None:
    got = float(round9(torch.tensor([value], dtype=torch.float64)))
    if abs(value) > 1e-13:
        assert got == pytest.approx(float(f"{value:.9g}"), rel=1.01e-9)
        assert float(f"{got:.9g}") == got
    else:
        assert abs(got - value) < 1e-21


def test_round9_is_exact_where_thresholds_are() -> None:
    grid = torch.tensor([0.9, 0.99, 0.5, 1.0, 0.1, 0.001, 0.2, 0.3], dtype=torch.float64)
    assert torch.equal(round9(grid * (1 + 1e-12)), grid)
    assert torch.equal(round9(grid * (1 - 1e-12)), grid)


@pytest.mark.parametrize("width", (1, 2, 7, 64, 384, 2304, 4097))
def test_rotation_keeps_cosines(width: int) -> None:
    rows = torch.eye(width)[: min(width, 40)] + 0.1 * torch.randn(min(width, 40), width)
    rotate = Rotation(width, CPU)
    assert rotate.p * rotate.q == rotate.width >= width
    turned = rotate(rows)
    assert torch.allclose(turned @ turned.T, rows @ rows.T, atol=2e-5)


ADVERSARIES = {
    "gaussian": lambda g: torch.randn(200, 96, generator=g),
    "one-hot": lambda g: torch.eye(96)[torch.randint(0, 96, (200,), generator=g)],
    "outliers": lambda g: torch.randn(200, 96, generator=g) * torch.logspace(-4, 3, 96),
    "equal": lambda g: torch.ones(200, 96),
    "low rank": lambda g: torch.randn(200, 2, generator=g) @ torch.randn(2, 96, generator=g),
    "narrow": lambda g: torch.randn(200, 3, generator=g),
    "huge": lambda g: torch.randn(200, 17, generator=g, dtype=torch.float64) * 1e200,
    "tiny": lambda g: torch.randn(200, 17, generator=g) * 1e-36,
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_slack_bounds_every_estimate(name: str, screen: str) -> None:
    rows = ADVERSARIES[name](torch.Generator().manual_seed(5))
    if name == "huge":  # squares overflow even float64: such rows count as not finite
        assert not row_norms(rows).isfinite().any()
        return
    made = units(rows)
    ready = make_screen(made, screen, CPU)
    i, j = torch.triu_indices(made.count, made.count, 1)
    exact = made.cosines(i, j)
    seen = torch.zeros(made.count)
    count = 0
    for hits in sweep(ready, 0.0, seen, tile=64):
        count += len(hits.i)
        truth = made.cosines(hits.i, hits.j)
        assert float((hits.cosine - truth).abs().max()) <= ready.slack
    assert count == len(i)  # a floor of zero proposes every pair, once
    largest = torch.zeros(made.count, dtype=torch.float64)
    largest.scatter_reduce_(0, i, exact.abs(), "amax")
    largest.scatter_reduce_(0, j, exact.abs(), "amax")
    assert float((seen - largest).abs().max()) <= ready.slack
    some = torch.tensor([0, 7, made.count - 1])
    whole = torch.cat([v for _, v in estimates(ready, some, block=50)], 1)
    for n, row in enumerate(some.tolist()):
        truth = made.cosines(torch.full((made.count,), row), torch.arange(made.count))
        truth[row] = 0
        assert float((whole[n] - truth).abs().max()) <= ready.slack


def test_sweep_proposes_each_pair_over_the_threshold(screen: str) -> None:
    made = units(torch.randn(700, 48, generator=torch.Generator().manual_seed(1)))
    ready = make_screen(made, screen, CPU)
    i, j = torch.triu_indices(700, 700, 1)
    exact = made.cosines(i, j)
    wanted = {
        (int(a), int(b)) for a, b in zip(i[exact.abs() >= 0.4], j[exact.abs() >= 0.4], strict=True)
    }
    for tile in (17, 256, 701):
        got = [
            pair
            for hits in sweep(ready, 0.4, torch.zeros(700), tile=tile)
            for pair in zip(hits.i.tolist(), hits.j.tolist(), strict=True)
        ]
        assert len(got) == len(set(got))
        assert wanted <= set(got)
        assert all(a < b for a, b in got)


def test_calibration_names_a_screen() -> None:
    assert calibrate(384, CPU) in ("fp32", "bf16", "int8")


@settings(max_examples=300)
@given(st.data())
def test_second_cosine_is_a_lower_bound(data: st.DataObject) -> None:
    """A random near-coplanar genuine triple satisfies both bounds of the search."""
    rho = data.draw(st.floats(0.01, 0.5))
    gamma = data.draw(st.floats(1.0, 4.0))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(3, 4))
    u[2] = rng.uniform(-2, 2) * u[0] + rng.uniform(-2, 2) * u[1] + rng.uniform(0, 0.5) * u[2]
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    lo, mid, hi = sorted(abs(float(u[a] @ u[b])) for a, b in ((0, 1), (0, 2), (1, 2)))
    gram = np.linalg.det(u @ u.T)
    r = math.sqrt(max(gram, 0) / (1 - lo * lo))
    s = math.sqrt(1 - hi * hi)
    if r <= rho and s > rho and s >= gamma * r:
        assert mid >= second_cosine(hi, rho, gamma) - 1e-9
        assert strong_cosine(rho, gamma) - 1e-9 <= hi < near_cosine(rho) + 1e-9


@pytest.mark.parametrize("rho", (1e-9, 0.05, 0.1, 0.2, 0.3, 0.5))
def test_strong_cosine_is_reached_by_three_equal_cosines(rho: float) -> None:
    """At the bound all three |c| are h with a negative product: r^2 = (1+h)(1-2h)/(1-h)."""
    h = strong_cosine(rho, 1.0)
    assert (1 + h) * (1 - 2 * h) / (1 - h) == pytest.approx(rho * rho, abs=1e-9)


@settings(max_examples=300)
@given(st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 2**32 - 1))
def test_exchange_classes_by_moving_codes(a: float, b: float, seed: int) -> None:
    if min(abs(a), abs(b)) < 1e-3:
        return
    rng = np.random.default_rng(seed)
    k = np.array(kernel(a, b))
    for support, said in zip(((0, 1), (0, 2), (1, 2)), exchange_classes(a, b), strict=True):
        (entering,) = {0, 1, 2} - set(support)
        outcomes = set()
        for _ in range(20):
            z = np.zeros(3)
            z[list(support)] = rng.uniform(0.1, 5, 2)
            step = k * np.sign(k[entering])
            falling = [p for p in support if step[p] < 0]
            moved = [z + step * (z[p] / -step[p]) for p in falling]
            outcomes.add(any((m > -1e-12).all() and m[entering] > 0 for m in moved))
        assert outcomes == {said == "always"}


def test_patterns() -> None:
    assert sign_pattern(-1, 1) == ("2,1", 1)  # u3 = u2 - u1: u2 is u1 + u3
    assert sign_pattern(0.5, 0.5) == ("2,1", 2)
    assert sign_pattern(1, -1) == ("2,1", 0)
    assert sign_pattern(-1, -1) == ("3,0", None)
    assert exchange_classes(-1, -1) == ("never", "never", "never")


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_join_finds_components(links: list[tuple[int, int]]) -> None:
    component = torch.arange(30)
    for start in range(0, len(links), 7):
        part = torch.tensor(links[start : start + 7])
        join(component, part[:, 0], part[:, 1])
    parent = list(range(30))

    def root(n: int) -> int:
        return n if parent[n] == n else root(parent[n])

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    assert component.tolist() == [root(n) for n in range(30)]


def test_welch_bound_and_uniqueness() -> None:
    assert geometry.welch_bound(100, 100) == 0.0
    mu = geometry.welch_bound(16384, 2304)
    assert mu == pytest.approx(math.sqrt((16384 - 2304) / (2304 * 16383)))
    assert math.floor(geometry.unique_below(mu)) == 26
    assert math.floor(geometry.unique_below(geometry.welch_bound(65536, 2304))) == 24
    assert geometry.unique_below(0.0) is None


@pytest.mark.parametrize(("count", "width"), ((50, 3), (400, 20), (1000, 100)))
def test_random_control_agrees_with_random_rows(count: int, width: int) -> None:
    rng = np.random.default_rng(0)
    maxima = []
    for _ in range(20):
        rows = rng.normal(size=(count, width))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = np.abs(rows @ rows.T)
        np.fill_diagonal(cosines, 0)
        maxima.append(cosines.max(1))
    for q in (0.05, 0.5, 0.95):
        drawn = float(np.mean([np.quantile(m, q) for m in maxima]))
        assert geometry.random_row_max(count, width, q) == pytest.approx(drawn, abs=0.012)
    assert geometry.random_row_max(16384, 2304, 0.5) == pytest.approx(0.0874, abs=0.004)
    assert geometry.random_row_max(1, 5, 0.5) == 0.0
    assert geometry.random_row_max(5, 1, 0.5) == 1.0
