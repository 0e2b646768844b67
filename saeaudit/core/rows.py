"""The rows of a decoder and their exact cosines.

Everything that saeaudit reports is computed here, in float64 and in a fixed order of elementwise
operations, so that the same input gives the same bits whatever the processor, the number of
threads or the size of a tile. Matrix products (whose order of summation is the library's secret)
only ever *propose* candidates.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK_BYTES = 4 << 20
"""Size of the float64 scratch of one exact step: small enough for the last-level cache."""


def fold(x: Tensor) -> Tensor:
    """Sum over the last axis by repeated halving, in an order that depends on its length alone.

    Args:
        x: ``[..., d]``.

    Returns:
        ``[...]``. Example: ``fold(tensor([1., 2., 3.]))`` is ``(1 + 3) + 2``.
    """
    if x.shape[-1] == 0:
        return x.new_zeros(x.shape[:-1])
    while x.shape[-1] > 1:
        half = x.shape[-1] // 2
        folded = x[..., :half] + x[..., half : 2 * half]
        if x.shape[-1] % 2:
            folded[..., 0] += x[..., -1]
        x = folded
    return x[..., 0]


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms of the rows, exact to float64 rounding and reproducible.

    Args:
        rows: ``[F, d]`` of any float dtype, possibly memory-mapped.

    Returns:
        ``[F]`` float64 on the CPU; not finite where a row is not.
    """
    count, width = rows.shape
    norms = torch.empty(count, dtype=torch.float64)
    for start, stop in spans(count, chunk_rows(width)):
        block = rows[start:stop].to(torch.float64)
        norms[start:stop] = fold(block * block).sqrt()
    return norms


def chunk_rows(width: int) -> int:
    """Return how many float64 rows of this width fill `CHUNK_BYTES` (at least one)."""
    return max(1, CHUNK_BYTES // (8 * max(width, 1)))


def spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` over ``range(count)`` in steps of `size`."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


DECADES = torch.tensor([float(f"1e{k}") for k in range(-13, 9)], dtype=torch.float64)
SCALES = torch.tensor([float(f"1e{k}") for k in range(22, -1, -1)], dtype=torch.float64)


def round9(x: Tensor) -> Tensor:
    """Round float64 values to 9 significant digits: the values that decisions are taken on.

    Only comparisons with, and products by, exactly representable powers of ten are used, so the
    result does not depend on a machine's logarithm. Below 1e-14 fewer digits are kept.

    Args:
        x: float64, any shape.

    Returns:
        The same shape. Example: ``round9(tensor(0.1234567891))`` is 0.123456789.
    """
    scale = SCALES[torch.bucketize(x.abs().contiguous(), DECADES, right=True)]
    return torch.where(x.abs() < 1e9, torch.round(x * scale) / scale, x)


@dataclass(frozen=True)
class UnitRows:
    """The usable rows of a decoder, numbered ``0 .. n-1``, seen as unit vectors."""

    rows: Tensor
    """``[F, d]``, any float dtype, on the CPU, possibly memory-mapped; never copied whole."""
    live: Tensor
    """``[n]`` int64, ascending: which rows of the file take part."""
    norms: Tensor
    """``[n]`` float64: their Euclidean norms, all finite and above zero."""

    @property
    def count(self) -> int:
        """Number of usable rows n."""
        return len(self.live)

    @property
    def width(self) -> int:
        """Width d of a row."""
        return self.rows.shape[1]

    def raw(self, index: Tensor) -> Tensor:
        """Rows at `index` ``[m]`` in the file's own scale, ``[m, d]`` float64."""
        return self.rows.index_select(0, self.live[index]).to(torch.float64)

    def block(self, start: int, stop: int) -> Tensor:
        """Unit rows ``start:stop``, ``[stop - start, d]`` float32, within 3e-7 of the truth."""
        first, last = int(self.live[start]), int(self.live[stop - 1])
        if last - first == stop - 1 - start:
            block = self.rows[first : last + 1]
        else:
            block = self.rows.index_select(0, self.live[start:stop])
        return self._scaled(block, self.norms[start:stop])

    @staticmethod
    def _scaled(block: Tensor, norms: Tensor) -> Tensor:
        """Divide rows by their norms; by way of float64 where float32 could overflow."""
        if block.dtype == torch.float64 or norms.min() < 1e-30 or norms.max() > 1e30:
            return (block.to(torch.float64) / norms[:, None]).to(torch.float32)
        return block.to(torch.float32) * (1.0 / norms).to(torch.float32)[:, None]

    def take(self, index: Tensor) -> Tensor:
        """Unit rows at `index` ``[m]``: ``[m, d]`` float32, each within 3e-7 of the truth."""
        return self._scaled(self.rows.index_select(0, self.live[index]), self.norms[index])

    def cosines(self, i: Tensor, j: Tensor) -> Tensor:
        """Exact cosines of pairs of rows.

        Args:
            i: ``[m]`` int64 row numbers.
            j: ``[m]`` int64 row numbers.

        Returns:
            ``[m]`` float64 in [-1, 1], the same bits on every machine.
        """
        out = torch.empty(len(i), dtype=torch.float64)
        for start, stop in spans(len(i), max(1, chunk_rows(self.width) // 2)):
            a, b = i[start:stop], j[start:stop]
            dots = fold(self.raw(a).mul_(self.raw(b)))
            out[start:stop] = dots / (self.norms[a] * self.norms[b])
        return out.clamp_(-1.0, 1.0)
