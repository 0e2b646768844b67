"""Certified low-precision screening: every pair of rows whose cosine may pass a threshold.

A sweep multiplies tiles of the upper triangle in int8, bfloat16 or float32 and proposes the pairs
whose *estimated* cosine passes. The distance between estimate and truth is bounded by a slack that
is measured on the rows at hand, so screening at ``threshold - slack`` misses nothing:

    |u_i.u_j - v_i.v_j| <= e_i + e_j + e_i e_j + accumulation,      e_i = |u_i - v_i|

with v the rounded rows. Nothing is decided here; see `saeaudit.core.rows` for the exact cosines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.products import int_product, sampled_products, second_dtype
from saeaudit.core.cosines.rotation import Rotation
from saeaudit.core.cosines.stream import unit_blocks
from saeaudit.core.float32 import UNIT_ERROR, exact_float32
from saeaudit.core.rows import MARGIN, UnitRows, spans
from saeaudit.vocabulary import ScreenName

SLACK_LIMIT = 0.05
"""No screen with a larger slack is used: such rows are swept in float32 instead."""
NORM_ERROR = 1.0003
"""A norm taken in float32 is too small by less than this factor: even summed one by one, 5000
squares lose no more, and sums are taken in blocks."""
LEVELS = 127
"""Largest magnitude of an int8 level, the same on both sides."""
CLIPS = (4.0, 5.0, 6.0, 8.0, 12.0)
"""Standard deviations of a rotated entry at which int8 may clip: smaller steps, or fewer entries
cut; the best for the rows at hand is taken."""
PROBED = 256
"""Rows that it is chosen on."""
WORTH_A_LOOK = 10
"""Estimates are looked at again where that divides their slack by more than this: float32 has a
fiftieth of the other screens' slack at usual widths, and itself otherwise."""
ROTATION_ERROR = 4e-5
"""Bound on what float32 rotation by two orthogonal factors does to a cosine of two unit rows."""
INT8_ERROR = ROTATION_ERROR + 2.0**-23
"""What int8 products are off by beside the rounding of the rows."""


@dataclass(frozen=True)
class Screen:
    """Rows made ready for one kind of matrix product."""

    name: ScreenName | Literal["fp16"]
    """The kind of product; float16 only for whole rows."""
    units: UnitRows
    packed: Tensor | None
    """``[n, d']`` copy on `device`; None for float32 rows that are multiplied as they are stored,
    or too large to hold and read each time."""
    scale: float
    """A product times `scale` is an estimated cosine."""
    slack: float
    """Bound on |estimate - cosine| over all pairs of rows."""
    device: torch.device
    error: Tensor
    """``[n]`` float32 where the rows are: bound on the distance of each row from its unit row."""
    rest: float
    """Bound on what else an estimate is off by, whatever its size: accumulation, rotation."""
    rounding: float = 0.0
    """Bound on what a product loses when it is returned, as a share of itself."""
    margin: Tensor | None = None
    """``[n]`` int32, int8 rows only: a pair's product is off by at most the sum of its two."""
    dtype: torch.dtype = torch.float32
    """Of the rows as they enter a product."""

    @property
    def as_stored(self) -> bool:
        """Whether products are made of the rows as they are stored, and divided by their norms."""
        single = self.packed is None and self.dtype == torch.float32
        return single and self.device == self.units.device and self.units.multipliable

    @property
    def usual_slack(self) -> float:
        """The slack if all rows were off by as much as they are on average."""
        worst, mean = float(self.error.max()), float(self.error.mean())
        return self.slack - _combined(worst) + _combined(mean)

    def least(self, floor: float) -> float:
        """Least |product|, before margins where there are any, of a pair with |cosine| >= floor."""
        if self.margin is None:
            return max(floor - self.slack, 0.0) / self.scale * (1 - MARGIN)
        return max(math.floor((floor - INT8_ERROR) / self.scale), 0)

    def block(self, start: int, stop: int) -> Tensor:
        """Rows ``start:stop`` as they enter a product, ``[stop - start, d']``."""
        if self.packed is None:
            return self.units.block(start, stop).to(self.device, self.dtype)
        return self.packed[start:stop]

    def multiply(self, rows: Tensor, start: int, stop: int) -> Tensor:
        """Products ``[m, stop - start]`` of packed rows ``[m, d']`` with rows ``start:stop``.

        int32 from int8, else in the rows' dtype.
        """
        if self.as_stored:
            scale = (1.0 / self.units.norms[start:stop]).to(torch.float32)
            return (rows @ self.units.stored(start, stop).T).mul_(scale)
        block = self.block(start, stop)
        return int_product(rows, block) if rows.dtype == torch.int8 else rows @ block.T

    def pick(self, index: Tensor) -> Tensor:
        """Rows at `index` as they enter a product, ``[len(index), d']``."""
        if self.packed is None:
            return self.units.take(index.to(self.units.device)).to(self.device, self.dtype)
        return self.packed[index.to(self.device)]

    def off_by(self, i: Tensor, j: Tensor, value: Tensor) -> Tensor:
        """Bounds ``[m]`` on the error of each pair's own estimate `value` ``[m]``.

        Shapes may be any others that broadcast.
        """
        return self._off_by(self.error[i], self.error[j], value)

    def off_by_at_most(self, i: Tensor, value: Tensor) -> Tensor:
        """Bounds ``[m]`` on the errors of estimates `value` ``[m]`` of rows with any partner.

        They rise with the estimate, so that sums of a row's largest are bounded by them.
        """
        return self._off_by(self.error[i], self.error.max(), value)

    def _off_by(self, a: Tensor, b: Tensor, value: Tensor) -> Tensor:
        return a + b + a * b + (self.rest + MARGIN) + self.rounding * value.abs()


