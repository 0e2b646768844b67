"""Nearly parallel pairs of rows, put together into blocks of a few rows that hold many pairs.

What lies in the plane of two rows lies in the span of their block, so that a bound on a third row's
share of that span is one for all pairs of the block. Third rows are ruled out block by block, by
matrix products, however many pairs there are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.pairs import join
from saeaudit.core.cosines.screen import Screen
from saeaudit.core.float32 import exact_float32
from saeaudit.core.rows import MARGIN, UnitRows, spans

FEWEST, MOST = 8, 64
"""Rows that a block may have where rows are narrow, and where they are wide: a larger one would
take longer to multiply than it saves."""
PART = 4
"""A block spans at most this part of the space (if more than `FEWEST` rows): most rows have little
of themselves in it."""
STEP = 4
"""Blocks are looked at together where their sizes agree when rounded up to a multiple of this."""
RIDGE = 1 / 32
"""What a block's Gram matrix is loaded with, as a part of the least eigenvalue of its pairs'."""
LEAST_RIDGE = 1e-6
"""The load is at least this, far beyond the rounding of float64."""
ROUNDING = 1e-11
"""Far more than a cosine in float64 is off by."""


class Batch(NamedTuple):
    """Blocks of about one size, and the pairs in them."""

    rows: Tensor
    """``[b, n]`` int64 row numbers; any at all beyond a block's size."""
    used: Tensor
    """``[b, n]`` bool: within the block's size."""
    block: Tensor
    """``[m]`` int64: the block of each pair."""
    place: Tensor
    """``[2, m]`` int64: where the two rows of each pair are among the ``b n``."""


class _Cover(NamedTuple):
    """Blocks in ascending order of their sizes, and pairs in the order of the blocks."""

    member: Tensor
    """int64: the rows of the first block, of the second, and so on."""
    first: Tensor
    """``[blocks + 1]`` int64: where each block begins in `member`."""
    block: Tensor
    """``[m]`` int64: the block of each pair."""
    place: Tensor
    """``[2, m]`` int64: where in `member` the two rows of each pair are."""

    def batch(self, start: int, stop: int, size: int) -> Batch:
        """Blocks ``start:stop``, which have at most `size` rows."""
        first = self.first[start:stop, None]
        within = torch.arange(size, device=first.device)
        used = within < self.first[start + 1 : stop + 1, None] - first
        rows = self.member[(first + within).clamp_(max=len(self.member) - 1)]
        ends = torch.tensor([start, stop], device=first.device)
        low, high = torch.searchsorted(self.block, ends).tolist()
        block = self.block[low:high] - start
        place = self.place[:, low:high] - first[block, 0] + block * size
        return Batch(rows, used, block, place)


