"""Means and shares over tokens, with intervals that take whole documents anew."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from saeaudit.core.calibration import mean_intervals
from saeaudit.records import Estimate, Interval


def mean_interval(values: Tensor, units: Tensor) -> Interval | None:
    """95 % interval of a mean: a bootstrap over units, always the same draws.

    Args:
        values: ``[n]`` float64.
        units: ``[n]`` int64: what each value is of.
    """
    known, unit = torch.unique(units, return_inverse=True)
    sums = torch.zeros(len(known), 1, dtype=torch.float64).index_add_(0, unit, values[:, None])
    ends = mean_intervals(sums, torch.bincount(unit, minlength=len(known)).double())
    return None if ends is None else Interval(*ends[0].tolist())


class Shares:
    """Collects figures of choices by their names."""

    def __init__(self, part: Tensor | None) -> None:
        """Take ``part [N]`` int64: the document or block of each token, where there are any."""
        self._part = {} if part is None else dict(enumerate(part.tolist()))
        self._values: dict[str, list[float]] = defaultdict(list)
        self._units: dict[str, list[int]] = defaultdict(list)

    def add(self, token: int | None, **figures: float | None) -> None:
        """Add what is known of one token, or of an example, which is a unit of its own."""
        for name, figure in figures.items():
            if figure is None:
                continue
            values, units = self._values[name], self._units[name]
            alone = -1 - len(units)
            units.append(alone if token is None else self._part.get(token, alone))
            values.append(float(figure))

    def count(self, name: str) -> int:
        """How many figures of a name there are."""
        return len(self._values[name])

    def total(self, name: str) -> float:
        """Their sum."""
        return sum(self._values[name])

    def mean(self, name: str) -> float | None:
        """Their mean; None where there are none."""
        return self.total(name) / self.count(name) if self.count(name) else None

    def stated(self, name: str) -> float | None:
        """Their mean; None where there are too few for an interval."""
        return None if self.interval(name) is None else self.mean(name)

    def interval(self, name: str) -> Interval | None:
        """The interval of their mean; None where there are too few."""
        values = torch.tensor(self._values[name], dtype=torch.float64)
        return mean_interval(values, torch.tensor(self._units[name], dtype=torch.int64))

    def estimate(self, name: str) -> Estimate | None:
        """Both; None where there are too few for an interval."""
        mean, ends = self.mean(name), self.interval(name)
        return None if mean is None or ends is None else Estimate(mean, ends.low, ends.high)
