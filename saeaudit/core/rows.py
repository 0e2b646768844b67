"""The rows of a decoder and their exact cosines.

Everything that saeaudit reports is computed here, in float64 and in a fixed order of elementwise
operations, so that the same input gives the same bits whatever the processor, the number of
threads or the size of a tile. Matrix products (whose order of summation is the library's secret)
only ever *propose* candidates.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from saeaudit.core.budget import DEFAULT, Budget

MARGIN = 1e-6
"""Every bound on a cosine is loosened by this much, far beyond the rounding of decisions (5e-10),
of estimates kept in float32 (6e-8) and of float64."""


def fold(x: Tensor) -> Tensor:
    """Sum over the last axis by repeated halving, in an order that depends on its length alone.

    Args:
        x: ``[..., d]``.

    Returns:
        ``[...]``. Example: ``fold(tensor([1., 2., 3.]))`` is ``(1 + 3) + 2``.
    """
    width = x.shape[-1]
    if width < 2:
        return x.sum(-1)
    half = width // 2
    folded = x[..., :half] + x[..., half : 2 * half]
    if width % 2:
        folded[..., 0] += x[..., -1]
    return fold_(folded)


def fold_(x: Tensor) -> Tensor:
    """As `fold`, in place of ``[..., d]``, d >= 1: fresh memory would take longer than the sums."""
    width = x.shape[-1]
    while width > 1:
        half = width // 2
        x[..., :half].add_(x[..., half : 2 * half])  # += would copy the sum onto itself
        if width % 2:
            x[..., 0].add_(x[..., width - 1])
        width = half
    return x[..., 0]


def row_norms(rows: Tensor) -> Tensor:
    """Euclidean norms of the rows, exact to float64 rounding and reproducible.

    Args:
        rows: ``[F, d]`` of any float dtype, possibly memory-mapped.

    Returns:
        ``[F]`` float64 on the rows' device; not finite where a row is not.
    """
    count, width = rows.shape
    norms = torch.empty(count, dtype=torch.float64, device=rows.device)
    step = min(DEFAULT.exact_rows(width, rows.device), count)
    scratch = torch.empty(step, width, dtype=torch.float64, device=rows.device)
    for start, stop in spans(count, max(step, 1)):
        block = scratch[: stop - start].copy_(rows[start:stop])
        norms[start:stop] = fold_(block.square_()).sqrt()
    return norms


def spans(count: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` over ``range(count)`` in steps of `size`."""
    for start in range(0, count, size):
        yield start, min(start + size, count)


@functools.cache
def _decimals(device: torch.device) -> tuple[Tensor, Tensor]:
    """Powers of ten between decades, and the power that leaves 9 digits of each decade."""
    decades = [float(f"1e{k}") for k in range(-13, 9)]
    scales = [float(f"1e{k}") for k in range(22, -1, -1)]
    return (
        torch.tensor(decades, dtype=torch.float64, device=device),
        torch.tensor(scales, dtype=torch.float64, device=device),
    )


def round9(x: Tensor) -> Tensor:
    """Round float64 values to 9 significant digits: the values that decisions are taken on.

    Only comparisons with, and products by, exactly representable powers of ten are used, so the
    result does not depend on a machine's logarithm. Below 1e-14 fewer digits are kept.

    Args:
        x: float64, any shape.

    Returns:
        The same shape. Example: ``round9(tensor(0.1234567891))`` is 0.123456789.
    """
    decades, scales = _decimals(x.device)
    size = x.abs()
    scale = scales[torch.bucketize(size.contiguous(), decades, right=True)]
    return torch.where(size < 1e9, torch.round(x * scale) / scale, x)


