"""The cheapest codes against exhaustive searches: in loops, and of every bin of every support."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saeaudit import open as open_sae
from saeaudit.audit.codes import Coder
from saeaudit.audit.score.prices import Sample, Width, fit_activations
from saeaudit.audit.score.window import make_window
from saeaudit.core.codes.cheapest import Cheapest, Measure, cheapest
from saeaudit.core.codes.codelength import Counts, Prices
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.lengths import Lengths
from saeaudit.core.codes.norms import Norms, Squares, Sums
from saeaudit.core.codes.quantise import FINE, Grid
from saeaudit.sources.activations import read_activations, sample_activations
from tests.support.descents import Case, entered, kept, least_norm, truly_least
from tests.support.enumeration import units_of

DOCS = Path(__file__).parents[3] / "docs"


def priced(rng: np.random.Generator, features: int, width: float, floor: float) -> Prices:
    """Prices of random values: every feature has its frequency and its scale."""
    counts = Counts(Grid(width, torch.full((features,), floor, dtype=torch.float64)))
    for half in (0, 1):
        often = rng.integers(3, 120, features)
        index = np.repeat(np.arange(features), often)
        values = floor + rng.exponential(rng.uniform(0.5, 2, features)[index])
        counts.add(torch.from_numpy(index), torch.from_numpy(values + 1e-6), 500, half=half)
    return Prices(counts, FINE)


def problem(seed: int, *, features: int, width: int, k: int, floor: float, bins: int = 200):
    """A dictionary with near-copies, a shrunk code and prices: for the search, and for loops."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(features, width))
    rows[-1] = rows[0] + 0.3 * rng.normal(size=width)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    support = rng.choice(features, k, replace=False).tolist()
    truth = floor + rng.exponential(size=k) + 0.2
    target = truth @ unit[support] + 0.1 * rng.normal(size=width)
    codes = np.maximum(truth - rng.uniform(0.1, 0.4), floor + 0.01)
    prices = priced(rng, features, 0.25, floor)
    index = torch.arange(features)
    table = [prices.gate + prices.bin_bits(index, torch.full_like(index, b)) for b in range(bins)]
    bits = torch.stack(table, 1).numpy()
    case = Case(unit, support, target, codes, np.full(features, floor), 0.25, bits)
    fit = Fit(Supports(units_of(rows), torch.tensor([support])), torch.from_numpy(target)[None])
    return case, fit, prices


def searched(fit: Fit, codes: np.ndarray, measure: Measure, **rest: float) -> Cheapest:
    z = torch.from_numpy(codes)[None]
    error = (fit.target - (z[:, None] @ fit.supports.vectors)[:, 0]).square().sum(1)
    enter = torch.ones(fit.supports.units.count, dtype=torch.bool)
    return cheapest(fit, (z, error), enter, measure, **rest)


@pytest.mark.parametrize("floor", [0.0, 0.7])
@pytest.mark.parametrize("seed", range(6))
def test_equals_a_search_of_every_row_in_loops(seed: int, floor: float) -> None:
    case, fit, prices = problem(seed, features=24, width=10, k=5, floor=floor)
    result = searched(fit, case.codes, Lengths(prices), window=math.inf)
    assert float(result.gap) == 0
    expected = {-1: kept(case)[1]}
    for row in set(range(24)) - set(case.support):
        expected[row] = entered(case, row)[1]
    listed = sorted(expected.values())[: result.cost.shape[1]]
    assert result.cost[0].tolist() == pytest.approx(listed, rel=1e-9)
    for row, cost in zip(result.row[0].tolist(), result.cost[0].tolist(), strict=True):
        assert math.isinf(cost) or cost == pytest.approx(expected[row], rel=1e-9)
    pruned = searched(fit, case.codes, Lengths(prices))
    assert float(pruned.cost[0, 0]) == pytest.approx(listed[0], rel=1e-9)
    assert float(pruned.gap) == 0
    assert int(pruned.solved) <= int(result.solved)


