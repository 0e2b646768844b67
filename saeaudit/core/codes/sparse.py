"""Codes as lists of active features, in batches of like length, and sets of features as numbers."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


class Signatures:
    """Sets of features told apart by one number: the sum of one random 62-bit number a feature.

    Example: ``Signatures(9, device).of(rows, rows >= 0)`` is the same number for rows [3, 7, -1]
    and [7, 3, -1].
    """

    def __init__(self, count: int, device: torch.device) -> None:
        """Draw a number for each of `count` features, the same ones every time."""
        generator = torch.Generator().manual_seed(7)
        self.numbers = torch.randint(1 << 62, (count,), generator=generator).to(device)

    def of(self, rows: Tensor, present: Tensor) -> Tensor:
        """Sum the numbers ``[m]`` of ``rows [m, k]`` where ``present [m, k]`` bool is true."""
        return (self.numbers[rows.clamp(min=0)] * present).sum(1)


def batches(sizes: Tensor, rows: int) -> Iterator[Tensor]:
    """Tokens in groups of like support size, each of at most about `rows` rows in all.

    Args:
        sizes: ``[N]`` int64 support sizes.
        rows: places (tokens times the largest support among them) to a group.

    Yields:
        int64 indices; every token once.
    """
    order = torch.argsort(sizes, stable=True)
    sizes = sizes[order]
    stop = len(order)
    while stop > 0:
        widest = max(int(sizes[stop - 1]), 1)
        start = max(0, stop - max(1, rows // widest))
        yield order[start:stop]
        stop = start
