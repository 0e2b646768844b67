"""Certified low-precision screening: every pair of rows whose cosine may pass a threshold.

A sweep multiplies tiles of the upper triangle in int8, bfloat16 or float32 and proposes the pairs
whose *estimated* cosine passes. The distance between estimate and truth is bounded by a slack that
is measured on the rows at hand, so screening at ``threshold - slack`` misses nothing:

    |u_i.u_j - v_i.v_j| <= e_i + e_j + e_i e_j + accumulation,      e_i = |u_i - v_i|

with v the rounded rows. Nothing is decided here; see `saeaudit.core.rows` for the exact cosines.
"""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saeaudit.core.rows import UnitRows, spans

ScreenName = Literal["int8", "bf16", "fp32"]

SLACK_LIMIT = 0.05
"""No screen with a larger slack is used: such rows are swept in float32 instead."""
UNIT_ERROR = 3e-7
"""Relative error of a float32 unit row (see `UnitRows.block`)."""
ROTATION_ERROR = 4e-5
"""Bound on what float32 rotation by two orthogonal factors does to a cosine of two unit rows."""

HELD_BYTES = 256 << 20
"""Unit rows in float32 are kept when they take no more than this."""

Progress = Callable[[float], None]


class Hits(NamedTuple):
    """Pairs of rows proposed by a sweep."""

    i: Tensor
    """``[m]`` int64, the smaller row number."""
    j: Tensor
    """``[m]`` int64, the larger one."""
    cosine: Tensor
    """``[m]`` float32 estimates, each within the screen's slack of the cosine."""


@dataclass(frozen=True)
class Screen:
    """Rows made ready for one kind of matrix product."""

    name: ScreenName
    units: UnitRows
    packed: Tensor | None
    """``[n, d']`` copy on `device`; None for float32 rows too large to hold: read each time."""
    scale: float
    """A product times `scale` is an estimated cosine."""
    slack: float
    """Bound on |estimate - cosine| over all pairs of rows."""
    device: torch.device

    def left(self, start: int, stop: int) -> Tensor:
        """Rows ``start:stop`` as they enter a product, ``[stop - start, d']``."""
        if self.packed is None:
            return self.units.block(start, stop).to(self.device)
        return self.packed[start:stop]

    def pick(self, index: Tensor) -> Tensor:
        """Rows at `index` as they enter a product, ``[len(index), d']``."""
        if self.packed is None:
            return self.units.take(index).to(self.device)
        return self.packed[index.to(self.device)]


def make_screen(units: UnitRows, name: ScreenName, device: torch.device) -> Screen:
    """Prepare rows for screening; falls back to float32 where the slack would pass `SLACK_LIMIT`.

    Args:
        units: n rows of width d.
        name: the kind of product.
        device: where products run.
    """
    if name == "int8":
        screen = _int8(units, device)
    elif name == "bf16":
        screen = _bf16(units, device)
    else:
        return _fp32(units, device)
    return screen if screen.slack <= SLACK_LIMIT else _fp32(units, device)


def _fp32(units: UnitRows, device: torch.device) -> Screen:
    slack = _combined(UNIT_ERROR) + _accumulation(units.width)
    packed = None
    if 4 * units.count * units.width <= HELD_BYTES:
        packed = torch.empty(units.count, units.width, device=device)
        for start, stop in spans(units.count, 1024):
            packed[start:stop] = units.block(start, stop)
    return Screen("fp32", units, packed, 1.0, slack, device)


def _combined(error: float) -> float:
    return 2 * error + error * error


def _accumulation(width: int) -> float:
    """Bound on the error of a float32 dot product of two vectors of norm <= 1.01."""
    return 1.1 * width * 2.0**-24


def _bf16(units: UnitRows, device: torch.device) -> Screen:
    packed = torch.empty(units.count, units.width, dtype=torch.bfloat16, device=device)
    worst = 0.0
    for start, stop in spans(units.count, 4096):
        block = units.block(start, stop).to(device)
        packed[start:stop] = block
        rounded = packed[start:stop].to(torch.float32)
        worst = max(worst, float(torch.linalg.vector_norm(block - rounded, dim=1).max()))
    # The product comes back in bfloat16: half a unit in the last place of a number <= 1.01.
    slack = _combined(worst * 1.0001 + UNIT_ERROR) + _accumulation(units.width) + 2.0**-8
    return Screen("bf16", units, packed, 1.0, slack, device)


