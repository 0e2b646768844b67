"""Matrix products that screening is made of. They propose; they never decide."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saeaudit.core.budget import Size
from saeaudit.core.float32 import exact_float32
from saeaudit.core.rows import spans

HALVES = (torch.bfloat16, torch.float16)
NARROWEST, WIDEST = 64, 1024
"""Widths between which the speed of a product depends on the width."""
FEW = 256
"""Rows that kinds of product are compared on."""
SECOND_HANDICAP = 1.3
"""Times as fast as float32 that bfloat16 must be for whole rows: it leaves more to look at."""
TURNS = 3
"""Turns of works that are timed together."""
ENOUGH = 0.1
"""Seconds after which works that are timed have no further turn."""
LOOKED_AT = 128
"""Rows of a product that a CPU looks at together: their magnitudes stay in its nearest caches."""
TAKEN = 1 << 15
"""Entries from which on they are passed on before the next are looked for."""


Array = np.ndarray[Any, Any]
Entries = tuple[Tensor, Tensor, Tensor]
"""Row numbers, column numbers and values of some entries of a matrix."""


class Tile:
    """Products of blocks of packed rows, in buffers that are used again for every tile."""

    def __init__(self, rows: int, columns: int, like: Tensor) -> None:
        """Make room for products of as many rows, of the dtype and on the device of `like`."""
        self._exact = like.dtype == torch.int8
        kind = torch.int32 if self._exact else like.dtype
        self._product = torch.empty(rows * columns, dtype=kind, device=like.device)
        look = _LookOnCpu if like.device.type == "cpu" else _Look
        self._look: _Look | _LookOnCpu = look(columns, self._product)

    def __call__(self, a: Tensor, b: Tensor, least: Tensor) -> Iterator[Entries]:
        """Entries of ``a @ b.T`` whose magnitude reaches a least value, or nearly does.

        The product keeps the dtype that it is made in, and is looked at once.

        Args:
            a: ``[m, d]``, as `like`.
            b: ``[c, d]``, as `like`.
            least: ``[m]`` float64, not negative.

        Yields:
            Row numbers, column numbers (int64) and products (float32), ``[e]`` each, of some rows
            at a time.
        """
        columns = len(b)
        product = self._product[: len(a) * columns].view(len(a), columns)
        if not self._exact:
            torch.mm(a, b.T, out=product)
        elif a.device.type == "cpu":
            torch._int_mm(a, b.T, out=product)
        else:
            product = int_product(a, b)
        for flat, value in self._look(product, least):
            yield *_places(flat, columns), value.to(torch.float32)


class _Look:
    """Finds entries of a product that may reach least magnitudes, on a device."""

    def __init__(self, side: int, like: Tensor) -> None:
        """Make room for as many rows and columns, of the dtype and on the device of `like`."""
        self._side = side
        self._magnitude = torch.empty(side * side, dtype=like.dtype, device=like.device)
        self._passing = torch.empty(side * side, dtype=torch.bool, device=like.device)

    def __call__(self, product: Tensor, least: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Find the entries of some rows at a time.

        One bound serves for them all: as many again would take twice the time to compare with.

        Args:
            product: ``[m, c]``.
            least: ``[m]`` float64.

        Yields:
            Flat positions ``[e]`` int64, ascending, and values ``[e]`` of the product's dtype.
        """
        for start, stop in spans(len(product), self._side):
            part = product[start:stop]
            magnitude = self._magnitude[: part.numel()].view(part.shape)
            passing = self._passing[: part.numel()].view(part.shape)
            torch.abs(part, out=magnitude)
            _reach(magnitude, least[start:stop].amin(0, keepdim=True), passing)
            flat = _positions(passing)
            yield flat + start * part.shape[1], part.reshape(-1)[flat]


