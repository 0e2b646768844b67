"""Choices between codes: what they say of planted cases, and how far they hang on the prices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saeaudit import open as open_sae
from saeaudit.audit.codes import Coder
from saeaudit.audit.score.prices import Sample, Width, fit_activations
from saeaudit.audit.score.window import make_window
from saeaudit.audit.tokens import draw_tokens
from saeaudit.core.codes.choose import Chooser, Group
from saeaudit.core.codes.codelength import Counts, Prices
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.quantise import FINE, Grid
from saeaudit.core.codes.resamples import RESAMPLES, Resamples
from saeaudit.sources.activations import (
    parted_by,
    read_activations,
    read_tokens,
    sample_activations,
)
from tests.support.enumeration import units_of


def at_three_widths(counts: Counts) -> tuple[Prices, Prices, Prices]:
    return Prices(counts, 4), Prices(counts, 2), Prices(counts, 1)


def test_the_encoders_features_with_other_values_can_be_shortest() -> None:
    """A value just beside the bin where the feature's values are, within the encoder's error."""
    units = units_of(np.eye(3))
    counts = Counts(Grid(0.5, torch.zeros(3, dtype=torch.float64)))
    for half in (0, 1):
        index = torch.arange(3).repeat_interleave(40)
        often = torch.tensor([1.2] * 40 + [2.7] * 40 + [0.7] * 40, dtype=torch.float64)
        counts.add(index, often, 200, half=half)
    chooser = Chooser(units, at_three_widths(counts), 1.0)
    codes = torch.tensor([[2.2, 1.6]], dtype=torch.float64)
    target = torch.tensor([[1.45, 2.45, 0.1]], dtype=torch.float64)
    rows = torch.tensor([[1, 0]])
    fit = Fit(Supports(units, rows), target)
    decoded = (codes[:, None] @ fit.supports.vectors)[:, 0]
    group = Group(rows, codes, (target - decoded).square().sum(1))
    alternatives = chooser.alternatives(fit, group, torch.ones(3, dtype=torch.bool))
    (decision,) = chooser.decide(group, alternatives.candidates)
    assert decision.chosen == "support" and decision.support is not None
    values = alternatives.candidates.codes[decision.support]
    # 1.6 comes down into 1.0 to 1.5, 2.2 goes up to 2.5.
    assert 1.0 <= float(values[1]) < 1.5 and 2.5 <= float(values[0]) < 3.0
    bits = decision.compared[0]["bits"]
    prices = chooser.prices[0]
    shortest = prices.codes(rows, torch.tensor([[2.7, 1.2]], dtype=torch.float64))
    assert bits.support == pytest.approx(float(shortest))
    assert bits.reference == pytest.approx(float(prices.codes(rows, codes)))
    assert bits.reference > bits.support + 8
    assert decision.picks["bits"] == decision.support
    assert decision.resolved is None and decision.wins is None


def test_resampled_prices_against_counts_made_anew() -> None:
    rng = np.random.default_rng(0)
    features, parts, tokens, width = 6, 9, 400, 0.5
    part = rng.integers(parts, size=tokens)
    codes = rng.exponential(1.0, (tokens, features)) * (rng.random((tokens, features)) < 0.4)
    codes[:, 5] = 0  # never observed
    grid = Grid(width, torch.full((features,), 0.0, dtype=torch.float64))
    counts, resamples = Counts(grid), Resamples(grid, parts)
    for half, span in enumerate((slice(0, 150), slice(150, tokens))):
        token, index = codes[span].nonzero()
        values = torch.from_numpy(codes[span][token, index])
        counts.add(torch.from_numpy(index), values, len(codes[span]), half=half)
        resamples.add(
            torch.from_numpy(index), values, torch.from_numpy(token), torch.from_numpy(part[span])
        )
    for step in (FINE, FINE // 2, FINE // 4):
        prices = Prices(counts, step)
        rows = np.array([[0, 3, -1], [4, 1, 2], [5, 0, 0]])
        values = np.array([[0.3, 2.2, 0.0], [7.7, 0.9, 1.4], [1.0, 0.2, 0.0]])
        bits = resamples.at(prices).codes(torch.from_numpy(rows), torch.from_numpy(values))
        assert bits.shape == (3, RESAMPLES) and bool(bits[2].isinf().all())
        for r in (0, 7, 39):
            times = resamples.times[:, r].double().numpy()[part]
            for n in (0, 1):
                expected = 0.0
                for row, value in zip(rows[n], values[n], strict=True):
                    if not value:
                        continue
                    one = math.floor(value / (width * step / FINE))
                    bins = np.floor(codes[:, row] / (width * step / FINE))
                    on = codes[:, row] > 0
                    fired, there = times[on].sum(), times[on & (bins == one)].sum()
                    pool = 2 ** -float(prices.pooled(torch.tensor([row]), torch.tensor([one])))
                    share = (fired + 0.5) / (times.sum() + 1)
                    m = prices.strength
                    expected -= math.log2(share / (1 - share))
                    expected -= math.log2((there + m * pool) / (fired + m))
                assert float(bits[n, r]) == pytest.approx(expected, rel=1e-9)


def test_prices_of_other_texts_turn_hardly_a_choice_that_is_resolved() -> None:
    """Choices by one half of the documents, priced again by the other."""
    files = sample_activations("sample")
    assert files is not None
    dictionary, x = open_sae("sample"), read_activations([files[0]], 384).activations[:]
    documents = parted_by(read_tokens(files[1], len(x)))
    assert documents is not None
    coder = Coder(dictionary, "cpu")
    draw = draw_tokens(len(x), documents, 0)
    odd = draw.part[draw.others] % 2 == 1
    first, second = (
        fit_activations(coder, Sample(x, draw.others[half], draw.part), Width(0.28, "option"))
        for half in (odd, ~odd)
    )
    assert len(first.resampled) == 3
    chooser = Chooser(coder.units, first.prices, 1.0, first.resampled)
    other = Chooser(coder.units, second.prices, 1.0)
    window = make_window(coder, x, draw.measured[:300])
    sparse = window.tokens[(window.codes > 0).sum(1) <= 16][:60]
    turned: dict[bool, list[bool]] = {True: [], False: []}
    for _, fit, group in window.groups(sparse):
        candidates = chooser.alternatives(fit, group, coder.enter, norms=False).candidates
        for one, two in zip(
            chooser.decide(group, candidates, norms=False),
            other.decide(group, candidates, norms=False),
            strict=True,
        ):
            assert one.compared[0]["l1"].alternative is None and "l1" not in one.picks
            if one.resolved is not None and "bits" in two.picks:
                turned[one.resolved].append(one.picks["bits"] != two.picks["bits"])
    assert len(turned[True]) >= 8 and len(turned[False]) >= 20
    assert np.mean(turned[False]) > 0.3
    assert np.mean(turned[True]) <= 0.1
