"""What a code costs, feature by feature.

A feature is off at no cost, or on with a value of at least its floor (the threshold of a JumpReLU,
else 0). All that a search asks of a cost is one question: with ``weight (value - centre)^2`` beside
it, which value is the cheapest?
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Cost(Protocol):
    """What ``[m, c]`` features cost when they are on; infinite where a place is empty."""

    def on(self, centre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Least ``cost(value) + weight (value - centre)^2`` of features that are on.

        Args:
            centre: ``[m, c]`` float64.
            weight: > 0, of a shape that broadcasts to it.

        Returns:
            Values and that sum, ``[m, c]`` each. Of equals, the smaller value.
        """

    def of(self, codes: Tensor) -> Tensor:
        """Cost ``[m, c]`` of codes, 0 where one is 0."""

    def column(self, place: int) -> Cost:
        """The same of one column alone, ``[m, 1]``."""

    def rows(self, index: Tensor) -> Cost:
        """The same of some rows."""


class Bits(NamedTuple):
    """Description length: any value from ``low[..., n]`` to ``high[..., n]`` costs the same."""

    price: Tensor
    """``[m, c, n]``: bits, infinite where a place is empty."""
    low: Tensor
    """``[m, c, n]``, ascending."""
    high: Tensor
    """``[m, c, n]``, up to the next."""

    def on(self, centre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """See `Cost`."""
        centre = centre.unsqueeze(-1)
        value = torch.clamp(centre, self.low, self.high)
        total = (value - centre).square_().mul_(weight.unsqueeze(-1)).add_(self.price)
        least, at = total.min(-1, keepdim=True)
        return value.gather(-1, at).squeeze(-1), least.squeeze(-1)

    def bins(self, codes: Tensor) -> Tensor:
        """Which ``[m, c, 1]`` of the bins each code lies in."""
        return ((self.low <= codes[..., None]).sum(-1, keepdim=True) - 1).clamp(min=0)

    def of(self, codes: Tensor) -> Tensor:
        """See `Cost`."""
        price = self.price.gather(-1, self.bins(codes)).squeeze(-1)
        return torch.where(codes > 0, price, 0.0)

    def column(self, place: int) -> Bits:
        """See `Cost`."""
        return Bits(*(field[:, place, None] for field in self))

    def rows(self, index: Tensor) -> Bits:
        """See `Cost`."""
        return Bits(*(field[index] for field in self))