def batches(units: UnitRows, i: Tensor, j: Tensor, limit: int) -> Iterator[Batch]:
    """Put pairs into blocks, each pair into one.

    Rows that pairs connect are one block where they are few. Else they are cut into pieces, and a
    block is one piece or two.

    Args:
        units: the rows.
        i: ``[m]`` int64 row numbers.
        j: ``[m]`` int64 row numbers, other than `i`.
        limit: about how many rows the blocks of a batch have together.

    Yields:
        Batches, the smallest blocks first.
    """
    if not len(i):
        return
    cover = _cover(units, i, j)
    padded = torch.div(cover.first.diff() + (STEP - 1), STEP, rounding_mode="floor") * STEP
    begin = 0
    for size, blocks in torch.stack(torch.unique(padded, return_counts=True), 1).tolist():
        for start, stop in spans(blocks, max(1, limit // size)):
            yield cover.batch(begin + start, begin + stop, size)
        begin += blocks


def _cover(units: UnitRows, i: Tensor, j: Tensor) -> _Cover:
    count = units.count
    block = _blocks(i, j, count, max(FEWEST, min(MOST, units.width // PART)))
    member = torch.unique(torch.cat([block * count + i, block * count + j]))
    sizes = torch.bincount(torch.div(member, count, rounding_mode="floor"))
    rank = torch.empty_like(sizes)
    rank[torch.argsort(sizes, stable=True)] = torch.arange(len(sizes), device=sizes.device)
    number = rank[torch.div(member, count, rounding_mode="floor")]
    member = (number * count + member % count).sort().values
    block, order = rank[block].sort(stable=True)
    place = torch.stack([torch.searchsorted(member, block * count + end[order]) for end in (i, j)])
    bounds = torch.arange(len(sizes) + 1, device=sizes.device) * count
    return _Cover(member % count, torch.searchsorted(member, bounds), block, place)


def _blocks(i: Tensor, j: Tensor, count: int, most: int) -> Tensor:
    """Number of each pair's block ``[m]``, from 0; a block has at most `most` rows."""
    component = torch.arange(count, device=i.device)
    join(component, i, j)
    rows, ends = torch.unique(torch.stack([i, j]), return_inverse=True)
    label, order = component[rows].sort(stable=True)
    _, run, sizes = torch.unique_consecutive(label, return_inverse=True, return_counts=True)
    within = torch.arange(len(rows), device=i.device) - (sizes.cumsum(0) - sizes)[run]
    cut = torch.div(within, most // 2, rounding_mode="floor")
    cut = torch.where(sizes[run] <= most, 0, cut)
    _, piece = torch.unique_consecutive(torch.stack([run, cut]), dim=1, return_inverse=True)
    low, high = torch.empty_like(piece).scatter_(0, order, piece)[ends].sort(dim=0).values
    block: Tensor = torch.unique(low * len(rows) + high, return_inverse=True)[1]
    return block


def block_rows(units: UnitRows, batch: Batch) -> Tensor:
    """Unit rows of the blocks, ``[b, n, d]`` float64, zero beyond a block's size."""
    rows = batch.rows.reshape(-1)
    unit = units.raw(rows).div_(units.norms[rows, None])
    return unit.mul_(batch.used.reshape(-1, 1)).reshape(*batch.rows.shape, units.width)


class Planes(NamedTuple):
    """The planes of pairs of rows, and how much of a third row must lie in them."""

    block: Tensor
    """``[m]`` int64: the block of each pair."""
    cosine: Tensor
    """``[m]`` float64: the cosine of each pair."""
    share: Tensor
    """``[m]`` float64: least squared norm of a third row's projection on the plane."""


def reached(fine: Screen, rows: Tensor, gram: Tensor, planes: Planes) -> Tensor:
    """Rows that have enough of themselves in the span of a block, for one of its planes at least.

    With U the rows of a block, G their Gram matrix, e a load, ``L L^T = G + e`` and v = U^T t a
    unit vector in the plane of two of the rows, ``|v.w|^2 <= (1 + e |t|^2) |L^-1 U w|^2``, and
    |t|^2 is at most 1 / (1 - |cosine|). With the load, rows may be copies of each other.

    Args:
        fine: a float32 screen of all rows.
        rows: ``[b, n, d]`` float64 unit rows of b blocks.
        gram: ``[b, n, n]`` float64, their products.
        planes: of pairs of rows, m of them.

    Returns:
        ``[k]`` int64 row numbers, ascending, where the rows are.
    """
    blocks, size, _ = rows.shape
    gap = (1 - planes.cosine.abs() - ROUNDING).clamp_(min=0)
    load = gap.new_ones(blocks).scatter_reduce_(0, planes.block, gap, "amin")
    load = load.mul_(RIDGE).clamp_(min=LEAST_RIDGE)
    need = planes.share * gap / (gap + load[planes.block])
    least = gap.new_full((blocks,), math.inf).scatter_reduce_(0, planes.block, need, "amin")
    least = (least - 3 * math.sqrt(size) * fine.slack - MARGIN).to(fine.device, torch.float32)
    factor = torch.linalg.cholesky(gram + torch.diag_embed(load[:, None].expand(-1, size)))
    basis = torch.linalg.solve_triangular(factor, rows, upper=False)
    basis = basis.flatten(0, 1).to(fine.device, torch.float32)
    count, step = fine.units.count, fine.units.budget.tile_side(fine.device)
    enough = torch.zeros(count, dtype=torch.bool, device=fine.device)
    with exact_float32():
        for start, stop in spans(count, step):
            share = fine.multiply(basis, start, stop).square_().view(blocks, size, -1).sum(1)
            enough[start:stop] = (share >= least[:, None]).any(0)
    return enough.nonzero().squeeze(1).to(fine.units.device)
