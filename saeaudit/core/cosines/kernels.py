"""The sweep as one fused Triton kernel: int8 products whose results never leave the chip.

A program multiplies one tile of rows by one tile of columns into int32 registers, then, without
writing the products anywhere,

- raises each row's and each column's largest magnitude (one atomic maximum a row of a tile),
- compares ``|product| + margin_i + margin_j`` with the threshold, all integers,
- appends what passes to a buffer, with one atomic addition for the whole tile.

Rows are swept in strips. Within a strip the row tile changes fastest, so the strip's rows and the
few column tiles at work stay in the second-level cache. A strip that finds more than the buffer
holds is swept again, with a larger buffer or, beyond what may be held, in two halves: nothing is
lost.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saeaudit.core.budget import DEFAULT, Budget
from saeaudit.core.rows import spans

try:
    import triton
    import triton.language as tl
except ImportError:
    triton = None

TUNED_FROM = 131_072
"""Rows from which on the first sweep of a process times the configurations that fit: below, a trial
of each takes longer than the best of them saves."""
TRIAL_ROWS = 32_768
"""Rows that configurations are timed on."""
TRIED = 6
"""Configurations that are timed, of those that fit."""


class Config(NamedTuple):
    """Shape of a tile and how it is pipelined."""

    rows: int
    columns: int
    depth: int
    """Entries of the rows to a step of the product."""
    warps: int
    stages: int

    @property
    def shared(self) -> int:
        """Bytes of shared memory that the pipeline takes."""
        return (self.rows + self.columns) * self.depth * self.stages


CONFIGS = (
    Config(128, 128, 128, 4, 3),
    Config(128, 256, 128, 8, 3),
    Config(128, 256, 128, 8, 4),
    Config(128, 128, 128, 8, 4),
    Config(128, 128, 128, 8, 3),
    Config(128, 128, 64, 4, 4),
    Config(64, 128, 64, 4, 3),
    Config(64, 64, 64, 4, 2),
)
"""Best first where nothing is known; the last ones suit devices with little shared memory."""

if triton is not None:

    @triton.jit  # type: ignore[untyped-decorator]
    def sweep_tile(  # type: ignore[no-untyped-def]
        packed,  # int8 [n, width]
        margin,  # int32 [n]
        best,  # int32 [n], raised to the largest |product| of every row
        hit_i,  # int32 [capacity]
        hit_j,  # int32 [capacity]
        hit_value,  # int32 [capacity]
        hits,  # int64 [1], raised by the number of hits, stored or not
        count,  # n
        width,
        first,  # first row of the strip
        last,  # row after its last
        row_tiles,  # tiles of rows in the strip
        need,
        capacity,
        ROWS: tl.constexpr,
        COLUMNS: tl.constexpr,
        DEPTH: tl.constexpr,
        EVEN: tl.constexpr,  # whether DEPTH divides width
    ) -> None:
        """One tile; see the module. A comment on each argument gives its dtype and shape."""
        tile = tl.program_id(0)
        top = first + (tile % row_tiles) * ROWS
        left = first // COLUMNS * COLUMNS + (tile // row_tiles) * COLUMNS
        if left + COLUMNS <= top + 1:  # nothing above the diagonal
            return
        i = top + tl.arange(0, ROWS)
        j = left + tl.arange(0, COLUMNS)
        k = tl.arange(0, DEPTH)
        # Rows past the end are read as the last one, and left out below.
        a = packed + tl.minimum(i, count - 1).to(tl.int64)[:, None] * width + k[None, :]
        b = packed + tl.minimum(j, count - 1).to(tl.int64)[None, :] * width + k[:, None]
        product = tl.zeros((ROWS, COLUMNS), dtype=tl.int32)
        for start in range(0, width, DEPTH):
            if EVEN:
                x = tl.load(a)
                y = tl.load(b)
            else:
                x = tl.load(a, mask=k[None, :] < width - start, other=0)
                y = tl.load(b, mask=k[:, None] < width - start, other=0)
            product = tl.dot(x, y, product, out_dtype=tl.int32)
            a += DEPTH
            b += DEPTH
        if (left <= top + ROWS) | (top + ROWS > last) | (left + COLUMNS > count):
            inside = (i[:, None] < j[None, :]) & (i[:, None] < last) & (j[None, :] < count)
            product = tl.where(inside, product, 0)
        of_rows = tl.maximum(tl.max(product, 1), -tl.min(product, 1))
        of_columns = tl.max(tl.abs(product), 0)
        tl.atomic_max(best + i, of_rows, mask=i < last, sem="relaxed")
        tl.atomic_max(best + j, of_columns, mask=j < count, sem="relaxed")
        row_need = need - tl.load(margin + i, mask=i < last, other=0)
        column_margin = tl.load(margin + j, mask=j < count, other=0)
        hit = tl.abs(product) >= row_need[:, None] - column_margin[None, :]
        product = tl.where(hit, product, 0)
        rest = tl.sum(tl.sum((product != 0).to(tl.int32), 1), 0)
        if rest > 0:
            base = tl.atomic_add(hits, rest.to(tl.int64), sem="relaxed")
            # One hit of every row at a time, from the right: a tile has few, and a scan of the
            # whole tile would not fit in the registers.
            bound = tl.zeros((ROWS,), dtype=tl.int32) + count
            while rest > 0:
                left_of = (product != 0) & (j[None, :] < bound[:, None])
                bound = tl.max(tl.where(left_of, j[None, :], -1), 1)
                value = tl.sum(tl.where(j[None, :] == bound[:, None], product, 0), 1)
                one = (bound >= 0).to(tl.int32)
                slot = base + tl.cumsum(one, 0) - one
                keep = (bound >= 0) & (slot < capacity)
                tl.store(hit_i + slot, i, mask=keep)
                tl.store(hit_j + slot, bound, mask=keep)
                tl.store(hit_value + slot, value, mask=keep)
                taken = tl.sum(one, 0)
                base += taken
                rest -= taken


def interpreted() -> bool:
    """Whether Triton interprets its kernels on the CPU (TRITON_INTERPRET=1)."""
    return os.environ.get("TRITON_INTERPRET", "0") not in ("", "0")


def usable(device: torch.device) -> bool:
    """Whether the kernel can be built and run for a device."""
    if triton is None:
        return False
    if interpreted():
        return device.type != "cpu"
    if device.type != "cuda" or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    return _builds(device)


@functools.cache
def _builds(device: torch.device) -> bool:
    """Sweep a handful of rows: a missing compiler or an old GPU shows here, once a process."""
    packed = torch.ones(4, 16, dtype=torch.int8, device=device)
    margin = torch.zeros(4, dtype=torch.int32, device=device)
    try:
        pairs = sum(len(i) for _, (i, _, _) in sweep_int8(packed, margin, 16, margin.clone()))
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        # Whatever keeps Triton from building must not keep a scan from running.
        logging.getLogger(__name__).warning(
            "the Triton kernel does not run here, PyTorch's products are used: %s", error
        )
        return False
    return pairs == 6


Hits32 = tuple[Tensor, Tensor, Tensor]
"""Row numbers, larger row numbers and products, int32 ``[m]`` each."""


def sweep_int8(
    packed: Tensor,
    margin: Tensor,
    need: int,
    best: Tensor,
    *,
    config: Config | None = None,
    budget: Budget = DEFAULT,
) -> Iterator[tuple[float, Hits32]]:
    """Every pair i < j with ``|packed_i . packed_j| + margin_i + margin_j >= need``.

    Args:
        packed: ``[n, d]`` int8, contiguous.
        margin: ``[n]`` int32, >= 0.
        need: threshold, more than two margins together.
        best: ``[n]`` int32, raised in place to each row's largest abs(product) with another row.
        config: tile shape; chosen for the device where None.
        budget: how many hits the buffer holds at first and may grow to, a strip with more being
            halved, down to one row; and how many rows a strip has.

    Yields:
        The share of the work done, and the pairs of one strip in no useful order.

    Raises:
        ValueError: products could overflow 32 bits, the tensors do not fit together, or products
            of zero would pass.
    """
    count, width = packed.shape
    if packed.dtype != torch.int8 or not packed.is_contiguous():
        raise ValueError("packed must be contiguous int8")
    for entries in (margin, best):
        shaped = entries.shape == (count,) and entries.is_contiguous()
        if not shaped or entries.dtype != torch.int32:
            raise ValueError("margin and best must be contiguous int32, one entry for each row")
    if width * 127 * 127 >= 1 << 30 or count >= 1 << 30:
        raise ValueError(f"{count} x {width} is beyond 32-bit products")
    if need <= 2 * int(margin.max()):
        raise ValueError("products of zero would pass")
    sweep = _Sweep(packed, margin, need, best)
    chosen = config or _config(sweep, budget)
    buffer = _Buffer(budget.hits, packed.device)
    todo = list(spans(count, budget.strip_rows))[::-1]
    done, total = 0.0, count * (count + 1) / 2
    while todo:
        first, last = todo.pop()
        hits = _launch(chosen, sweep, buffer, first, last)
        if hits > buffer.capacity:
            if hits > budget.most_hits and last - first > 1:
                middle = (first + last) // 2
                todo += [(middle, last), (first, middle)]
            else:
                buffer = _Buffer(hits, packed.device)
                todo.append((first, last))
            continue
        done += (last - first) * (count - (first + last - 1) / 2)
        yield min(1.0, done / total), buffer.read(hits)


class _Buffer:
    """Device memory for hits, and their number."""

    def __init__(self, capacity: int, device: torch.device) -> None:
        self.capacity = capacity
        self.hits = torch.empty(3, capacity, dtype=torch.int32, device=device)
        self.count = torch.zeros(1, dtype=torch.int64, device=device)

    def read(self, count: int) -> Hits32:
        """Copy the first `count` hits out."""
        i, j, value = self.hits[:, :count].clone()
        return i, j, value


class _Sweep(NamedTuple):
    """The arguments of `sweep_int8` that every launch has."""

    packed: Tensor
    margin: Tensor
    need: int
    best: Tensor


def _launch(config: Config, sweep: _Sweep, buffer: _Buffer, first: int, last: int) -> int:
    """Sweep rows ``first:last``; returns the number of hits, of which the buffer holds its share.

    Repeating a strip is harmless: maxima stay what they are, and the count starts again.
    """
    count, width = sweep.packed.shape
    buffer.count.zero_()
    row_tiles = -(-(last - first) // config.rows)
    column_tiles = -(-(count - first // config.columns * config.columns) // config.columns)
    extra: dict[str, Any] = {}
    if not interpreted():  # no floats here; fusion is named because Triton warns where it is not
        extra = {"num_warps": config.warps, "num_stages": config.stages, "enable_fp_fusion": True}
    sweep_tile[(row_tiles * column_tiles,)](
        sweep.packed, sweep.margin, sweep.best, *buffer.hits, buffer.count,
        count, width, first, last, row_tiles, sweep.need, buffer.capacity,
        ROWS=config.rows, COLUMNS=config.columns, DEPTH=config.depth,
        EVEN=width % config.depth == 0, **extra,
    )  # fmt: skip
    return int(buffer.count)


_tuned: dict[tuple[Any, ...], Config] = {}


def _config(sweep: _Sweep, budget: Budget) -> Config:
    """The first configuration that fits the device, or the fastest where that is worth a trial."""
    count, width = sweep.packed.shape
    device = sweep.packed.device
    if device.type != "cuda" or interpreted():
        return CONFIGS[-1]
    properties = torch.cuda.get_device_properties(device)
    shared = getattr(properties, "shared_memory_per_block_optin", 48 << 10)
    fitting = [c for c in CONFIGS if c.shared <= shared]
    if count < TUNED_FROM or len(fitting) < 2:
        return fitting[0]
    key = (properties.name, width)
    if key not in _tuned:
        _tuned[key] = min(fitting[:TRIED], key=lambda config: _trial(config, sweep, budget))
    return _tuned[key]


def _trial(config: Config, sweep: _Sweep, budget: Budget) -> float:
    """Milliseconds that a configuration takes for a strip, infinite where it does not build."""
    packed, margin = sweep.packed[:TRIAL_ROWS], sweep.margin[:TRIAL_ROWS]
    trial = _Sweep(packed, margin, sweep.need, torch.zeros_like(margin))
    buffer = _Buffer(budget.hits, packed.device)
    start: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    stop: Any = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
    last = min(budget.strip_rows, len(packed))
    try:
        for _ in range(2):  # the first one compiles
            start.record()
            _launch(config, trial, buffer, 0, last)
            stop.record()
    except Exception:  # registers or shared memory that this device has not got
        return float("inf")
    torch.cuda.synchronize(packed.device)
    return float(start.elapsed_time(stop))
