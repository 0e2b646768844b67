"""How often features fire, alone and together, and how strongly, counted while tokens go by.

Nothing of a token is kept: what is held grows with the features and the sets of features that are
watched, and not with the tokens. All counts are kept on the CPU and added in the order of the
tokens, so that they do not depend on the device.

Intervals are by a bootstrap over documents (or blocks): in each of `RESAMPLES` resamples every
document counts as often as a Poisson draw of mean 1 says, always the same draws.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saeaudit.core.calibration import ENDS, LEAST_UNITS, LEAST_VALUES
from saeaudit.core.rows import spans
from saeaudit.vocabulary import MAGNITUDE_BINS as BINS

RESAMPLES = 200
"""Resamples of the documents."""
UNITS = 1 << 14
"""Documents drawn by themselves; of more, those that leave the same remainder are drawn as one."""
LARGEST = 3
"""Features of a set, at most."""
AT_ONCE = 1 << 20
"""Memberships (an active feature of a token in a set) looked at in one step."""


class Histograms:
    """Counts of positive values in 50 bins a row, the range of which grows as they come.

    A row's bins are those of ``[0, 2^e)`` for the least e that no value reaches. When a larger
    value comes, bins are merged two by two: counts are as all values at once would give them.

    >>> histograms = Histograms(1)
    >>> histograms.add(torch.tensor([0, 0]), torch.tensor([0.25, 1.0]))
    >>> float(histograms.widths), histograms.counts[0].nonzero().squeeze(1).tolist()
    (0.04, [6, 25])
    """

    def __init__(self, rows: int) -> None:
        self.counts = torch.zeros(rows, BINS, dtype=torch.int64)
        """``[rows, 50]`` int64."""
        self._exponents = torch.full((rows,), LEAST_EXPONENT, dtype=torch.int64)

    @property
    def widths(self) -> Tensor:
        """``[rows]`` float64: of a row's bins; says nothing of a row without values."""
        return torch.from_numpy(np.ldexp(1.0, self._exponents.numpy())) / BINS

    def add(self, row: Tensor, value: Tensor) -> None:
        """Count values ``[e]`` float64, > 0 and finite, of ``row [e]`` int64."""
        exponent = torch.frexp(value).exponent.long()
        wanted = self._exponents.scatter_reduce(0, row, exponent, "amax")
        self._widen(wanted)
        place = np.ldexp((BINS * value).numpy(), -wanted[row].numpy())
        bins = row * BINS + torch.from_numpy(place).long()
        self.counts += torch.bincount(bins, minlength=self.counts.numel()).view_as(self.counts)

    def _widen(self, wanted: Tensor) -> None:
        wider = (wanted > self._exponents).nonzero().squeeze(1)
        steps = (wanted - self._exponents)[wider].clamp(max=BINS)
        before = self.counts[wider]
        place = torch.arange(BINS) >> steps[:, None]
        self.counts[wider] = torch.zeros_like(before).scatter_add_(1, place, before)
        self._exponents = wanted


LEAST_EXPONENT = -1080
"""No positive float64 is below 2 to the power of this."""


class Share(NamedTuple):
    """Some shares or ratios, and the ends of their intervals."""

    value: Tensor
    """``[m]`` float64; NaN where it is not defined."""
    low: Tensor
    """``[m]`` float64; NaN where there is no interval."""
    high: Tensor
    """``[m]`` float64, likewise."""