def make_screen(units: UnitRows, name: ScreenName, device: torch.device) -> Screen:
    """Prepare rows for screening; falls back to float32 where the slack would pass `SLACK_LIMIT`.

    Args:
        units: n rows of width d.
        name: the kind of product.
        device: where products run.
    """
    screen = _fp32(units, device) if name == "fp32" else _rounded(units, name, device)
    return screen if screen.slack <= SLACK_LIMIT else _fp32(units, device)


def _rounded(units: UnitRows, name: ScreenName, device: torch.device) -> Screen:
    return _int8(units, device) if name == "int8" else _bf16(units, device)


class Screens(NamedTuple):
    """The same rows made ready to propose pairs, and to look closer at what is proposed."""

    quick: Screen
    """What a sweep runs on, of the kind asked for."""
    second: Screen
    """For whole rows: the fastest kind on this machine with a slack well below int8's."""
    fine: Screen
    """float32, for single pairs and few whole rows; the same object where that was asked for."""

    @property
    def units(self) -> UnitRows:
        """The rows."""
        return self.quick.units

    @property
    def name(self) -> ScreenName:
        """Kind of product of the quick one."""
        assert self.quick.name != "fp16", "float16 is for whole rows"
        return self.quick.name

    @property
    def refines(self) -> bool:
        """Whether a look at the fine screen's estimates rules out enough to be worth its time."""
        return self.quick.slack > WORTH_A_LOOK * self.fine.slack


def make_screens(units: UnitRows, name: ScreenName, device: torch.device) -> Screens:
    """Prepare rows for screening by one kind of product, for whole rows, and in float32.

    As for `make_screen`.
    """
    return add_quick(fine_screen(units, device), name)


def fine_screen(units: UnitRows, device: torch.device) -> Screen:
    """Rows in float32 for single pairs and whole rows, which need no copy of what is float32."""
    return _fp32(units, device, keep=device != units.device or not units.multipliable)


def half_screen(fine: Screen) -> Screen | None:
    """The rows of a float32 screen in 16 bits, where that is fast and they are held.

    It is of use whether int8 or products of its own kind are taken then.
    """
    units, device = fine.units, fine.device
    dtype = second_dtype(units.width, device)
    if dtype == torch.float32 or not _held(units, device):
        return None
    return second_screen(units, device, dtype)


