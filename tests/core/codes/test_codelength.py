"""Code lengths against entropies known in closed form, and a range coder's real bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saeaudit.core.budget import DEFAULT, Budget
from saeaudit.core.codes.codelength import Counts, Prices, Tail, bound, fit_tails
from saeaudit.core.codes.quantise import Grid, find_width
from tests.support.entropy import TOKENS, source


def test_bound() -> None:
    assert bound(768, 1, 7) == 5376
    assert bound(65, 25_000, 7) == pytest.approx(1404.6, abs=0.05)


def counted(codes: np.ndarray, width: float, windows: int = 10, budget: Budget = DEFAULT) -> Counts:
    counts = Counts(Grid(width, torch.zeros(codes.shape[1], dtype=torch.float64)), budget)
    for half, part in enumerate(np.array_split(codes, windows)):
        token, index = part.nonzero()
        value = torch.from_numpy(part[token, index])
        counts.add(torch.from_numpy(index), value, len(part), half=half % 2)
    return counts


def bits(prices: Prices, codes: np.ndarray) -> np.ndarray:
    values, rows = torch.from_numpy(codes).topk(int((codes > 0).sum(1).max()), dim=1)
    return prices.codes(rows, values).numpy()


@pytest.mark.parametrize("kind", ["bernoulli", "geometric", "uniform"])
def test_true_entropies(kind: str) -> None:
    codes, width, entropy = source(kind, np.random.default_rng(1))
    prices = Prices(counted(codes[TOKENS // 5 :], width))
    found = bits(prices, codes[: TOKENS // 5])
    error = found.std() / math.sqrt(len(found))
    assert found.mean() == pytest.approx(entropy, rel=0.01)
    assert found.mean() > entropy - 4 * error
    gates, values = prices.entropy()
    assert gates + values == pytest.approx(entropy, rel=0.01)


@pytest.mark.parametrize("kind", ["geometric", "uniform"])
def test_float32_values_on_the_edges_of_bins(kind: str) -> None:
    codes, width, _ = source(kind, np.random.default_rng(2))
    rounded = codes.astype(np.float32).astype(np.float64)
    same = [Prices(counted(c, width)).entropy() for c in (codes, rounded)]
    assert same[0] == pytest.approx(same[1], rel=1e-3)


def test_probabilities_sum_to_one() -> None:
    rng = np.random.default_rng(3)
    codes = (rng.random((3000, 5)) < 0.2) * rng.exponential(1.0, (3000, 5))
    for step in (4, 2, 1):
        prices = Prices(counted(codes, 0.3), step)
        index = torch.arange(5).repeat_interleave(4001)
        every = torch.arange(-1, 4000).repeat(5)  # one bin below the threshold, and the tail
        total = torch.exp2(-prices.bin_bits(index, every)).view(5, -1).sum(1)
        assert total.tolist() == pytest.approx([1.0] * 5, abs=1e-6)


def test_finer_bins_cost_what_they_should() -> None:
    """A smooth density costs one bit more for each halving of the bins."""
    rng = np.random.default_rng(4)
    codes = (rng.random((60_000, 4)) < 0.5) * rng.gamma(4.0, 1.0, (60_000, 4))
    counts = counted(codes, 0.4)
    values = [Prices(counts, step).entropy()[1] for step in (4, 2, 1)]
    active = (codes > 0).sum(1).mean()
    assert np.diff(values) / active == pytest.approx([1.0, 1.0], abs=0.02)


def test_unseen_values_and_features() -> None:
    codes = np.zeros((1000, 3))
    codes[::10, 0] = 1.0
    codes[::5, 1] = np.linspace(1, 3, 200)
    prices = Prices(counted(codes, 0.25))
    assert prices.observed.tolist() == [True, True, False]
    seen, far, further = prices.value(torch.tensor([0, 0, 0]), torch.tensor([1.0, 9.0, 90.0]))
    assert 0 < seen < far < further < math.inf
    assert prices.on[2] == pytest.approx(-math.log2(0.5 / 1001))


def test_a_value_below_the_threshold_has_a_price() -> None:
    grid = Grid(0.1, torch.full((2,), 1.0, dtype=torch.float64))
    counts = Counts(grid)
    rng = np.random.default_rng(0)
    counts.add(torch.zeros(500).long(), torch.from_numpy(1 + rng.exponential(1, 500)), 900, half=0)
    prices = Prices(counts)
    above, below = prices.value(torch.tensor([0, 0]), torch.tensor([1.05, 0.95]).double())
    assert above + 5 < below < math.inf
    assert int(prices.bins(torch.tensor([0]), torch.tensor([1.0]).double())) == 0


def test_a_heavy_tail_is_priced_as_one() -> None:
    rng = np.random.default_rng(5)
    codes = np.ones((60_000, 1)) * rng.pareto(1.5, (60_000, 1)) + 1e-9
    prices = Prices(counted(codes, 0.5))
    assert prices.tail.kind == "pareto"
    assert prices.tail.shape == pytest.approx(1 / 1.5, rel=0.25)
    light = Prices(counted(rng.exponential(1, (60_000, 1)), 0.05))
    assert light.tail.kind == "geometric"
    assert light.tail.scale == pytest.approx(math.exp(-0.05), rel=0.01)


def test_tails_sum_to_one() -> None:
    bins = torch.arange(2_000_000).double()
    for tail in (Tail("geometric", 0.9, 0.0), Tail("pareto", 3.0, 0.4)):
        assert float(torch.exp2(-tail.bits(bins)).sum()) == pytest.approx(1, abs=1e-5)
    assert [t.kind for t in fit_tails(torch.zeros(0).double(), torch.zeros(0).double())] == [
        "geometric"
    ]


def test_merging_does_not_change_counts() -> None:
    codes, width, _ = source("geometric", np.random.default_rng(6))
    whole = counted(codes[:5000], width, windows=50)
    whole.merge()
    often = counted(codes[:5000], width, windows=50, budget=Budget(samples=100))
    often.merge()
    assert torch.equal(whole.keys, often.keys)
    assert torch.equal(whole.weights, often.weights)
    assert len(whole.keys) < 24 * 4 * 60 * 2  # bounded by features times bins


def test_find_width() -> None:
    assert find_width(0.5, 1.0, lambda w: w * w) == pytest.approx(math.sqrt(0.5), rel=1e-3)
    assert find_width(50.0, 1.0, lambda w: w * w) == pytest.approx(math.sqrt(50), rel=1e-3)


def test_gates_of_the_worked_example() -> None:
    counts = Counts(Grid(1.0, torch.zeros(2, dtype=torch.float64)))
    index = torch.tensor([0] * 10_000 + [1] * 1_000)
    counts.add(index, torch.full((len(index),), 0.5).double(), 1_000_000, half=0)
    often, seldom = Prices(counts).gate.tolist()
    assert seldom - often == pytest.approx(3.335, abs=1e-3)


@pytest.mark.parametrize(("sigma", "bits"), [(2.0, 2.71), (4.0, 0.68)])
def test_values_of_the_worked_example(sigma: float, bits: float) -> None:
    """A half-normal f1 pays (a^2 + 2a) / (2 sigma^2 ln 2) bits to go from 1 to 1 + a, a = 3."""
    values = torch.from_numpy(np.abs(np.random.default_rng(0).normal(0, sigma, 2_000_000)))
    counts = Counts(Grid(0.2, torch.zeros(1, dtype=torch.float64)))
    counts.add(torch.zeros(len(values)).long(), values, len(values), half=0)
    one, four = Prices(counts).value(torch.tensor([0, 0]), torch.tensor([0.9, 3.9]).double())
    # At bin centres, so that the density is that of the value.
    exact = (3.9**2 - 0.9**2) / (2 * sigma**2 * math.log(2))
    assert float(four - one) == pytest.approx(exact, abs=0.03)
    assert exact == pytest.approx(bits * (3.9**2 - 0.9**2) / 15, abs=0.01)


def worked(seldom: int, sigma: float, sigma3: float) -> tuple[float, float, float]:
    """Bits of z = (1, 1, 0) and of z' = (4, 0, 3.1623), and the closed form of the difference.

    f1 and f2 fire on 1 % of 200,000 tokens, f3 on `seldom`; values are half-normal.
    """
    tokens, often = 200_000, 2_000
    rng = np.random.default_rng(0)
    counts = Counts(Grid(0.5, torch.zeros(3, dtype=torch.float64)))
    for half in (0, 1):
        counts.tokens += tokens / 2
        for feature, count, scale in ((0, often, sigma), (1, often, sigma), (2, seldom, sigma3)):
            values = torch.from_numpy(np.abs(rng.normal(0, scale, count // 2)))
            counts.add(torch.full((count // 2,), feature), values, 0, half=half)
    prices = Prices(counts)
    rows = torch.tensor([[0, 1], [0, 2]])
    codes = torch.tensor([[1.0, 1.0], [4.0, 10**0.5]], dtype=torch.float64)
    before, after = prices.codes(rows, codes).tolist()
    index = torch.tensor([0, 0, 2, 1])
    value = prices.value(index, torch.tensor([4.0, 1.0, 10**0.5, 1.0], dtype=torch.float64))
    gate = prices.gate
    form = (value[0] - value[1]) + (gate[2] + value[2]) - (gate[1] + value[3])
    return before, after, float(form)


def test_the_margin_in_bits_and_when_mdl_disagrees_with_l1() -> None:
    before, after, form = worked(seldom=200, sigma=4.0, sigma3=4.0)
    assert after - before == pytest.approx(form, abs=1e-9)
    # f1's value 0.68 bits, the gates 3.335, f3's value against f2's 0.45.
    assert after - before == pytest.approx(0.68 + 3.335 + 0.45, abs=0.6)
    # A frequent, wide f3 is the shorter way to say it, though L1 and L2 both grow.
    before, after, form = worked(seldom=60_000, sigma=4.0, sigma3=4.0)
    assert after < before
    assert after - before == pytest.approx(form, abs=1e-9)


def test_a_range_coder_needs_as_many_bits() -> None:
    """The same model drives constriction's range coder on the sample's codes."""
    constriction = pytest.importorskip("constriction", reason="constriction is not installed")
    from saeaudit import open as open_sae
    from saeaudit.audit.codes import Coder
    from saeaudit.audit.score.options import ScoreOptions
    from saeaudit.audit.score.prices import Sample, choose_width, fit_activations
    from saeaudit.audit.score.window import make_window
    from saeaudit.sources.activations import read_activations, sample_activations

    files = sample_activations("sample")
    assert files is not None
    x = read_activations([files[0]], 384).activations[:]
    coder = Coder(open_sae("sample"), "cpu")
    tokens = torch.arange(1000, len(x))
    width = choose_width(coder, make_window(coder, x, tokens[:2048]), ScoreOptions())
    sample = Sample(x, tokens, torch.arange(len(x)) // 20)
    fitted = fit_activations(coder, sample, width)
    prices = fitted.prices[0]
    codes = coder.encode(x, torch.arange(400)).codes
    on = (codes > 0).to(torch.int32).numpy()
    encoder = constriction.stream.queue.RangeEncoder()
    share = torch.exp2(-prices.on).expand(len(on), -1).reshape(-1).numpy().copy()
    bernoulli = constriction.stream.model.Bernoulli(perfect=True)
    encoder.encode(on.reshape(-1).copy(), bernoulli, share)
    token, index = (codes > 0).nonzero().unbind(1)
    value = codes[token, index]
    bins = prices.bins(index, value)
    size = 200
    assert int(bins.max()) < size - 1
    every = torch.arange(size)
    table = torch.stack(
        [torch.exp2(-prices.bin_bits(torch.full((size,), int(i)), every)) for i in index]
    )
    table[:, -1] += 1 - table.sum(1)  # what lies past the last bin and below the threshold
    family = constriction.stream.model.Categorical(perfect=False)
    symbols = bins.to(torch.int32).numpy()
    encoder.encode(symbols, family, table.numpy())
    values, rows = codes.topk(int((codes > 0).sum(1).max()), dim=1)
    said = float(prices.codes(rows, values).sum())
    assert encoder.num_bits() == pytest.approx(said, rel=0.01)
    decoder = constriction.stream.queue.RangeDecoder(encoder.get_compressed())
    assert (decoder.decode(bernoulli, share) == on.reshape(-1)).all()
    assert (decoder.decode(family, table.numpy()) == symbols).all()
