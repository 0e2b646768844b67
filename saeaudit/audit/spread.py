"""How far activations are from their mean: what errors are given as shares of."""

from __future__ import annotations

import torch
from torch import Tensor


class Spread:
    """Squared distances from the mean, added up over activations as they come.

    >>> spread = Spread()
    >>> spread.add(torch.tensor([[5.0, 1.0], [7.0, 1.0]]))
    >>> spread.total, spread.share(0.5)
    (2.0, 0.25)
    """

    def __init__(self) -> None:
        self._count = 0
        self._origin: Tensor | None = None
        self._sum = torch.zeros((), dtype=torch.float64)
        self._squares = 0.0

    def add(self, x: Tensor) -> None:
        """Add activations ``[m, d_in]``."""
        x = x.to(torch.float64)
        if self._origin is None:
            self._origin = x[0]
        # From the first one, so that activations that are all the same are at exactly 0.
        x = x - self._origin
        self._count += len(x)
        self._squares += float(x.square().sum())
        self._sum = self._sum + x.sum(0)

    @property
    def total(self) -> float:
        """Their sum; 0 where all activations are the same."""
        return max(self._squares - float(self._sum.square().sum()) / max(self._count, 1), 0.0)

    def share(self, error: float) -> float | None:
        """A sum of squared errors over that of the distances; None where that is 0."""
        return error / self.total if self.total > 0 else None