def test_no_code_is_cheaper_than_the_bound_and_most_are_the_cheapest() -> None:
    """Every bin of every support, on small ones."""
    exact, excess, bits = 0, 0.0, 0.0
    for seed in range(12):
        case, fit, prices = problem(seed, features=12, width=6, k=3, floor=(0.0, 0.7)[seed % 2])
        result = searched(fit, case.codes, Lengths(prices))
        cost = float(result.cost[0, 0])
        least = truly_least(case, case.support, cost, enters=False)
        for row in set(range(12)) - set(case.support):
            least = truly_least(case, [*case.support, row], least, enters=True)
        assert float(result.bound) < least + 1e-9
        exact += least == cost
        excess += cost - least
        bits += least
    assert exact >= 7
    assert excess / bits < 0.03
    page = " ".join((DOCS / "mathematics.md").read_text().split())
    assert (
        "on 12 small dictionaries (k = 3, F = 12, d = 6) it has the fewest bits on "
        f"{exact}, and {excess / 12:.1f} bits ({100 * excess / bits:.1f} %) too many on average"
    ) in page


@pytest.mark.parametrize("cost", [Sums, Squares])
@pytest.mark.parametrize("seed", range(5))
def test_least_norms_without_floors_are_those_of_every_support(seed: int, cost: type) -> None:
    case, fit, _ = problem(seed, features=20, width=8, k=4, floor=0.0)
    result = searched(fit, case.codes, Norms(torch.zeros(20, dtype=torch.float64), cost))
    power = 1 if cost is Sums else 2
    least = least_norm(case, case.support, power)
    assert float(result.support) == pytest.approx(least, rel=1e-9)
    for row in set(range(20)) - set(case.support):
        for i in range(4):
            swap = [*case.support[:i], row, *case.support[i + 1 :]]
            least = min(least, least_norm(case, swap, power))
    assert float(result.cost[0, 0]) == pytest.approx(least, rel=1e-9)
    assert float(result.gap) == 0
    assert float(result.bound) <= least * (1 + 1e-9)


@pytest.mark.parametrize("cost", [Sums, Squares])
def test_norms_honour_floors(cost: type) -> None:
    better = 0
    for seed in range(5):
        case, fit, _ = problem(seed, features=20, width=8, k=4, floor=0.7)
        measure = Norms(torch.full((20,), 0.7, dtype=torch.float64), cost)
        pruned = searched(fit, case.codes, measure)
        whole = searched(fit, case.codes, measure, window=math.inf)
        assert float(pruned.cost[0, 0]) == pytest.approx(float(whole.cost[0, 0]), rel=1e-9)
        codes, rows = pruned.codes[0, 0], pruned.rows[0, 0]
        assert bool(((codes == 0) | (codes >= 0.7)).all())
        decoded = codes[codes > 0].numpy() @ case.unit[rows[codes > 0]]
        assert ((case.target - decoded) ** 2).sum() <= case.limit * (1 + 1e-9)
        assert float(pruned.bound) <= float(pruned.cost[0, 0])
        better += float(pruned.cost[0, 0]) < float(measure.of(rows, torch.tensor(case.codes)[None]))
    assert better == 5


