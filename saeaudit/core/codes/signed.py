"""Swaps with codes of either sign by estimates, and what values are tested against.

See `saeaudit.core.codes.screening` for what the tests are.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.estimates import Estimates, Estimator
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import STEPS, ULP
from saeaudit.core.rows import UnitRows, spans

STEEP = 1e30
"""Factor that makes zero or one of a float32 value by its sign, when clamped between these."""
FEW = 4
"""Tests of one row that are decided by an inner product each: with more, the whole row is."""


class Signed(NamedTuple):
    """Swaps with codes of either sign."""

    amount: Tensor
    """``[B, k, c]`` codes of the rows that enter; of no meaning where they may not."""
    value: Tensor
    """``[B, k, c]``: roots of what they gain."""


class Tests(NamedTuple):
    """For each token, limit and removed feature the value over sqrt(d) that a row must reach."""

    wanted: Tensor
    """``[B, T, k]`` bool: where there is a question."""
    root: Tensor
    """``[B, T, k]`` float32: that value."""
    off: Tensor
    """``[B, k]`` float32: by how much a value times sqrt(d) may be off."""

    def sure(self, b: Tensor, t: Tensor, i: Tensor, steep: Tensor, share_off: Tensor) -> Tensor:
        """Values from which on the answer is yes, for some rows of given steepness."""
        return self.root[b, t, i][:, None] * (1 + share_off) + self.off[b, i][:, None] * steep

    def possible(self, b: Tensor, t: Tensor, i: Tensor, steep: Tensor, share_off: Tensor) -> Tensor:
        """Values below which it is no."""
        return self.root[b, t, i][:, None] * (1 - share_off) - self.off[b, i][:, None] * steep

    def open(
        self, rows: Estimates, highest: Tensor, wanted: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Token, limit and place ``[m]`` where the highest value ``[B, k]`` of some may pass.

        Args:
            rows: whose values they are.
            highest: float32.
            wanted: bool, where that matters: ``[B, T, k]``, or ``[B, k]`` for all limits alike.
        """
        wanted = wanted if wanted.ndim == 3 else wanted[:, None, :]
        steep, share_off = rows.steep.amax(1), rows.share_off.amax(1)
        least = self.root * (1 - share_off)[:, None, None] - (self.off * steep[:, None])[:, None]
        b, t, i = (wanted & (highest[:, None] >= least)).nonzero().unbind(1)
        return b, t, i


Undecided = tuple[Tensor, Tensor, Tensor, Tensor]
"""Tests that may be passed, ``[m]`` int64 each: token in ascending order, limit, place, column."""