class _LookOnCpu:
    """As `_Look`, with a bound for as many rows as stay in a cache until their entries are taken.

    In NumPy: torch wakes its threads for too little here, and is slow at comparing.
    """

    def __init__(self, side: int, like: Tensor) -> None:
        """As of `_Look`."""
        self._signed = like.dtype == torch.int32
        self._bits = torch.int16 if like.dtype in HALVES else torch.int32
        room = LOOKED_AT * side
        self._magnitude = torch.empty(room, dtype=self._bits).numpy()
        self._passing = torch.empty(room, dtype=torch.bool).numpy()
        # Floats without their signs are in the order of the integers that they are made of.
        self._without_sign = torch.iinfo(self._bits).max

    def __call__(self, product: Tensor, least: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """As of `_Look`, `TAKEN` entries or a few more at a time."""
        entries = product.view(self._bits).numpy()
        starts = np.arange(0, len(entries), LOOKED_AT)
        bounds = np.minimum.reduceat(least.to(product.dtype).view(self._bits).numpy(), starts)
        places: list[Array] = []
        values: list[Array] = []
        held = 0
        for start, bound in zip(starts.tolist(), bounds, strict=True):
            part = entries[start : start + LOOKED_AT].reshape(-1)
            magnitude, passing = self._magnitude[: part.size], self._passing[: part.size]
            if self._signed:
                np.abs(part, out=magnitude)
            else:
                np.bitwise_and(part, self._without_sign, out=magnitude)
            np.greater_equal(magnitude, bound, out=passing)
            flat = np.flatnonzero(passing)
            values.append(part[flat])
            places.append(flat + start * entries.shape[1])
            held += len(flat)
            if held >= TAKEN or start == starts[-1]:
                value = torch.from_numpy(np.concatenate(values)).view(product.dtype)
                yield torch.from_numpy(np.concatenate(places)), value
                places, values, held = [], [], 0


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` of packed rows: int32 from int8, else float32."""
    if a.dtype == torch.int8:
        return int_product(a, b)
    return (a @ b.T).to(torch.float32)


def entries_above(values: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entries of a matrix that reach a least value each row has of its own.

    Args:
        values: ``[m, c]`` of any dtype, not negative.
        least: ``[m]`` float64, rounded to the values' dtype.

    Returns:
        Row numbers, column numbers (int64) and values (float32), ``[e]`` each where `least` is.
    """
    passing = torch.empty(values.shape, dtype=torch.bool, device=values.device)
    _reach(values, least.to(values.device), passing)
    flat = _positions(passing)
    entry = values.reshape(-1)[flat].to(least.device, torch.float32)
    return *_places(flat.to(least.device), values.shape[1]), entry


def largest(values: Tensor) -> Tensor:
    """Largest entry of each row of ``[m, c]``, not negative: ``[m]`` of the same dtype."""
    return _ordered(values).amax(1).view(values.dtype)


def _places(flat: Tensor, columns: int) -> tuple[Tensor, Tensor]:
    return torch.div(flat, columns, rounding_mode="floor"), flat % columns


def _ordered(values: Tensor) -> Tensor:
    """Values that are not negative as numbers of the same order that are quick to compare.

    Those of 16 bits are compared as the integers that they are made of, eight times as fast.
    """
    return values.view(torch.int16) if values.dtype in HALVES else values


def _reach(values: Tensor, least: Tensor, passing: Tensor) -> None:
    """Tell which of ``[m, c]`` `values` reach ``[m]`` or ``[1]`` least values, in ``[m, c]`` bool.

    Rounded to the values' dtype these float64 pass over no value that reaches them.
    """
    values, bound = _ordered(values), _ordered(least.to(values.dtype))[:, None]
    if values.device.type == "cpu":  # several times as fast as the same in torch
        np.greater_equal(values.numpy(), bound.numpy(), out=passing.numpy())
    else:
        torch.ge(values, bound, out=passing)


def _positions(passing: Tensor) -> Tensor:
    """Where a bool matrix, flattened, is true: ``[e]`` int64, ascending."""
    if passing.device.type == "cpu":  # several times as fast as the same in torch
        return torch.from_numpy(np.flatnonzero(passing.numpy()))
    return passing.reshape(-1).nonzero().squeeze(1)


def int_product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` of int8 rows, ``[len(a), len(b)]`` int32, exact."""
    if a.device.type == "cpu":
        return torch._int_mm(a, b.T)
    # cuBLASLt wants more than 16 rows and multiples of 8 columns.
    m, n = len(a), len(b)
    if m <= 16:
        a = torch.nn.functional.pad(a, (0, 0, 0, 17 - m))
    if n % 8:
        b = torch.nn.functional.pad(b, (0, 0, 0, -n % 8))
    return torch._int_mm(a, b.T)[:m, :n]


def sampled_products(rows: Tensor, i: Tensor, j: Tensor, step: Size) -> Tensor:
    """Dot products of pairs of rows.

    On a CPU as one sampled dense-dense product, so that nothing is gathered.

    Args:
        rows: ``[n, d]`` float32 or float64.
        i: ``[m]`` int64 row numbers.
        j: ``[m]`` int64 row numbers.
        step: pairs gathered at once.

    Returns:
        ``[m]`` in the rows' dtype.
    """
    if rows.device.type != "cpu":
        out = torch.empty(len(i), dtype=rows.dtype, device=rows.device)
        for start, stop in spans(len(i), step.on(rows.device)):
            out[start:stop] = torch.linalg.vecdot(rows[i[start:stop]], rows[j[start:stop]])
        return out
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


def timed_width(width: int) -> int:
    """Width of the rows that products of a width are timed on: beyond these speed is the same."""
    return min(max(width, NARROWEST), WIDEST)


def least_seconds(works: Sequence[Callable[[], object]], device: torch.device) -> list[float]:
    """Seconds of each of some works, the least of six: fewer where they take long.

    They take turns, so that what slows a machine for a moment slows no one of them alone; two runs
    to a turn, since the first finds the caches full of what others use.
    """
    best = [math.inf] * len(works)
    with exact_float32():
        for _ in range(TURNS):
            for place, work in enumerate(works):
                for _ in range(2):
                    start = time.perf_counter()
                    work()
                    if device.type == "cuda":
                        torch.cuda.synchronize(device)
                    best[place] = min(best[place], time.perf_counter() - start)
            if sum(best) > ENOUGH:
                break
    return best


def second_dtype(width: int, device: torch.device) -> torch.dtype:
    """float16 on CUDA, where it is accumulated in float32; bfloat16 where a CPU is fast at it."""
    if device.type == "cuda":
        return torch.float16
    if device.type == "cpu" and bfloat16_pays(timed_width(width)):
        return torch.bfloat16
    return torch.float32


@cache
def bfloat16_pays(width: int) -> bool:
    """Whether this CPU multiplies bfloat16 faster than float32; only speed depends on it."""
    single = torch.randn(FEW, width, generator=torch.Generator().manual_seed(0))
    half = single.to(torch.bfloat16)
    works = [partial(product, rows, rows) for rows in (single, half)]
    slow, fast = least_seconds(works, single.device)
    return fast * SECOND_HANDICAP < slow
