"""Description length of codes in bits: per-feature on/off probabilities and value distributions.

Features are coded independently. A feature is on with probability ``(n + 1/2) / (N + 1)``; its
value, in activation space (code times decoder norm) and counted from its threshold, falls into bins
of one common width. The distribution over bins is the feature's own histogram with the pooled one
as a Dirichlet prior of total weight m,

    q_i(b) = (n_ib + m p(b)) / (n_i + m),

with m chosen by leaving each sample out in turn. The pooled distribution is Krichevsky-Trofimov
smoothed (half a count a bin); past its 99th percentile it goes on as a tail, geometric or
generalised Pareto, whichever codes the other half of the tokens in fewer bits. A share of half a
count lies below the threshold, where an encoder never goes but an alternative code may.

After Ayonrinde, Pearce and Sharkey (arXiv 2410.11179); what they leave open is decided here.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.budget import DEFAULT, Budget
from saeaudit.core.codes.quantise import BINS, FINE, Grid

LOW_COVERAGE = 50
"""Under this many samples a feature's values are mostly priced by the pool."""
STRENGTHS = tuple(2.0**e for e in range(-1, 12))
"""Weights m of the pooled distribution to choose from."""
LEAST_SHAPE, MOST_SHAPE = 1e-3, 0.95
"""A generalised Pareto tail's shape: below, it is a geometric one; from 1 on it has no mean."""
TAIL = 0.01
"""Share of the pooled samples that its tail is fitted to."""
LONGEST_BODY = 1 << 22
"""Bins of the pooled distribution that are kept one by one, 8 bytes each; all beyond are tail."""


def bound(l0: float, features: int, bits: float) -> float:
    """Bits of a code with `l0` active features: each names itself and has a value of `bits`."""
    return l0 * (bits + math.log2(features))


class Counts:
    """Counts of (feature, fine bin), sparse: what is kept is bounded by features times bins.

    Two more rows, F and F + 1, hold the pooled counts of two halves of the tokens.
    """

    def __init__(self, grid: Grid, budget: Budget = DEFAULT) -> None:
        self.grid, self._budget = grid, budget
        self.features = len(grid.anchor)
        self.tokens = 0.0
        device = grid.anchor.device
        self.keys = torch.empty(0, dtype=torch.int64, device=device)
        self.weights = torch.empty(0, dtype=torch.float64, device=device)
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._size = 0

    def add(
        self, index: Tensor, value: Tensor, tokens: float, *, half: int,
        weight: Tensor | None = None,
    ) -> None:  # fmt: skip
        """Count samples.

        Args:
            index: ``[m]`` int64 features.
            value: ``[m]`` float64 activation-space values, > 0.
            tokens: tokens that they come from, silent ones included.
            half: 0 or 1: which half of the tokens.
            weight: ``[m]`` counts; 1 each where None.
        """
        bins = self.grid.fine(index, value).clamp_(min=0)
        weight = torch.ones_like(value) if weight is None else weight
        self.tokens += tokens
        self._waiting.append((index * BINS + bins, weight))
        self._waiting.append(((self.features + half) * BINS + bins, weight))
        self._size += 2 * len(index)
        if self._size > self._budget.samples:
            self.merge()

    def merge(self) -> None:
        """Merge what waits."""
        if self._waiting:
            keys, weights = zip(*self._waiting, strict=True)
            self.keys, self.weights = merged(
                torch.cat([self.keys, *keys]), torch.cat([self.weights, *weights])
            )
        self._waiting, self._size = [], 0