def _int8(units: UnitRows, device: torch.device) -> Screen:
    """Rotate the rows so that no entry stands out, then round to 8 bits on one common grid.

    One grid for all rows makes the threshold one integer. It clips at `clip` standard deviations
    of a rotated entry; what clipping costs is part of the measured error.
    """
    rotate = Rotation(units.width, device)
    sigma = 1.0 / math.sqrt(rotate.width)
    probe = rotate(units.take(torch.arange(0, units.count, max(1, units.count // 256))).to(device))
    clips = [c for c in (4.0, 5.0, 6.0, 8.0, 12.0) if c * sigma < 1.0] or [1.0 / sigma]
    step = min(
        (c * sigma / 127 for c in clips),
        key=lambda s: float(
            torch.linalg.vector_norm(_levels(probe, s).mul_(s).sub_(probe), dim=1).max()
        ),
    )
    packed = torch.empty(units.count, rotate.width, dtype=torch.int8, device=device)
    worst = 0.0
    for start, stop in spans(units.count, 1024):
        block = rotate(units.block(start, stop).to(device))
        levels = _levels(block, step)
        packed[start:stop] = levels
        error = torch.linalg.vector_norm(levels.mul_(step).sub_(block), dim=1)
        worst = max(worst, float(error.max()))
    slack = _combined(worst * 1.0001 + UNIT_ERROR) + ROTATION_ERROR + 2.0**-23
    return Screen("int8", units, packed, step * step, slack, device)


def _levels(block: Tensor, step: float) -> Tensor:
    """Nearest of 255 levels `step` apart, as whole numbers in float32."""
    return (block * (1 / step)).round_().clamp_(-127, 127)


class Rotation:
    """A fixed orthogonal map of R^d into R^d', d' = p q >= d, as two small matrix products.

    A vector is padded to p q entries, laid out as p x q and multiplied by a seeded random
    orthogonal matrix on either side, at a cost of d'(p + q) multiply-adds. Cosines do not change.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.given = width
        self.p, self.q = _factors(width)
        self.width = self.p * self.q
        generator = torch.Generator().manual_seed(20_000 + width)
        self._left = _orthogonal(self.p, generator).to(device)
        self._right = _orthogonal(self.q, generator).to(device)

    def __call__(self, rows: Tensor) -> Tensor:
        """Rotate rows ``[m, d]`` float32 to ``[m, d']`` float32."""
        if self.width != self.given:
            rows = torch.nn.functional.pad(rows, (0, self.width - self.given))
        grid = rows.reshape(-1, self.q) @ self._right
        turned = torch.matmul(self._left, grid.view(-1, self.p, self.q))
        return turned.view(-1, self.width)


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    gaussian = torch.randn(size, size, dtype=torch.float64, generator=generator)
    orthogonal: Tensor = torch.linalg.qr(gaussian)[0]
    return orthogonal.to(torch.float32)


def _factors(width: int) -> tuple[int, int]:
    """Factor the least d' >= width, a multiple of 16, as p x q with q <= 2 p, as square as can be.

    Example: ``_factors(2304)`` is ``(48, 48)``.
    """
    padded = -(-width // 16) * 16
    while True:
        for p in range(math.isqrt(padded), 0, -1):
            if padded % p == 0:
                q = padded // p
                if q <= 2 * p or padded <= 64:
                    return p, q
                break
        padded += 16


# --- products -----------------------------------------------------------------------------------


class _Tile:
    """Products of blocks of packed rows, in buffers that are used again for every tile."""

    def __init__(self, side: int, like: Tensor) -> None:
        exact = like.dtype == torch.int8
        self._product = torch.empty(
            side * side, dtype=torch.int32 if exact else torch.float32, device=like.device
        )
        self._magnitude = torch.empty_like(self._product)

    def __call__(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """``a @ b.T`` and its magnitude, ``[len(a), len(b)]``, int32 from int8, else float32."""
        size = len(a) * len(b)
        product = self._product[:size].view(len(a), len(b))
        if a.dtype == torch.float32:
            torch.mm(a, b.T, out=product)
        elif a.dtype == torch.int8:
            product = _int_product(a, b)
        else:
            product.copy_(a @ b.T)
        return product, torch.abs(product, out=self._magnitude[:size].view(len(a), len(b)))


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` of packed rows: int32 from int8, else float32; the result may be overwritten."""
    if a.dtype == torch.int8:
        return _int_product(a, b)
    return (a @ b.T).to(torch.float32)


def _int_product(a: Tensor, b: Tensor) -> Tensor:
    if a.device.type == "cpu":
        return torch._int_mm(a, b.T)
    # cuBLASLt wants more than 16 rows and multiples of 8 columns.
    m, n = len(a), len(b)
    if m <= 16:
        a = torch.nn.functional.pad(a, (0, 0, 0, 17 - m))
    if n % 8:
        b = torch.nn.functional.pad(b, (0, 0, 0, -n % 8))
    return torch._int_mm(a, b.T)[:m, :n]


@contextmanager
def _exact_float32() -> Iterator[None]:
    """Products of float32 in float32: no TF32, no reduced-precision accumulation of bfloat16."""
    precision = torch.get_float32_matmul_precision()
    matmul = torch.backends.cuda.matmul
    reduced = matmul.allow_bf16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        matmul.allow_bf16_reduced_precision_reduction = reduced


def default_tile(count: int) -> int:
    """Side of a tile: its product, 4 bytes an entry, should stay in the last-level cache."""
    return 1024


def sweep(
    screen: Screen,
    floor: float,
    row_max: Tensor,
    *,
    tile: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Hits]:
    """Propose every pair whose cosine may be at least `floor` in absolute value.

    Args:
        screen: the prepared rows, n of them.
        floor: threshold on |cosine|; pairs are proposed from ``floor - slack`` upwards.
        row_max: ``[n]`` float32 on the CPU, updated in place to each row's largest |estimate|
            over all other rows; start it at zero.
        tile: rows to a side of a tile.
        progress: called with the share of the work done, 0 to 1.

    Yields:
        One `Hits` per tile that has any; every pair once, i < j, in no useful order.
    """
    count, size = screen.units.count, tile or default_tile(screen.units.count)
    threshold = max(floor - screen.slack, 0.0) / screen.scale
    done, total = 0, count * (count + 1) / 2
    best = torch.zeros(count, dtype=torch.float32, device=screen.device)
    with _exact_float32(), torch.inference_mode():
        multiply: _Tile | None = None
        for top, bottom in spans(count, size):
            rows = screen.left(top, bottom)
            multiply = multiply or _Tile(min(size, count), rows)
            for start, stop in spans(count, size):
                if stop <= top:
                    continue
                columns = rows if start == top else screen.left(start, stop)
                product, magnitude = multiply(rows, columns)
                if start == top:  # a pair once, and no row with itself
                    magnitude.triu_(1)
                across = magnitude.amax(1).to(torch.float32) * screen.scale
                down = magnitude.amax(0).to(torch.float32) * screen.scale
                best[top:bottom] = torch.maximum(best[top:bottom], across)
                best[start:stop] = torch.maximum(best[start:stop], down)
                if float(across.max()) >= threshold * screen.scale * (1 - 1e-6):
                    hits = _compact(product, magnitude, threshold, diagonal=start == top)
                    if len(hits.i):
                        yield Hits(
                            (hits.i + top).cpu(),
                            (hits.j + start).cpu(),
                            (hits.cosine * screen.scale).cpu(),
                        )
                done += (bottom - top) * (stop - start)
                if progress:
                    progress(min(1.0, done / max(total, 1)))
    row_max.copy_(torch.maximum(row_max, best.cpu()))


def _compact(product: Tensor, magnitude: Tensor, threshold: float, *, diagonal: bool) -> Hits:
    """Entries of a tile whose magnitude is at least `threshold`, as (row, column, product)."""
    exact = product.dtype == torch.int32
    least = math.floor(threshold) if exact else threshold * (1 - 1e-6)
    if product.device.type == "cpu":  # four times as fast as the same in torch
        kind = np.int32 if exact else np.float32
        mask = magnitude.numpy() >= kind(least)
        if diagonal:
            mask = np.triu(mask, 1)
        flat = torch.from_numpy(np.flatnonzero(mask))
    else:
        passing = magnitude >= least
        if diagonal:
            passing = passing.triu_(1)
        flat = passing.reshape(-1).nonzero().squeeze(1)
    columns = product.shape[1]
    values = product.reshape(-1)[flat].to(torch.float32)
    return Hits(torch.div(flat, columns, rounding_mode="floor"), flat % columns, values)


def pair_estimates(whole: Screen, i: Tensor, j: Tensor) -> Tensor:
    """Estimated cosines of pairs, within the slack of the screen.

    Args:
        whole: a float32 screen.
        i: ``[m]`` int64 row numbers; fastest where they ascend.
        j: ``[m]`` int64 row numbers.

    Returns:
        ``[m]`` float32 on the CPU.
    """
    if whole.packed is not None and whole.device.type == "cpu":
        return sampled_products(whole.packed, i, j)
    out = torch.empty(len(i), dtype=torch.float32)
    for start, stop in spans(len(i), 512):
        a, b = whole.pick(i[start:stop]), whole.pick(j[start:stop])
        out[start:stop] = torch.linalg.vecdot(a, b).cpu()
    return out


def sampled_products(rows: Tensor, i: Tensor, j: Tensor) -> Tensor:
    """Dot products of pairs of rows as a sampled dense-dense product: nothing is gathered.

    Args:
        rows: ``[n, d]`` float32 or float64 on the CPU.
        i, j: ``[m]`` int64 row numbers.

    Returns:
        ``[m]`` in the rows' dtype.
    """
    count = len(rows)
    order = torch.argsort(i, stable=True)
    starts = torch.zeros(count + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(i, minlength=count).cumsum(0)
    out = torch.empty(len(i), dtype=rows.dtype)
    with warnings.catch_warnings():  # torch calls its CSR layout a beta feature
        warnings.simplefilter("ignore")
        pattern = torch.sparse_csr_tensor(
            starts, j[order], torch.zeros(len(i), dtype=rows.dtype), (count, count)
        )
        products = torch.sparse.sampled_addmm(pattern, rows, rows.T, beta=0.0)
    out[order] = products.values()
    return out


def estimates(screen: Screen, index: Tensor, *, block: int = 8192) -> Iterator[tuple[int, Tensor]]:
    """Estimated cosines of some rows with all rows, a block of columns at a time.

    Args:
        screen: the prepared rows.
        index: ``[m]`` int64 row numbers.
        block: columns to a block.

    Yields:
        ``(start, values)`` with values ``[m, columns]`` float32 on the screen's device, zero where
        a row meets itself.
    """
    with _exact_float32(), torch.inference_mode():
        rows = screen.pick(index)
        for start, stop in spans(screen.units.count, block):
            values = _product(rows, screen.left(start, stop)).to(torch.float32)
            values.mul_(screen.scale)
            own = ((index >= start) & (index < stop)).nonzero().squeeze(1)
            values[own.to(values.device), (index[own] - start).to(values.device)] = 0.0
            yield start, values


def calibrate(width: int, device: torch.device) -> ScreenName:
    """Return the fastest kind of product on this machine, timed on a small example.

    Takes about a third of a second at most. int8 leaves more candidates to refine, so it has to
    win clearly.
    """
    size, width = (512, min(max(width, 64), 1024)) if device.type == "cpu" else (4096, 2304)
    seconds: dict[ScreenName, float] = {}
    source = torch.randn(size, width, device=device)
    for name, handicap in (("fp32", 1.0), ("bf16", 1.1), ("int8", 1.3)):
        packed = {
            "fp32": source,
            "bf16": source.to(torch.bfloat16),
            "int8": (source * 30).clamp_(-127, 127).to(torch.int8),
        }[name]
        try:
            seconds[name] = handicap * _time_product(packed)  # type: ignore[index]
        except RuntimeError:  # this build or device has no such product
            continue
    return min(seconds, key=lambda name: seconds[name])


def _time_product(packed: Tensor) -> float:
    best = math.inf
    with _exact_float32():
        for _ in range(3):
            start = time.perf_counter()
            _product(packed, packed)
            if packed.is_cuda:
                torch.cuda.synchronize(packed.device)
            best = min(best, time.perf_counter() - start)
            if best > 0.1:
                break
    return best
