"""Codes in bins of one width, and the widest that an error allows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

FINE = 4
"""Counts are kept in bins of a quarter of the width: halves and quarters can be read off."""


BINS = 1 << 26
"""Fine bins of one feature; larger values count in the last."""


EDGE_SHARE, EDGE_STEPS = 2e-7, 1e-6
"""Values this much below an edge of a fine bin belong to the bin above: float32 rounds a value by
6e-8 of itself, and its product with a norm again."""
GROWTH = 1.25
"""Ratio of widths tried in turn until one lies on either side."""
TRIED, HALVINGS = 60, 12
"""Widths tried in turn (5 decades on either side of the guess), and halvings between two."""


class Grid(NamedTuple):
    """Where bins begin."""

    width: float
    """Width of a bin in activation space."""
    anchor: Tensor
    """``[F]`` float64: value at which each feature's first bin begins."""

    def fine(self, index: Tensor, value: Tensor) -> Tensor:
        """Fine bin of each value ``[m]`` of features ``index [m]``; negative below the anchor.

        A value on an edge, up to rounding in float32, belongs to the bin that begins there.
        """
        steps = (value - self.anchor[index]) * (FINE / self.width)
        return (steps * (1 + EDGE_SHARE) + EDGE_STEPS).floor().clamp(-BINS + 1, BINS - 1).long()

    def quantised(self, rows: Tensor, codes: Tensor) -> Tensor:
        """Codes ``[B, k]`` at the centres of their bins; 0 where the row ``[B, k]`` is -1."""
        index = rows.clamp(min=0)
        bins = self.fine(index, codes).div(FINE, rounding_mode="floor")
        return ((bins + 0.5) * self.width + self.anchor[index]) * (rows >= 0)


def find_width(increase: float, guess: float, added: Callable[[float], float]) -> float:
    """Largest common width at which really quantising adds no more than `increase` to the error.

    Args:
        increase: squared error to add, > 0.
        guess: where to begin, such as ``sqrt(12 increase / L0)``.
        added: squared error that quantising adds at a width.
    """
    low = high = guess
    for _ in range(TRIED):
        if added(high) > increase:
            break
        low, high = high, high * GROWTH
    else:
        return high
    for _ in range(TRIED):
        if added(low) <= increase:
            break
        high, low = low, low / GROWTH
    for _ in range(HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (middle, high) if added(middle) <= increase else (low, middle)
    return low