def add_quick(fine: Screen, name: ScreenName, half: Screen | None = None) -> Screens:
    """Prepare the rows of a float32 screen for one kind of product, and for whole rows.

    Args:
        fine: the float32 screen.
        name: the kind of product.
        half: of `half_screen`, where it is there already.
    """
    if half and half.name == name:
        quick = half
    else:
        quick = fine if name == "fp32" else _rounded(fine.units, name, fine.device)
    if quick is fine or quick.slack > SLACK_LIMIT:
        quick = fine  # so that a copy that is of no use is given back before another is made
        held = fine if fine.packed is not None else _fp32(fine.units, fine.device)
        return Screens(held, held, held)
    if quick.name == "bf16":
        return Screens(quick, quick, fine)
    if half:
        return Screens(quick, half, fine)
    dtype = second_dtype(fine.units.width, fine.device)
    second = fine if dtype == torch.float32 else second_screen(fine.units, fine.device, dtype)
    return Screens(quick, second, fine)


def second_screen(units: UnitRows, device: torch.device, dtype: torch.dtype) -> Screen:
    """Prepare rows in a dtype of 16 or 32 bits; held where that takes little, else made again."""
    if dtype == torch.float32:
        return _fp32(units, device)
    return _half(units, device, dtype, keep=_held(units, device))


def _held(units: UnitRows, device: torch.device) -> bool:
    """Whether rows of 16 bits take so little that they are held."""
    return 2 * units.count * units.width <= units.budget.half_bytes.on(device)


def _fp32(units: UnitRows, device: torch.device, *, keep: bool = True) -> Screen:
    rest = _accumulation(units.width)
    packed = None
    if keep and 4 * units.count * units.width <= units.budget.float32_bytes.on(device):
        packed = torch.empty(units.count, units.width, device=device)
        for start, stop, block in unit_blocks(units, device, units.budget.packed_rows.on(device)):
            packed[start:stop] = block
    error = torch.full((units.count,), UNIT_ERROR, device=units.device)
    return Screen("fp32", units, packed, 1.0, _combined(UNIT_ERROR) + rest, device, error, rest)


def _combined(error: float) -> float:
    return 2 * error + error * error


def _accumulation(width: int) -> float:
    """Bound on the error of a float32 dot product of two vectors of norm <= 1.01."""
    return 1.1 * width * 2.0**-24


def _bf16(units: UnitRows, device: torch.device) -> Screen:
    return _half(units, device, torch.bfloat16, keep=True)


def _half(units: UnitRows, device: torch.device, dtype: torch.dtype, *, keep: bool) -> Screen:
    size = units.budget.packed_rows.on(device)
    packed = torch.empty(units.count if keep else size, units.width, dtype=dtype, device=device)
    error = torch.empty(units.count, device=device)
    for start, stop, block in unit_blocks(units, device, size):
        rounded = packed[start:stop] if keep else packed[: stop - start]
        rounded.copy_(block)
        error[start:stop] = torch.linalg.vector_norm(block.sub_(rounded), dim=1)
    error = error.mul_(NORM_ERROR).add_(UNIT_ERROR)
    # The product comes back in the same dtype: off by half a unit in its last place.
    unit = torch.finfo(dtype).eps / 2
    rest = _accumulation(units.width) + torch.finfo(dtype).tiny
    slack = _combined(float(error.max())) + rest + unit
    name: Literal["bf16", "fp16"] = "bf16" if dtype == torch.bfloat16 else "fp16"
    return Screen(
        name, units, packed if keep else None, 1.0, slack, device, error.to(units.device), rest,
        rounding=unit / (1 - unit), dtype=dtype,
    )  # fmt: skip