@dataclass(frozen=True)
class UnitRows:
    """The usable rows of a decoder, numbered ``0 .. n-1``, seen as unit vectors.

    All three tensors are on one device. Exact arithmetic happens there; float64 additions,
    products, quotients and roots are rounded the same way on every device.

    Example: ``UnitRows(decoder, tensor([0, 2]), norms[[0, 2]])`` leaves row 1 of the file out;
    ``.cosines(tensor([0]), tensor([1]))`` is then the cosine of rows 0 and 2 of the file.
    """

    rows: Tensor
    """``[F, d]``, any float dtype, possibly memory-mapped; never copied whole."""
    live: Tensor
    """``[n]`` int64, ascending: which rows of the file take part."""
    norms: Tensor
    """``[n]`` float64: their Euclidean norms, all finite and above zero."""
    budget: Budget = DEFAULT
    """How much of them, and of what is computed from them, is held at once."""

    @property
    def count(self) -> int:
        """Number of usable rows n."""
        return len(self.live)

    @property
    def width(self) -> int:
        """Width d of a row."""
        return self.rows.shape[1]

    @property
    def device(self) -> torch.device:
        """Where the rows are, and all that is computed exactly from them."""
        return self.rows.device

    @cached_property
    def _extreme(self) -> bool:
        """Whether float32 could overflow when rows are divided by their norms."""
        return bool((self.norms.min() < 1e-30) | (self.norms.max() > 1e30))

    @cached_property
    def multipliable(self) -> bool:
        """Whether a CPU can multiply the rows in float32 as they are stored, none of them copied:
        no product of two of them leaves float32's range."""
        single = self.rows.dtype == torch.float32 and self.rows.is_contiguous()
        on_cpu = self.device.type == "cpu"
        return single and on_cpu and bool((self.norms.min() > 1e-15) & (self.norms.max() < 1e15))

    def _at(self, index: Tensor, out: Tensor | None = None) -> Tensor:
        """Rows at `index` ``[m]`` as they are in the file, ``[m, d]``, in `out` if given."""
        whole = self.count == len(self.rows)
        return torch.index_select(self.rows, 0, index if whole else self.live[index], out=out)

    def raw(self, index: Tensor) -> Tensor:
        """Rows at `index` ``[m]`` in the file's own scale, ``[m, d]`` float64."""
        return self._at(index).to(torch.float64)

    def stored(self, start: int, stop: int) -> Tensor:
        """Rows ``start:stop`` as they are in the file, a view where they are contiguous there."""
        if self.count == len(self.rows):
            return self.rows[start:stop]
        first, last = int(self.live[start]), int(self.live[stop - 1])
        if last - first == stop - 1 - start:
            return self.rows[first : last + 1]
        return self.rows.index_select(0, self.live[start:stop])

    def scaled(self, block: Tensor, norms: Tensor) -> Tensor:
        """Divide rows by their norms, in float32; by way of float64 where that could overflow."""
        if block.dtype == torch.float64 or self._extreme:
            return (block.to(torch.float64) / norms[:, None]).to(torch.float32)
        return block.to(torch.float32) * (1.0 / norms).to(torch.float32)[:, None]

    def block(self, start: int, stop: int) -> Tensor:
        """Unit rows ``start:stop``, ``[stop - start, d]`` float32, within 3e-7 of the truth."""
        return self.scaled(self.stored(start, stop), self.norms[start:stop])

    def take(self, index: Tensor) -> Tensor:
        """Unit rows at `index` ``[m]``: ``[m, d]`` float32, each within 3e-7 of the truth."""
        return self.scaled(self._at(index), self.norms[index])

    def cosines(self, i: Tensor, j: Tensor) -> Tensor:
        """Exact cosines of pairs of rows.

        Args:
            i: ``[m]`` int64 row numbers.
            j: ``[m]`` int64 row numbers.

        Returns:
            ``[m]`` float64 in [-1, 1], the same bits on every machine.
        """
        step = min(self.budget.exact_rows(self.width, self.device), len(i))
        dots = torch.empty(len(i), dtype=torch.float64, device=self.device)
        stored = torch.empty(step, self.width, dtype=self.rows.dtype, device=self.device)
        products = torch.empty(step, self.width, dtype=torch.float64, device=self.device)
        for start, stop in spans(len(i), max(step, 1)):
            taken, product = stored[: stop - start], products[: stop - start]
            product.copy_(self._at(i[start:stop], taken))
            product.mul_(self._at(j[start:stop], taken))
            dots[start:stop] = fold_(product)
        return dots.div_(self.norms[i] * self.norms[j]).clamp_(-1.0, 1.0)