@pytest.fixture(scope="module")
def sample():
    """Three tokens of the bundled sample with 8 to 12 features, and prices."""
    files = sample_activations("sample")
    assert files is not None
    dictionary, x = open_sae("sample"), read_activations([files[0]], 384).activations[:]
    coder = Coder(dictionary, "cpu")
    sample = Sample(x, torch.arange(1000, 5000), torch.arange(5000) // 100)
    prices = fit_activations(coder, sample, Width(0.28, "option")).prices[0]
    window = make_window(coder, x, torch.arange(60))
    places = (window.codes > 0).sum(1).argsort(stable=True)[3:12:4]
    ((_, fit, group),) = window.groups(places)
    return coder, prices, fit, group


def test_the_sample_searched_whole(sample) -> None:
    """Rows that bounds rule out are solved as well: none has a cheaper code."""
    coder, prices, fit, group = sample
    reference, lengths = (group.codes, group.error), Lengths(prices)
    result = cheapest(fit, reference, coder.enter, lengths)
    assert float(result.gap.max()) == 0
    assert int(result.solved.max()) < 128
    every = cheapest(fit, reference, coder.enter, lengths, window=math.inf, most=2048)
    assert int(every.solved.sum()) > 1000
    torch.testing.assert_close(every.cost[:, 0], result.cost[:, 0], rtol=1e-9, atol=0)
    assert torch.equal(every.row[:, 0], result.row[:, 0])
    assert bool((result.bound <= result.cost[:, 0]).all())
    # What is reported is what it says: within the error, at that price, and no better than S.
    best, rows = result.codes[:, 0], result.rows[:, 0]
    torch.testing.assert_close(lengths.of(rows, best), result.cost[:, 0], rtol=1e-9, atol=1e-9)
    vectors = Supports(coder.units, rows).vectors
    error = (fit.target - (best[:, None] @ vectors)[:, 0]).square().sum(1)
    assert bool((error <= group.error * (1 + 1e-8)).all())
    assert bool(((best == 0) | (best >= lengths.floor[rows.clamp(min=0)])).all())
    assert bool(((best > 0).sum(1) <= (group.codes > 0).sum(1)).all())
    assert bool((result.cost[:, 0] <= result.support).all())
    assert bool((result.support <= lengths.of(group.rows, group.codes)).all())


def test_a_budget_says_what_it_leaves_open(sample) -> None:
    coder, prices, fit, group = sample
    reference, lengths = (group.codes, group.error), Lengths(prices)
    whole = cheapest(fit, reference, coder.enter, lengths)
    none = cheapest(fit, reference, coder.enter, lengths, most=0)
    assert none.cost.shape == (3, 1) and int(none.solved.sum()) == 0
    assert torch.equal(none.cost[:, 0], whole.support)
    assert float(none.gap.max()) > 0
    assert bool((none.cost[:, 0] - none.gap <= whole.cost[:, 0]).all())


@pytest.mark.parametrize("case", ["none", "one", "more than the width", "twins", "never seen"])
def test_supports_at_the_edges(case: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(12, 4))
    rows[1] = rows[0]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    support = {
        "none": [], "one": [2], "more than the width": [2, 3, 4, 5, 6, 7], "twins": [0, 1, 2],
        "never seen": [2, 3],
    }[case]  # fmt: skip
    codes = rng.uniform(0.5, 2, len(support))
    target = codes @ unit[support] + 0.05 * rng.normal(size=4)
    prices = priced(rng, 12, 0.25, 0.0)
    if case == "never seen":
        prices.samples[3] = 0
        prices.samples[8] = 0
    shape = torch.tensor([support], dtype=torch.int64).view(1, len(support))
    fit = Fit(Supports(units_of(rows), shape), torch.from_numpy(target)[None])
    result = searched(fit, codes, Lengths(prices))
    assert not bool(result.cost.isnan().any() | result.codes.isnan().any())
    best = float(result.cost[0, 0])
    assert best <= float(result.support) or math.isinf(best)
    assert best - float(result.gap) >= float(result.bound) - 1e-9
    if case == "none":
        assert best == 0 and float(result.gap) == 0 and int(result.solved) == 0
    if case == "never seen":
        assert math.isfinite(best) == (3 not in result.rows[0, 0][result.codes[0, 0] > 0])
        assert 8 not in result.row[0, :][result.cost[0].isfinite()]
    if case == "twins":  # what depends on each other has no bound to speak of, and says so
        assert float(result.bound) == 0


def test_a_zero_activation_beside_others_has_the_empty_code() -> None:
    case, fit, prices = problem(0, features=24, width=10, k=5, floor=0.0)
    alone = searched(fit, case.codes, Lengths(prices))
    supports = Supports(fit.supports.units, torch.tensor([case.support, [-1] * 5]))
    both = Fit(supports, torch.cat([fit.target, torch.zeros_like(fit.target)]))
    codes = torch.from_numpy(np.stack([case.codes, np.zeros(5)]))
    error = (both.target - (codes[:, None] @ supports.vectors)[:, 0]).square().sum(1)
    enter = torch.ones(24, dtype=torch.bool)
    result = cheapest(both, (codes, error), enter, Lengths(prices))
    assert result.cost[1].tolist() == [0, *[math.inf] * (result.cost.shape[1] - 1)]
    assert result.gap.tolist() == [0, 0] and int(result.solved[1]) == 0
    assert float(result.cost[0, 0]) == pytest.approx(float(alone.cost[0, 0]), rel=1e-9)


def test_the_other_code_of_an_exact_triple_is_solved_for() -> None:
    """The third row lies in the span of the code's features, and no error is to spare."""
    rows = np.eye(6)
    rows[2] = (rows[1] - rows[0]) / math.sqrt(2)
    counts = Counts(Grid(0.25, torch.zeros(6, dtype=torch.float64)))
    for half in (0, 1):
        often = torch.tensor([90, 3, 90, 20, 20, 20])
        index = torch.arange(6).repeat_interleave(often)
        values = torch.tensor([2.1, 1.1, 1.45, 1.1, 1.1, 1.1], dtype=torch.float64)[index]
        counts.add(index, values, 200, half=half)
    target = torch.tensor([[1, 1, 0.3, 0, 0, 0]], dtype=torch.float64)
    fit = Fit(Supports(units_of(rows), torch.tensor([[0, 1]])), target)
    result = searched(fit, np.ones(2), Lengths(Prices(counts, FINE)))
    assert result.row[0, 0] == 2 and float(result.gap) == 0
    codes = dict(zip(result.rows[0, 0].tolist(), result.codes[0, 0].tolist(), strict=True))
    assert codes == {0: pytest.approx(2), 1: 0, 2: pytest.approx(math.sqrt(2))}
    assert float(result.cost[0, 0]) < float(result.support) - 3


def test_in_an_exact_triple_the_row_takes_the_place_that_keeps_codes_positive() -> None:
    """f2 can take the place of f1 or of f3 = f2 - a f1 at the same error, and one leaves a code
    below 0: which of the two errors is rounded down must not decide."""
    rng = np.random.default_rng(0)
    for _ in range(40):
        rows = rng.normal(size=(12, 16))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        rows[2] = rows[1] - rng.uniform(0.2, 0.8) * rows[0]
        rows[2] /= np.linalg.norm(rows[2])
        codes = rng.uniform(0.5, 2, 3)
        target = torch.from_numpy(codes @ rows[[0, 2, 5]])[None]
        fit = Fit(Supports(units_of(rows), torch.tensor([[0, 2, 5]])), target)
        result = searched(fit, codes, Lengths(priced(rng, 12, 0.25, 0.0)), window=math.inf)
        assert 1 in result.row[0][result.cost[0].isfinite()].tolist()


class Largest(TorchDispatchMode):
    """Notes the most entries of a float64 tensor that an operation returns."""

    entries = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        out = operation(*arguments, **(keywords or {}))
        if isinstance(out, torch.Tensor) and out.dtype == torch.float64:
            self.entries = max(self.entries, out.numel())
        return out


def test_no_matrix_is_made_for_each_row_that_a_descent_takes_in() -> None:
    """Supports of many features: a matrix for each row would be most of what is held."""
    case, fit, prices = problem(0, features=60, width=40, k=34, floor=0.0)
    reference = torch.from_numpy(case.codes)[None]
    error = (fit.target - (reference[:, None] @ fit.supports.vectors).squeeze(1)).square().sum(1)
    enter = torch.ones(60, dtype=torch.bool)
    with Largest() as largest:
        result = cheapest(fit, (reference, error), enter, Lengths(prices), most=16)
    assert int(result.solved) == 16
    assert largest.entries < 13 * 35**2