class LeastSquares:
    """Swaps of one target with codes of either sign, by estimates."""

    def __init__(self, fit: Fit, limits: Tensor, estimator: Estimator, first: int = 0) -> None:
        """Prepare.

        Args:
            fit: a target a token.
            limits: ``[B, T]`` squared errors.
            estimator: of the supports; its further direction ``first`` is the fit's residual.
            first: which of them.
        """
        self._fit = fit
        usable = estimator.sound & (fit.size > 0)
        self._scale = scale = torch.where(usable, fit.size, 1.0).rsqrt()[:, None]
        active = fit.supports.active
        removed = fit.codes / estimator.root * scale
        length = fit.residual.norm(dim=1, keepdim=True) * scale
        self.off = (length + removed.abs()) * (estimator.off + STEPS * ULP)
        """``[B, k]``: by how much values times sqrt(d) may be off."""
        need = fit.without[:, None, :] - limits[:, :, None]
        self.always = ((need <= 0) & active[:, None, :]).sum(2)
        """``[B, T]``: features that may go whatever enters."""
        self.tests = make_tests(
            (need > 0) & active[:, None, :], least_root(need, scale[:, None]), self.off
        )
        self._removed, self._length = removed.to(torch.float32), length.to(torch.float32)
        self._first = first

    def of(self, rows: Estimates) -> Signed:
        """Swaps that bring in some rows."""
        beside = rows.beside[:, self._first] * self._length
        beside = beside.masked_fill_(rows.barred, 0.0)
        value = torch.addcmul(beside[:, None, :], self._removed[:, :, None], rows.cosine)
        value *= rows.nearness
        return Signed(value * rows.nearness, value.abs_())

    def decide(self, rows: Estimates, counts: Tensor, undecided: Undecided) -> Tensor:
        """Count those undecided that pass once their inner products are exact.

        What is left to be off is their rows' distances, the least part.

        Args:
            rows: that may enter.
            counts: ``[B, T, c]`` float32, added to.
            undecided: of `tests`; of rows with more than `FEW` of them none is looked at.

        Returns:
            Bool ``[B, c]``: rows of which some stay undecided.
        """
        b, t, i, c = undecided
        many = torch.zeros(rows.apart.shape, device=b.device)
        many.index_put_((b, c), many.new_ones(len(b)), accumulate=True)
        is_open = many > FEW
        looked_at = ~is_open[b, c]
        b, t, i, c = (index[looked_at] for index in undecided)
        units = self._fit.supports.units
        exact = exact_products(units, self._residuals, (b, i), c + rows.start) * self._scale[b, 0]
        value, root = exact.abs() * rows.nearness[b, i, c], self.tests.root[b, t, i].double()
        off = rows.share_off[b, c]
        passes = value >= root * (1 + off)
        counts.index_put_((b, t, c), passes.to(counts.dtype), accumulate=True)
        between = ~passes & (value >= root * (1 - off))
        is_open[b[between], c[between]] = True
        return is_open

    @cached_property
    def _residuals(self) -> Tensor:
        """``[B, k, d]`` float64: what least squares without each feature leave."""
        fit, inverse = self._fit, self._fit.supports.inverse
        ratio = fit.codes / fit.diagonal
        codes = fit.codes[:, None, :] - ratio[:, :, None] * inverse
        return fit.target[:, None] - codes @ fit.supports.vectors

    def none_within(self, rows: Estimates) -> Tensor:
        """``[B, c]`` bool: rows, of those that are clear, that no swap brings within any limit."""
        value = self.of(rows).value
        b, t, i = self.tests.open(rows, value.amax(2), self.tests.wanted)
        may = value[b, i] >= self.tests.possible(b, t, i, rows.steep[b], rows.share_off[b])
        passes = value.new_zeros(rows.apart.shape).index_add_(0, b, may.to(value.dtype))
        return (passes == 0) & (self.always == 0).all(1, keepdim=True)


def exact_products(
    units: UnitRows, vectors: Tensor, index: tuple[Tensor, Tensor], row: Tensor
) -> Tensor:
    """Inner products ``[m]`` in float64 of unit rows ``row [m]`` with ``vectors [B, k, d]``.

    ``index`` is the token and the place of the vector of each, ``[m]`` int64.
    """
    out = vectors.new_empty(len(row))
    for first, last in spans(len(row), units.budget.exact_rows(units.width, units.device)):
        part = slice(first, last)
        raw = units.raw(row[part])
        chosen = vectors[index[0][part], index[1][part]]
        out[part] = (chosen[:, None, :] @ raw[:, :, None]).view(-1)
    return out / units.norms[row]


def step(values: Tensor) -> Tensor:
    """One where a value is above zero, else zero; in place."""
    return values.mul_(STEEP).clamp_(0, 1)


def least_root(need: Tensor, scale: Tensor) -> Tensor:
    """Roots of squared errors that swaps must gain at least, as shares of the target's length."""
    return (need.clamp(min=0) * scale**2).sqrt()


def make_tests(wanted: Tensor, root: Tensor, off: Tensor) -> Tests:
    """Tests of float64 values, to be made in float32."""
    return Tests(wanted, root.to(torch.float32), off.to(torch.float32))
