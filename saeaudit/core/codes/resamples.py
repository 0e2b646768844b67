"""Prices refitted on resamples of what they were fitted on.

Prices are estimates: from other texts others would come out, and with them other choices. Each
resample counts every part of the sample (a document, where these are known: its tokens say the
same things) as often as a Poisson draw of mean 1 says. What a feature's price hangs on, how often
it fired and where its values fell, is counted anew; the width of the bins, the pooled distribution
and its weight, which all features' samples fix together, stay.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.budget import DEFAULT, Budget
from saeaudit.core.codes.codelength import Prices, merged
from saeaudit.core.codes.quantise import BINS, Grid

RESAMPLES = 40
"""Resamples: a share of 95 % is 38 of them."""


class Resamples:
    """Counts of (feature, fine bin) in R resamples."""

    def __init__(self, grid: Grid, parts: int, budget: Budget = DEFAULT) -> None:
        """Draw how often each of some parts is counted in each resample, always the same draws."""
        generator = torch.Generator().manual_seed(0)
        drawn = torch.poisson(torch.ones(parts, RESAMPLES), generator=generator)
        self.times = drawn.to(grid.anchor.device)
        """``[parts, R]`` float32."""
        self.tokens = torch.zeros(RESAMPLES, dtype=torch.float64, device=self.times.device)
        """``[R]``: tokens of each resample."""
        self._grid, self._most = grid, max(1, budget.samples // RESAMPLES)
        self._keys = torch.empty(0, dtype=torch.int64, device=self.times.device)
        self._counts = self.times[:0]
        self._waiting: list[tuple[Tensor, Tensor]] = []
        self._size = 0

    def add(self, index: Tensor, value: Tensor, token: Tensor, parts: Tensor) -> None:
        """Count the samples of some tokens.

        Args:
            index: ``[m]`` int64 features.
            value: ``[m]`` float64 activation-space values, > 0.
            token: ``[m]`` int64: which token each is of.
            parts: ``[n]`` int64: the part that each token is of, silent ones included.
        """
        parts = parts.to(self.times.device)
        self.tokens += self.times[parts].sum(0, dtype=torch.float64)
        bins = self._grid.fine(index, value).clamp_(min=0)
        self._waiting.append((index * BINS + bins, self.times[parts[token]]))
        self._size += len(index)
        if self._size > self._most:
            self._merge()

    def _merge(self) -> None:
        keys, counts = zip((self._keys, self._counts), *self._waiting, strict=True)
        self._keys, self._counts = merged(torch.cat(keys), torch.cat(counts))
        self._waiting, self._size = [], 0

    def at(self, prices: Prices) -> Resampled:
        """The same prices by these counts.

        Args:
            prices: fitted on the same samples.
        """
        self._merge()
        row, fine = self._keys // BINS, self._keys % BINS
        keys, counts = merged(row * BINS + fine // prices.step, self._counts)
        return Resampled(prices, keys, counts, self.tokens)


class Resampled:
    """Code lengths at one width of the bins, by R resamples."""

    def __init__(self, prices: Prices, keys: Tensor, counts: Tensor, tokens: Tensor) -> None:
        """Take counts ``[u, R]`` of ``keys [u]``, (feature, bin), among ``tokens [R]``."""
        self._prices, self._keys, self._counts, self._tokens = prices, keys, counts, tokens
        self._samples = counts.new_zeros(prices.features, counts.shape[1], dtype=torch.float64)
        self._samples.index_add_(0, keys // BINS, counts.double())

    def codes(self, rows: Tensor, values: Tensor) -> Tensor:
        """Description lengths beyond silence.

        Args:
            rows: ``[m, k]`` int64 features; any number where the value is not positive.
            values: ``[m, k]`` float64 activation-space values.

        Returns:
            ``[m, R]`` bits, infinite where a feature was never observed before resampling.
        """
        code, place = (values > 0).nonzero().unbind(1)
        index = rows[code, place]
        bins = self._prices.bins(index, values[code, place])
        pairs, inverse = torch.unique(torch.stack([index, bins]), dim=1, return_inverse=True)
        bits = self._bits(*pairs)
        out = bits.new_zeros(len(rows), bits.shape[1])
        return out.index_add_(0, code, bits[inverse])

    def _bits(self, index: Tensor, bins: Tensor) -> Tensor:
        """Bits ``[u, R]`` of features that are on with values in these bins, gates included."""
        samples, counts = (
            self._samples[index],
            self._counts.new_zeros(len(index), len(self._tokens)),
        )
        if len(self._keys):
            key = index * BINS + bins.clamp(min=0)
            at = torch.searchsorted(self._keys, key).clamp(max=len(self._keys) - 1)
            counted = (self._keys[at] == key) & (bins >= 0)
            counts = torch.where(counted[:, None], self._counts[at], 0.0)
        pooled = torch.exp2(-self._prices.pooled(index, bins))[:, None]
        on = (samples + 0.5) / (self._tokens + 1)
        strength = self._prices.strength
        value = (counts + strength * pooled) / (samples + strength)
        bits = -torch.log2(on / (1 - on) * value)
        return bits.masked_fill(~self._prices.observed[index][:, None], torch.inf)