def merged(keys: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Keys ``[u]``, each once, ascending, with the sums ``[u, ...]`` of their weights."""
    keys, inverse = torch.unique(keys, return_inverse=True)
    return keys, weights.new_zeros(len(keys), *weights.shape[1:]).index_add_(0, inverse, weights)


class Tail(NamedTuple):
    """Probabilities of bins 0, 1, … past the body of a histogram."""

    kind: str
    """"geometric" or "pareto"."""
    scale: float
    """Ratio of successive bins; or the generalised Pareto scale in bins."""
    shape: float
    """Generalised Pareto shape, > 0; 0 for a geometric tail."""

    def bits(self, bins: Tensor) -> Tensor:
        """Code length of each bin ``[m]`` float64, >= 0."""
        if self.kind == "geometric":
            out: Tensor = -(bins * math.log(self.scale) + math.log1p(-self.scale))
        else:
            start = -torch.log1p(self.shape * bins / self.scale) / self.shape
            end = -torch.log1p(self.shape * (bins + 1) / self.scale) / self.shape
            out = -(start + torch.log(-torch.expm1(end - start)))
        return out / math.log(2)


def fit_tails(bins: Tensor, weights: Tensor) -> list[Tail]:
    """A geometric tail by its mean, and a generalised Pareto one where its shape is positive.

    The latter by probability-weighted moments (Hosking and Wallis 1987), samples at bin centres.

    Args:
        bins: ``[u]`` float64 ascending, from 0.
        weights: ``[u]`` counts.
    """
    total = float(weights.sum())
    mean = (float((bins * weights).sum()) + 0.5) / (total + 1)
    tails = [Tail("geometric", mean / (1 + mean), 0.0)]
    if total >= LOW_COVERAGE:
        value = bins + 0.5
        above = (total - weights.cumsum(0) + 0.5 * weights) / total
        first = float((value * weights).sum()) / total
        second = float((value * weights * above).sum()) / total
        if first > 2 * second > 0:
            shape = 2 - first / (first - 2 * second)
            if LEAST_SHAPE < shape < MOST_SHAPE:
                scale = 2 * first * second / (first - 2 * second)
                tails.append(Tail("pareto", scale, shape))
    return tails


class Prices:
    """Code lengths at one width of the bins: the common one, a half or a quarter of it.

    Example: ``Prices(counts).codes(tensor([[3, 7]]), tensor([[1.5, 0.2]]))`` are the bits of a
    token on which feature 3 has the value 1.5 and feature 7 the value 0.2, all silent features
    included; ``Prices(counts, FINE // 2)`` prices the same samples in bins of half the width.
    """

    def __init__(self, counts: Counts, step: int = FINE) -> None:
        """Fit.

        Args:
            counts: merged or not.
            step: fine bins to a bin: 4, 2 or 1.
        """
        counts.merge()
        self.grid, self.step, self.features = counts.grid, step, counts.features
        self.tokens = counts.tokens
        row, fine = counts.keys // BINS, counts.keys % BINS
        keys, weights = merged(row * BINS + fine // step, counts.weights)
        row = keys // BINS
        pooled = row >= self.features
        self._keys, self._weights = keys[~pooled], weights[~pooled]
        self.samples = torch.zeros(self.features, dtype=torch.float64, device=keys.device)
        self.samples.index_add_(0, row[~pooled], self._weights)
        """``[F]``: how often each feature fired."""
        halves = [(keys[row == self.features + h] % BINS, weights[row == self.features + h])
                  for h in (0, 1)]  # fmt: skip
        self._pool(halves)
        on = (self.samples + 0.5) / (self.tokens + 1)
        self.on, self.off = -torch.log2(on), -torch.log2(1 - on)
        """``[F]``: bits to say that a feature is on, or off."""
        self.silence = float(self.off.sum())
        """Bits of a token without active features."""
        self.strength = self._choose_strength()

    @property
    def gate(self) -> Tensor:
        """``[F]``: what being on costs beyond being off."""
        return self.on - self.off

    @property
    def observed(self) -> Tensor:
        """``[F]`` bool: features that fired at all; others have no price of their own."""
        return self.samples > 0

    def value_range(self) -> float:
        """Largest less least value counted, in activation space; at least one bin."""
        width = self.grid.width * self.step / FINE
        low = self.grid.anchor[self._keys // BINS] + width * (self._keys % BINS)
        return float(low.max() - low.min()) + width if len(low) else width

    def _pool(self, halves: list[tuple[Tensor, Tensor]]) -> None:
        bins, weights = merged(
            torch.cat([halves[0][0], halves[1][0]]), torch.cat([halves[0][1], halves[1][1]])
        )
        total = float(weights.sum())
        after = total - weights.cumsum(0)
        # The body ends where no more than a share of the samples is left.
        last = int((after > max(TAIL * total, 0.5)).sum())
        body = min(int(bins[last]) + 1, LONGEST_BODY) if len(bins) else 1
        inside = bins < body
        count = torch.zeros(body, dtype=torch.float64, device=bins.device)
        count[bins[inside]] = weights[inside]
        beyond = float(weights[~inside].sum())
        whole = total + 0.5 * (body + 2)
        self._body = -torch.log2((count + 0.5) / whole)
        self._beyond = -math.log2((beyond + 0.5) / whole)
        self._below = -math.log2(0.5 / whole)
        sides = [((b[b >= body] - body).double(), w[b >= body]) for b, w in halves]
        self.tail = self._choose_tail(sides)

    @staticmethod
    def _choose_tail(sides: list[tuple[Tensor, Tensor]]) -> Tail:
        """Fit to one half, try on the other, both ways; then fit the winner to both."""
        bits: dict[str, float] = {}
        for fitted, tried in (sides, sides[::-1]):
            for tail in fit_tails(*fitted):
                bins, weights = tried
                cost = float((tail.bits(bins) * weights).sum())
                bits[tail.kind] = bits.get(tail.kind, 0.0) + cost
        both = merged(
            torch.cat([sides[0][0], sides[1][0]]).long(), torch.cat([sides[0][1], sides[1][1]])
        )
        tails = fit_tails(both[0].double(), both[1])
        pareto = bits.get("pareto", math.inf) < bits["geometric"]
        return tails[-1] if pareto else tails[0]

    def pooled(self, index: Tensor, bins: Tensor) -> Tensor:
        """Bits of bins ``[m]`` under the pooled distribution."""
        size = len(self._body)
        bits = self._body[bins.clamp(0, size - 1)]
        tail = self._beyond + self.tail.bits((bins - size).clamp(min=0).double())
        bits = torch.where(bins >= size, tail, bits)
        width = self.grid.width * self.step / FINE
        places = (self.grid.anchor[index] / width).ceil().clamp(min=1)
        return torch.where(bins < 0, self._below + places.log2(), bits)

    def _choose_strength(self) -> float:
        index = self._keys // BINS
        pooled = torch.exp2(-self.pooled(index, self._keys % BINS))
        # Each sample in turn is left out of its bin's count and of its feature's.
        in_bin = (self._weights - 1).clamp(min=0)
        in_all = (self.samples[index] - 1).clamp(min=0)

        def cost(m: float) -> float:
            return -float((self._weights * ((in_bin + m * pooled) / (in_all + m)).log2()).sum())

        return min(STRENGTHS, key=cost) if len(index) else STRENGTHS[0]

    def value(self, index: Tensor, value: Tensor) -> Tensor:
        """Bits of values ``[m]`` of features ``index [m]`` that are on."""
        return self.bin_bits(index, self.bins(index, value))

    def bins(self, index: Tensor, value: Tensor) -> Tensor:
        """Bin of each value, counted from the feature's threshold."""
        return self.grid.fine(index, value).div(self.step, rounding_mode="floor")

    def bin_bits(self, index: Tensor, bins: Tensor) -> Tensor:
        """Bits of bins ``[m]`` of features ``index [m]`` that are on."""
        if not len(index):
            return torch.zeros(0, dtype=torch.float64, device=index.device)
        counted = torch.zeros(len(index), dtype=torch.float64, device=index.device)
        if len(self._keys):
            key = index * BINS + bins.clamp(min=0)
            at = torch.searchsorted(self._keys, key).clamp(max=len(self._keys) - 1)
            counted = torch.where((self._keys[at] == key) & (bins >= 0), self._weights[at], 0.0)
        pooled = torch.exp2(-self.pooled(index, bins))
        m = self.strength
        return -torch.log2((counted + m * pooled) / (self.samples[index] + m))

    def least_value(self) -> Tensor:
        """``[F]``: no value of a feature takes fewer bits, its gate apart."""
        m = self.strength
        body = torch.exp2(-self._body.amin())
        tail = torch.exp2(-(self._beyond + self.tail.bits(torch.zeros_like(self._body[:1]))))
        most = torch.full_like(self.samples, m * float(torch.maximum(body, tail)))
        index = self._keys // BINS
        pooled = torch.exp2(-self.pooled(index, self._keys % BINS))
        most.scatter_reduce_(0, index, self._weights + m * pooled, "amax")
        return -torch.log2(most / (self.samples + m))

    def codes(self, rows: Tensor, values: Tensor) -> Tensor:
        """Description lengths of sparse codes.

        Args:
            rows: ``[B, k]`` int64 features; any number where the value is not positive.
            values: ``[B, k]`` float64 activation-space values.

        Returns:
            ``[B]`` bits.
        """
        active = values > 0
        bits = torch.zeros_like(values)
        index = rows[active]
        bits[active] = self.gate[index] + self.value(index, values[active])
        return self.silence + bits.sum(1)

    def table(self, bins: int) -> Tensor:
        """``[F, bins]`` float32: bits of the first bins; the last column stands for all beyond."""
        features = torch.arange(self.features, device=self.samples.device)
        columns = [self.bin_bits(features, torch.full_like(features, b)) for b in range(bins)]
        return torch.stack(columns, 1).float()

    def entropy(self) -> tuple[float, float]:
        """Mean bits a token of the samples that were fitted: for on and off, and for values."""
        share = self.samples / self.tokens
        gates = float((share * self.on + (1 - share) * self.off).sum())
        values = self.bin_bits(self._keys // BINS, self._keys % BINS)
        return gates, float((values * self._weights).sum()) / self.tokens
