"""One pass over half of all cosines, which proposes every pair that may pass a threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.budget import Budget, Size
from saeaudit.core.cosines.products import Tile
from saeaudit.core.cosines.screen import Screen
from saeaudit.core.float32 import exact_float32
from saeaudit.core.rows import spans

PANEL = 4
"""Tiles of rows that meet a tile of columns before the next columns are read and scaled: all in
one product where a CPU is quicker at that, and each in one of its own elsewhere."""

DIAGONAL = Size(256, 4096)
"""Rows to a side of squares on the diagonal, at most: as many multiply no slower than more do."""

Progress = Callable[[float], None]


class Hits(NamedTuple):
    """Pairs of rows proposed by a sweep, on the device where the rows are."""

    i: Tensor
    """``[m]`` int64, the smaller row number."""
    j: Tensor
    """``[m]`` int64, the larger one."""
    cosine: Tensor
    """``[m]`` float32 estimates, each within the screen's slack of the cosine."""


def select(hits: Hits, keep: Tensor) -> Hits:
    """Return the hits where `keep` ``[m]`` bool is true."""
    kept = int(keep.count_nonzero())  # quick, and most often all of them or none
    if kept == len(keep):
        return hits
    if not kept:  # no view of them, which would keep all in memory
        return Hits(*(column.new_empty(0) for column in hits))
    return Hits(hits.i[keep], hits.j[keep], hits.cosine[keep])


def sweep(
    screen: Screen, floor: float, row_max: Tensor, *, progress: Progress | None = None
) -> Iterator[Hits]:
    """Propose every pair whose cosine may be at least `floor` in absolute value.

    Args:
        screen: the prepared rows, n of them.
        floor: threshold on |cosine|; pairs are proposed from ``floor - slack`` upwards.
        row_max: ``[n]`` float32 where the rows are, raised in place to each row's largest
            |estimate| over the pairs proposed, or over all other rows; start it at zero.
        progress: called with the share of the work done, 0 to 1.

    Yields:
        `Hits`, never empty; every pair once, i < j, in no useful order.
    """
    home = screen.units.device
    best = torch.zeros(screen.units.count, dtype=torch.float32, device=screen.device)
    propose = _fused if _fusible(screen, floor) else _tiled
    with exact_float32(), torch.inference_mode():
        for i, j, cosine in propose(screen, floor, best, progress):
            yield Hits(
                i.to(home, torch.int64), j.to(home, torch.int64), (cosine * screen.scale).to(home)
            )
    row_max.copy_(torch.maximum(row_max, best.to(home)))


_Proposed = Iterator[tuple[Tensor, Tensor, Tensor]]
"""Row numbers, larger row numbers, and products in float32, on the screen's device."""


def _fusible(screen: Screen, floor: float) -> bool:
    if screen.device.type == "cpu" or screen.margin is None or screen.units.budget.tile:
        return False
    from saeaudit.core.cosines import kernels

    return screen.least(floor) > 2 * int(screen.margin.max()) and kernels.usable(screen.device)


def _fused(screen: Screen, floor: float, best: Tensor, progress: Progress | None) -> _Proposed:
    """Sweep with the Triton kernel: no product leaves the chip."""
    from saeaudit.core.cosines import kernels

    assert screen.packed is not None and screen.margin is not None
    top = torch.zeros(len(best), dtype=torch.int32, device=best.device)
    need = int(screen.least(floor))
    strips = kernels.sweep_int8(screen.packed, screen.margin, need, top, budget=screen.units.budget)
    for done, (i, j, value) in strips:
        if len(i):
            yield i, j, value.to(torch.float32)
        if progress:
            progress(done)
    best.copy_(top.to(torch.float32) * screen.scale)


def _tiled(screen: Screen, floor: float, best: Tensor, progress: Progress | None) -> _Proposed:
    """Sweep with the library's matrix products, a tile at a time."""
    count = screen.units.count
    size = min(screen.units.budget.tile_side(screen.device), count)
    least = torch.tensor([screen.least(floor)], dtype=torch.float64, device=screen.device)
    margin = screen.margin
    done, total = 0, count * (count + 1) / 2
    multiply: Tile | None = None
    for top, start, rows, columns in _tiles(screen, size):
        multiply = multiply or Tile(_height(screen, size), size, rows)
        look = least.expand(len(rows))
        if margin is not None:  # the columns' widest for all of them, until few entries are left
            widest = margin[start : start + len(columns)].max()
            look = (least - (margin[top : top + len(rows)] + widest)).clamp_(min=0)
        for i, j, value in multiply(rows, columns, look):
            i, j = i + top, j + start
            if start == top:  # a pair once, and no row with itself
                i, j, value = _where(i < j, i, j, value)
            if margin is not None:
                i, j, value = _where(value.abs() + (margin[i] + margin[j]) >= least, i, j, value)
            if len(i):
                estimate = value.abs() * screen.scale
                for ends in (i, j):
                    best.scatter_reduce_(0, ends, estimate, "amax")
                yield i, j, value
        done += len(rows) * len(columns)
        if progress:
            progress(min(1.0, done / total))


def _height(screen: Screen, size: int) -> int:
    """Most rows of a product with a tile of `size` columns.

    A CPU orders the columns anew for each product of 16 or 8 bits: for many rows that is a smaller
    part of it. In float32 as many rows would leave its caches.
    """
    tall = screen.device.type == "cpu" and screen.dtype != torch.float32
    return PANEL * size if tall else size


def _where(keep: Tensor, *columns: Tensor) -> Iterator[Tensor]:
    at = keep.nonzero().squeeze(1)
    return (column[at] for column in columns)


def _tiles(screen: Screen, size: int) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Cover the upper triangle: ``(first row, first column, rows, columns)``, ready to multiply."""
    count, height = screen.units.count, _height(screen, size)
    least = diagonal_side(screen.units.budget, screen.device, count)
    for low, high in spans(count, PANEL * size):
        panel = screen.block(low, high)
        for start, stop in spans(count - low, size):
            columns = (
                panel[start:stop] if low + stop <= high else screen.block(low + start, low + stop)
            )
            for top, bottom in spans(min(high - low, start), height):
                yield low + top, low + start, panel[top:bottom], columns
            if low + start < high:
                yield from _triangle(columns, low + start, least)


def diagonal_side(budget: Budget, device: torch.device, count: int) -> int:
    """Rows to a side of the squares on the diagonal, half of whose products are made twice."""
    return min(DIAGONAL.on(device), (min(budget.tile_side(device), count) + 1) // 2)


def _triangle(rows: Tensor, first: int, least: int) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Cover the upper triangle of the square of ``rows [m, d']``, the first of which is `first`.

    As `_tiles`; it is halved, both ways, until `least` rows are left.
    """
    if len(rows) <= least:
        yield first, first, rows, rows
        return
    half = (len(rows) + 1) // 2
    yield first, first + half, rows[:half], rows[half:]
    yield from _triangle(rows[:half], first, least)
    yield from _triangle(rows[half:], first + half, least)