def _int8(units: UnitRows, device: torch.device) -> Screen:
    """Rotate the rows so that no entry stands out, then round to 8 bits on one common grid.

    One grid for all rows makes the threshold one integer. It clips at some standard deviations of
    a rotated entry; what clipping costs is part of each row's measured error.
    """
    rotate = Rotation(units.width, device)
    sigma = 1.0 / math.sqrt(rotate.width)
    sample = torch.arange(0, units.count, max(1, units.count // PROBED), device=units.device)
    probe = rotate(units.take(sample).to(device))
    clips = [c for c in CLIPS if c * sigma < 1.0] or [1.0 / sigma]
    steps = [c * sigma / LEVELS for c in clips]
    errors = torch.stack(
        [
            torch.linalg.vector_norm(_levels(probe, s).mul_(s).sub_(probe), dim=1).max()
            for s in steps
        ]
    )
    step = steps[int(errors.argmin())]
    packed = torch.empty(units.count, rotate.width, dtype=torch.int8, device=device)
    error = torch.empty(units.count, device=device)
    for start, stop, block in unit_blocks(units, device, units.budget.packed_rows.on(device)):
        rotated = rotate(block)
        levels = _levels(rotated, step)
        packed[start:stop] = levels
        error[start:stop] = torch.linalg.vector_norm(levels.mul_(step).sub_(rotated), dim=1)
    bound = error.cpu().to(torch.float64) * NORM_ERROR + UNIT_ERROR
    worst = float(bound.max())
    slack = _combined(worst) + INT8_ERROR
    # e_i e_j <= (e_i + e_j) worst / 2, so each row has a margin of its own.
    margin = (bound * ((1 + worst / 2) / step**2)).ceil_().to(device, torch.int32)
    return Screen(
        "int8", units, packed, step * step, slack, device, bound.to(units.device, torch.float32),
        INT8_ERROR, margin=margin, dtype=torch.int8,
    )  # fmt: skip


def _levels(block: Tensor, step: float) -> Tensor:
    """Nearest of 255 levels `step` apart, as whole numbers in float32."""
    return (block * (1 / step)).round_().clamp_(-LEVELS, LEVELS)


def pair_estimates(fine: Screen, i: Tensor, j: Tensor) -> Tensor:
    """Estimated cosines of pairs, within the slack of the screen.

    Args:
        fine: a float32 screen.
        i: ``[m]`` int64 row numbers; fastest where they ascend.
        j: ``[m]`` int64 row numbers.

    Returns:
        ``[m]`` float32 where the rows are.
    """
    units, packed = fine.units, fine.packed
    home, step = units.device, units.budget.paired_rows
    if packed is not None:
        products = sampled_products(packed, i.to(packed.device), j.to(packed.device), step)
        return products.to(home)
    if fine.as_stored:
        products = sampled_products(units.rows, units.live[i], units.live[j], step)
        return (products / (units.norms[i] * units.norms[j])).to(torch.float32)
    out = torch.empty(len(i), device=home)
    for start, stop in spans(len(i), step.on(home)):
        a, b = units.take(i[start:stop]), units.take(j[start:stop])
        out[start:stop] = torch.linalg.vecdot(a, b)
    return out


def products_with_all(screen: Screen, index: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Products of the rows at `index` with all rows, a block of columns at a time.

    Args:
        screen: the prepared rows.
        index: ``[m]`` int64 row numbers.

    Yields:
        ``(start, values)`` with values ``[m, columns]`` of the product's own dtype, on the screen's
        device: estimates times `Screen.scale`, zero where a row meets itself.
    """
    with exact_float32(), torch.inference_mode():
        rows, numbers = screen.pick(index), index.cpu()
        for start, stop in spans(screen.units.count, _columns(screen, len(index))):
            values = screen.multiply(rows, start, stop)
            itself = ((numbers >= start) & (numbers < stop)).nonzero().squeeze(1)
            if len(itself):
                column = (numbers[itself] - start).to(screen.device)
                values[itself.to(screen.device), column] = 0
            yield start, values


def _columns(screen: Screen, rows: int) -> int:
    """Columns of some whole rows at once: on a CPU as many as stay in its last cache.

    An accelerator takes all for few rows that it holds.
    """
    budget = screen.units.budget
    columns = budget.columns.on(screen.device)
    if screen.device.type == "cpu":
        return min(columns, budget.tile_side(screen.device))
    if screen.packed is None:
        return columns
    return max(columns, budget.whole_entries // (2 * max(rows, 1)))


def estimates(screen: Screen, index: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Estimated cosines of the rows at `index` with all rows, as `products_with_all`.

    Yields:
        ``(start, values)`` with values ``[m, columns]`` float32 where the rows are, zero where a
        row meets itself.
    """
    with torch.inference_mode():
        for start, values in products_with_all(screen, index):
            yield start, values.to(screen.units.device, torch.float32).mul_(screen.scale)
