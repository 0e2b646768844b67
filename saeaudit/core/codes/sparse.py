"""Codes as lists of active features, in batches of like length."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


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
