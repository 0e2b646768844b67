"""One pass over half of all cosines, which proposes every pair that may pass a threshold."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saeaudit.core.cosines.products import Tile
from saeaudit.core.cosines.screen import Screen
from saeaudit.core.float32 import exact_float32
from saeaudit.core.rows import spans

PANEL = 4
"""Tiles of rows that meet a tile of columns before the next columns are read and scaled."""

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
    return Hits(hits.i[keep], hits.j[keep], hits.cosine[keep])


def sweep(
    screen: Screen, floor: float, row_max: Tensor, *, progress: Progress | None = None
) -> Iterator[Hits]:
    """Propose every pair whose cosine may be at least `floor` in absolute value.

    Args:
        screen: the prepared rows, n of them.
        floor: threshold on |cosine|; pairs are proposed from ``floor - slack`` upwards.
        row_max: ``[n]`` float32 where the rows are, raised in place to each row's largest
            |estimate| over all other rows; start it at zero.
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
    least = screen.least(floor)
    # What a tile's largest product must reach to be looked at: the widest margins, off twice.
    look = least if screen.margin is None else least - 2 * int(screen.margin.max())
    done, total = 0, count * (count + 1) / 2
    multiply: Tile | None = None
    for top, start, rows, columns in _tiles(screen, size):
        multiply = multiply or Tile(size, rows)
        product, magnitude = multiply(rows, columns)
        if start == top:  # a pair once, and no row with itself
            magnitude.triu_(1)
        across = magnitude.amax(1)
        most = float(across.max())
        across = across.to(torch.float32) * screen.scale
        down = magnitude.amax(0).to(torch.float32) * screen.scale
        for at, of in ((top, across), (start, down)):
            best[at : at + len(of)] = torch.maximum(best[at : at + len(of)], of)
        if most >= look:
            i, j, value = _compact(product, magnitude, look, diagonal=start == top)
            i, j = i + top, j + start
            if screen.margin is not None:
                keep = value.abs() + (screen.margin[i] + screen.margin[j]) >= least
                i, j, value = i[keep], j[keep], value[keep]
            if len(i):
                yield i, j, value
        done += len(rows) * len(columns)
        if progress:
            progress(min(1.0, done / total))


def _tiles(screen: Screen, size: int) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """Cover the upper triangle: ``(first row, first column, rows, columns)``, ready to multiply.

    A diagonal tile is cut in three (two halves on the diagonal and the square above), which
    leaves out a quarter of it.
    """
    count = screen.units.count
    for low, high in spans(count, PANEL * size):
        panel = screen.block(low, high)
        for start, stop in spans(count - low, size):
            columns = (
                panel[start:stop] if low + stop <= high else screen.block(low + start, low + stop)
            )
            for top, bottom in spans(min(high - low, start), size):
                yield low + top, low + start, panel[top:bottom], columns
            if low + start < high:
                half = (stop - start + 1) // 2
                first, second = columns[:half], columns[half:]
                yield low + start, low + start, first, first
                if len(second):
                    yield low + start, low + start + half, first, second
                    yield low + start + half, low + start + half, second, second


def _compact(
    product: Tensor, magnitude: Tensor, least: float, *, diagonal: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Entries of a tile whose magnitude is at least `least`: row, column, product as float32."""
    if product.device.type == "cpu":  # four times as fast as the same in torch
        kind = np.int32 if product.dtype == torch.int32 else np.float32
        mask = magnitude.numpy() >= kind(max(least, 0))
        if diagonal:
            mask = np.triu(mask, 1)
        flat = torch.from_numpy(np.flatnonzero(mask))
    else:
        passing = magnitude >= max(least, 0)
        if diagonal:
            passing = passing.triu_(1)
        flat = passing.reshape(-1).nonzero().squeeze(1)
    columns = product.shape[1]
    values = product.reshape(-1)[flat].to(torch.float32)
    return torch.div(flat, columns, rounding_mode="floor"), flat % columns, values