class Firing:
    """Counts how features fire, and how the features of some sets do together."""

    def __init__(self, sets: Sequence[tuple[int, ...]], features: int, part: Tensor) -> None:
        """Begin.

        Args:
            sets: two or three different features each.
            features: how many there are.
            part: ``[N]`` int64: the document or block of each token.
        """
        self.sets = list(sets)
        members = [feature for one in sets for feature in one]
        sizes = torch.tensor([len(one) for one in sets], dtype=torch.int64)
        self.watched = torch.tensor(sorted(set(members)), dtype=torch.int64)
        """``[w]`` int64, ascending: the features of all sets."""
        self._column = torch.full((features,), -1, dtype=torch.int64)
        self._column[self.watched] = torch.arange(len(self.watched))
        self.columns = torch.zeros(len(sets), LARGEST, dtype=torch.int64)
        """``[s, 3]`` int64: place of each set's features among those watched; 0 beyond the last."""
        position = torch.cat([torch.arange(int(size)) for size in sizes]) if sets else sizes
        owner = torch.repeat_interleave(torch.arange(len(sets)), sizes)
        column = self._column[torch.tensor(members, dtype=torch.int64)]
        self.columns[owner, position] = column
        order = torch.argsort(column, stable=True)
        self._owner, self._position = owner[order], position[order]
        self._last = torch.bincount(column, minlength=len(self.watched)).cumsum(0)
        self.full = 2**sizes - 1
        """``[s]`` int64: the pattern in which all of a set are on."""
        self.patterns = torch.zeros(len(sets), 2**LARGEST, dtype=torch.int64)
        """``[s, 8]`` int64: tokens by which features of a set are on, the p-th for bit p; see
        `counted`, which has those on which none is."""
        self.sums = torch.zeros(len(sets), 2**LARGEST, LARGEST, dtype=torch.float64)
        """``[s, 8, 3]`` float64: sums of the values of a set's features over these tokens."""
        self.histograms = Histograms(len(self.watched))
        self.tokens = 0
        """Tokens that have gone by."""
        self._part = part % UNITS
        units = int(self._part.max()) + 1 if len(part) else 0
        generator = torch.Generator().manual_seed(0)
        self._times = torch.poisson(torch.ones(units, RESAMPLES), generator=generator)
        self._seen = torch.zeros(units, dtype=torch.bool)
        self._resampled_tokens = torch.zeros(RESAMPLES, dtype=torch.float64)
        self._resampled_fired = torch.zeros(len(self.watched), RESAMPLES)
        self._resampled_together = torch.zeros(len(sets), RESAMPLES)

    def add(self, tokens: Tensor, place: Tensor, feature: Tensor, value: Tensor) -> None:
        """Count some tokens; all tensors are on the CPU.

        Args:
            tokens: ``[B]`` int64: which, silent ones included, each in one call alone.
            place: ``[e]`` int64: place among them of each active feature.
            feature: ``[e]`` int64: which.
            value: ``[e]`` float64, > 0: its code.
        """
        unit = self._part[tokens]
        self.tokens += len(unit)
        self._seen[unit] = True
        self._resampled_tokens += self._times[unit].sum(0, dtype=torch.float64)
        column = self._column[feature]
        is_watched = column >= 0
        place, column, value = place[is_watched], column[is_watched], value[is_watched]
        if not len(column):
            return
        self.histograms.add(column, value)
        self._resample(self._resampled_fired, column, unit[place])
        memberships = torch.zeros(len(unit), dtype=torch.int64)
        counts = self._last[column] - self._first(column)
        memberships.index_add_(0, place, counts)
        step = max(1, len(unit) * AT_ONCE // max(int(memberships.sum()), 1))
        for start, stop in spans(len(unit), step):
            inside = (place >= start) & (place < stop)
            self._add_sets(unit, place[inside], column[inside], value[inside])

    def _first(self, column: Tensor) -> Tensor:
        return torch.where(column > 0, self._last[column - 1], 0)

    def _add_sets(self, unit: Tensor, place: Tensor, column: Tensor, value: Tensor) -> None:
        """Count the patterns of the sets of which a feature is on."""
        first = self._first(column)
        counts = self._last[column] - first
        event = torch.repeat_interleave(torch.arange(len(column)), counts)
        member = torch.arange(len(event)) + (first - (counts.cumsum(0) - counts))[event]
        met, inverse = torch.unique(
            place[event] * len(self.sets) + self._owner[member], return_inverse=True
        )
        on = torch.zeros(len(met), LARGEST, dtype=torch.float64)
        on[inverse, self._position[member]] = value[event]
        of = met % len(self.sets)
        pattern = ((on > 0) * 2 ** torch.arange(LARGEST)).sum(1)
        cell = of * 2**LARGEST + pattern
        self.patterns.view(-1).index_add_(0, cell, torch.ones_like(cell))
        self.sums.view(-1, LARGEST).index_add_(0, cell, on)
        every = pattern == self.full[of]
        self._resample(self._resampled_together, of[every], unit[met[every] // len(self.sets)])

    def _resample(self, sums: Tensor, row: Tensor, unit: Tensor) -> None:
        """Count ``row [e]`` as often in each resample as its document is."""
        keys, counts = torch.unique(row * UNITS + unit, return_counts=True)
        for start, stop in spans(len(keys), AT_ONCE // RESAMPLES):
            part = keys[start:stop]
            weighed = self._times[part % UNITS] * counts[start:stop, None]
            sums.index_add_(0, part // UNITS, weighed)

    def counted(self) -> Tensor:
        """``[s, 8]`` int64: tokens by pattern, those on which none of a set is on among them."""
        patterns = self.patterns.clone()
        patterns[:, 0] = self.tokens - patterns[:, 1:].sum(1)
        return patterns

    def rates(self) -> Share:
        """``[w]``: shares of the tokens on which each feature that is watched fires."""
        fired = self.histograms.counts.sum(1).double()
        resampled = self._resampled_fired.double() / self._resampled_tokens
        return self._share(fired / self.tokens, resampled, fired > 0)

    def together(self) -> tuple[Share, Tensor, Share]:
        """Of each set, ``[s]``.

        Returns:
            The share of tokens on which all fire; what it were if they fired independently, the
            product of their rates; and the ratio of the two.
        """
        rows = torch.arange(len(self.sets))
        tokens = self.patterns[rows, self.full].double()
        share = tokens / self.tokens
        resampled = self._resampled_together.double() / self._resampled_tokens
        chance, by_chance = torch.ones_like(share), torch.ones_like(resampled)
        rates = self.histograms.counts.sum(1).double() / self.tokens
        each = self._resampled_fired.double() / self._resampled_tokens
        for position in range(LARGEST):
            column, inside = self.columns[:, position], self.full >> position > 0
            chance *= torch.where(inside, rates[column], 1.0)
            by_chance *= torch.where(inside[:, None], each[column], 1.0)
        ratio = torch.where(chance > 0, share / chance, torch.nan)
        return (
            self._share(share, resampled, tokens > 0),
            chance,
            self._share(ratio, resampled / by_chance, tokens > 0),
        )

    def _share(self, value: Tensor, resampled: Tensor, known: Tensor) -> Share:
        """An interval where there are enough tokens and documents, and every resample has a value.

        Args:
            value: ``[m]``.
            resampled: ``[m, R]``.
            known: ``[m]`` bool: where anything was seen; what never was has no spread to go by.
        """
        enough = int(self._seen.sum()) >= LEAST_UNITS and self.tokens >= LEAST_VALUES
        defined = known & resampled.isfinite().all(1) & enough
        low, high = torch.full((2, len(value)), torch.nan, dtype=torch.float64)
        ends = torch.tensor(ENDS, dtype=torch.float64)
        rows = defined.nonzero().squeeze(1)
        for start, stop in spans(len(rows), AT_ONCE // RESAMPLES):  # which are copied
            part = rows[start:stop]
            low[part], high[part] = torch.quantile(resampled[part], ends, dim=1)
        return Share(value, low, high)
