"""Swaps counted by estimates, where these are sure; `saeaudit.core.codes.swaps` decides the rest.

All lengths are shares of the target's here. With p and d_ij of `saeaudit.core.codes.estimates`,
h_i = z_i / sqrt(g_i), and r the residual of least squares, removing i and adding j brings a
least-squares error within a limit when

    |r.u_j + h_i p_ij| / sqrt(d_ij)  >=  sqrt(without_i - limit)

and with codes >= 0 it is enough that `slope`, the inner product of u_j with the residual of the
codes >= 0 without i, is as large as the same root of their errors, and necessary that
slope / sqrt(d_ij) is. Where a feature can simply go, the slope's sign is all there is to know.

A row of which any answer lies within the bounds of the estimates is `open`.
"""

from __future__ import annotations

from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.bars import Bars
from saeaudit.core.codes.estimates import APART, Bounded, Estimates, Estimator
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.settled import Settler
from saeaudit.core.codes.signed import (
    LeastSquares,
    Signed,
    Tests,
    Undecided,
    exact_products,
    least_root,
    make_tests,
    step,
)
from saeaudit.core.codes.tolerances import STEPS, ULP
from saeaudit.core.rows import spans

HARDLY = 1e-9
"""Share of the target that a form of p is left out for: it is part of the bound."""
LEAST_ROOM = 1e-12
"""Share of the target that is divided by, so that forms are finite in float32."""


class _Marked(NamedTuple):
    """Swaps that could be the best for a feature that is removed."""

    token: Tensor
    place: Tensor
    row: Tensor
    value: Tensor
    """``[m]`` each: upper bounds on the roots of what the swaps gain."""


class Screened:
    """Running counts of one target, and the rows that they leave open."""

    def __init__(self, fit: Fit, bars: Bars, estimator: Estimator, first: int) -> None:
        """Begin with none.

        Args:
            fit: a target a token.
            bars: limits on its squared error.
            estimator: of the supports; its further directions ``first`` and ``first + 1`` are
                the residuals of the target's least squares, and of its positive codes.
            first: which of them.
        """
        self._fit, self._bars, self._estimator, self._first = fit, bars, estimator, first
        supports = fit.supports
        batch, k = supports.rows.shape
        device, units = supports.rows.device, supports.units
        self.usable = estimator.sound & (fit.size > 0)
        self.scale = torch.where(self.usable, fit.size, 1.0).rsqrt()
        self._settler = Settler(fit, estimator, first + 1)
        self.squares = LeastSquares(fit, bars.limits, estimator, first)
        self._nonnegative(fit, supports.active)
        self._as_now(fit)
        shape = bars.limits.shape
        self.count = torch.zeros(shape, dtype=torch.float64, device=device)
        self.distinct, self.unsigned = self.count.clone(), self.count.clone()
        self.passing = torch.zeros_like(bars.droppable)
        self.open = torch.zeros(batch, units.count, dtype=torch.bool, device=device)
        """``[B, n]``: rows whose swaps are not counted here."""
        self.unclear = self.open.clone()
        """``[B, n]``: rows of which estimates say nothing."""
        self._most = torch.full((batch, k), -torch.inf, device=device)
        self._marked: list[_Marked] = []

    def _nonnegative(self, fit: Fit, active: Tensor) -> None:
        """What codes >= 0 are tested by."""
        est, positive, scale = self._estimator, fit.positive, self.scale[:, None]
        apart = positive.codes[:, None, :] - fit.codes_without_nonnegative
        form = apart @ est.cosines * scale[:, :, None]
        form *= active[:, :, None]
        self.main = form.diagonal(dim1=1, dim2=2).to(torch.float32)
        beyond = form.abs().sum(2) - form.diagonal(dim1=1, dim2=2).abs()
        self.length_positive = positive.residual.norm(dim=1) * self.scale
        self.form: Bounded | None = est.bounded(form)
        off = self.form.off + (est.off + STEPS * ULP) * self.length_positive[:, None]
        if bool(((beyond <= HARDLY) | ~self.usable[:, None]).all()):
            self.form, off = None, off + beyond
        off = off + STEPS * ULP * form.abs().sum(2)
        without = fit.without_nonnegative
        root = least_root(without[:, None, :] - self._bars.limits[:, :, None], scale[:, None])
        wanted = ~self._bars.droppable & active[:, None, :]
        root = torch.where(wanted, root, 0.0)
        self.tests = make_tests(wanted, root, off)
        self._floor = fit.floor
        self.slope_off = (off + (fit.floor * self.scale)[:, None]).to(torch.float32)
        self._signs = self._bars.droppable.to(torch.float32)
        droppable = self._bars.droppable.any(1)
        self._unsigned_off = torch.where(droppable, self.slope_off, -1.0)
        widest = torch.where(self._bars.free, without, self._bars.widest)
        least = least_root(without - widest, scale)
        self._least = torch.where(active, least, torch.inf).to(torch.float32)
        self._off = off.to(torch.float32)

    def _as_now(self, fit: Fit) -> None:
        """When adding a row to the support's positive codes leaves their features as they are.

        That is when no code of these falls to zero and no other feature of the support comes in:
        when for each the row's code times a linear form of p is below one.
        """
        est, positive, scale = self._estimator, fit.positive, self.scale[:, None]
        active, mask = fit.supports.active, positive.mask
        inner = positive.inverse @ est.cosines
        beyond = est.cosines - fit.supports.gram @ inner
        room = torch.where(mask, positive.codes - fit.floor[:, None],
                           fit.small[:, None] - positive.slope)  # fmt: skip
        self.stays = positive.sound & ((room > 0) | ~active).all(1) & self.usable
        form = torch.where(mask[:, :, None], inner, -beyond)
        form = torch.where(active[:, :, None], form, 0.0)
        form /= (room * scale).clamp(min=LEAST_ROOM)[:, :, None]
        reach = form.abs().sum(2).amax(1) if form.shape[1] else self.scale * 0
        self.never_changes = bool(
            (reach * (self.length_positive + est.off) < APART)[self.stays].all()
        )
        self._changes = est.bounded(form)
        both = mask[:, :, None] & mask[:, None, :]
        eye = torch.eye(mask.shape[1], dtype=form.dtype, device=form.device)
        factor = torch.linalg.cholesky_ex(torch.where(both, positive.inverse, eye))[0]
        factor = factor.mT * mask[:, None]
        self._inside: Tensor | None = None
        if not bool((mask | ~active)[self.stays].all()):
            self._inside = (factor @ est.cosines).to(torch.float32)
        self._repeats = ((~mask & active).sum(1) - 1).clamp(min=0).to(torch.float32)
        self.beside_off = self.length_positive * (est.off + STEPS * ULP)

    def take(self, rows: Estimates) -> Signed:
        """Take some rows that may enter; returns what least squares make of their swaps."""
        self.allowed = (~(rows.barred | rows.unclear)).to(torch.float32)
        signed = self.squares.of(rows)
        counted, _, undecided = self._reach(self.squares.tests, rows, signed.value, signed.value)
        is_open = self.squares.decide(rows, counted, undecided)
        by_row, unsure = self._count_nonnegative(rows)
        as_now, unknown = self._stay(rows, by_row)
        unclear = rows.unclear | ~(rows.barred | self.usable[:, None])
        is_open |= unsure | unknown | unclear
        is_open &= ~rows.barred
        stop = rows.start + is_open.shape[1]
        self.open[:, rows.start : stop] = is_open
        self.unclear[:, rows.start : stop] = unclear
        sure = (~(is_open | rows.barred)).to(torch.float32)[:, None, :]
        one = by_row.clamp(max=1)
        several = torch.maximum(by_row - self._repeats[:, None, None], one)
        distinct = torch.where(as_now[:, None, :], several, one)
        counted += self.squares.always[:, :, None]
        for total, by in zip(
            (self.count, self.distinct, self.unsigned), (by_row, distinct, counted), strict=True
        ):
            total += (by * sure).nan_to_num_().sum(2, dtype=torch.float64)
        return signed

    def _reach(
        self, tests: Tests, rows: Estimates, sure: Tensor, possible: Tensor
    ) -> tuple[Tensor, Tensor, Undecided]:
        """Values that pass tests.

        Args:
            tests: of them.
            rows: whose they are.
            sure, possible: ``[B, k, c]``, compared with what is surely and possibly enough.

        Returns:
            Counts ``[B, T, c]`` float32 of those that surely do, the features ``[B, T, k]`` bool
            that some pass for, and others that may.
        """
        batch, limits = tests.wanted.shape[:2]
        columns = sure.shape[2]
        counts = sure.new_zeros(batch * limits, columns)
        passing = torch.zeros_like(tests.wanted)
        b, t, i = tests.open(rows, possible.amax(2), tests.wanted)
        by_row = rows.steep[b], rows.share_off[b]
        passes = step(sure[b, i] - tests.sure(b, t, i, *by_row))
        may = step(possible[b, i] - tests.possible(b, t, i, *by_row))
        counts.index_add_(0, b * limits + t, passes)
        allowed = self.allowed[b]
        passing[b, t, i] = passes.mul_(allowed).amax(1) > 0
        m, c = (may.mul_(allowed) > passes).nonzero().unbind(1)
        return counts.view(batch, limits, columns), passing, (b[m], t[m], i[m], c)

    def _count_nonnegative(self, rows: Estimates) -> tuple[Tensor, Tensor]:
        """Codes >= 0 within each limit ``[B, T, c]``, and open rows."""
        beside = rows.beside[:, self._first + 1] * self.length_positive.to(torch.float32)[:, None]
        beside = beside.masked_fill_(rows.barred, -1e15)[:, None, :]
        if self.form is None:
            slope = torch.addcmul(beside, self.main[:, :, None], rows.cosine)
        else:
            slope = (self.form.form @ rows.cosine).add_(beside)
        over_root = slope * rows.nearness
        counts, passing, undecided = self._reach(self.tests, rows, slope, over_root)
        between = self._settle(rows, counts, passing, undecided)
        signs, unsure = self._signs_of(rows, slope)
        counts += self._signs @ signs
        passing |= self._bars.droppable & (signs.amax(2) > 0)[:, None, :]
        self.passing |= passing & self.usable[:, None, None]
        self._mark_best(rows, slope, over_root)
        return counts, between | unsure

    def _settle(
        self, rows: Estimates, counts: Tensor, passing: Tensor, undecided: Undecided
    ) -> Tensor:
        """Count swaps that have a closed form; bool ``[B, c]``: rows of which others are open."""
        between = torch.zeros_like(rows.barred)
        for first, last in spans(len(undecided[0]), self._fit.supports.swaps_at_once):
            b, t, i, c = (index[first:last] for index in undecided)
            low, high = self._settler.settle(rows, b, i, c)
            limit = self._bars.limits[b, t]
            passes = high <= limit
            counts.index_put_((b, t, c), passes.to(counts.dtype), accumulate=True)
            passing[b[passes], t[passes], i[passes]] = True
            is_open = ~passes & (low <= limit)
            between[b[is_open], c[is_open]] = True
        return between

    def _signs_of(self, rows: Estimates, slope: Tensor) -> tuple[Tensor, Tensor]:
        """Ones ``[B, k, c]`` where rows could replace features that can go; open rows ``[B, c]``.

        A slope that is too close to zero to have a sign is computed in float64, one inner product.
        """
        signs = step(slope - self.slope_off[:, :, None])
        near = slope.abs().sub_(self._unsigned_off[:, :, None]).amin(1) <= 0
        near &= self.allowed > 0
        b, c = near.nonzero().unbind(1)
        r, i = (slope[b, :, c].abs() <= self._unsigned_off[b]).nonzero().unbind(1)
        b, c = b[r], c[r]
        exact = exact_products(self._fit.supports.units, self._residuals, (b, i), c + rows.start)
        signs[b, i, c] = (exact > self._floor[b]).to(torch.float32)
        unsure = torch.zeros_like(near)
        between = (exact > 0) & (exact <= self._floor[b] / APART)
        unsure[b[between], c[between]] = True
        return signs, unsure

    @cached_property
    def _residuals(self) -> Tensor:
        """``[B, k, d]`` float64: what codes >= 0 without each feature leave."""
        fit = self._fit
        return fit.target[:, None] - fit.codes_without_nonnegative @ fit.supports.vectors

    def _mark_best(self, rows: Estimates, slope: Tensor, over_root: Tensor) -> None:
        """Note the swaps that can be the best for the feature that is removed."""
        steep, share_off = rows.steep.amax(1)[:, None], rows.share_off.amax(1)[:, None]
        highest = over_root.amax(2)
        most = torch.where(
            self._bars.free, highest * (1 - share_off) - self._off * steep,
            slope.amax(2) - self.slope_off,
        )  # fmt: skip
        self._most = torch.maximum(self._most, most)
        least = torch.maximum(self._most, self._least) * (1 - share_off) - self._off * steep
        b, i = (highest >= least).nonzero().unbind(1)
        values = over_root[b, i]
        m, c = (values >= least[b, i][:, None]).nonzero().unbind(1)
        b, i = b[m], i[m]
        value = values[m, c] * (1 + rows.share_off[b, c]) + self._off[b, i] * rows.steep[b, c]
        self._marked.append(_Marked(b, i, c + rows.start, value))

    def _stay(self, rows: Estimates, by_row: Tensor) -> tuple[Tensor, Tensor]:
        """Whether rows leave the features of the support's code as they are; where that is open."""
        stays = self.stays[:, None].expand_as(rows.apart)
        if self.never_changes:
            return stays, torch.zeros_like(stays)
        beside = rows.beside[:, self._first + 1] * self.length_positive.to(torch.float32)[:, None]
        off = self.beside_off.to(torch.float32)[:, None]
        apart = rows.apart
        if self._inside is not None:
            apart = 1 - (self._inside @ rows.cosine).square_().sum(1)
        apart_off = self._estimator.off_apart(apart)
        form, margin = self._changes
        change = (form @ rows.cosine).add_(margin[:, :, None])
        most = change.amax(1)
        least = change.sub_(2 * margin[:, :, None]).amax(1)
        amount = (beside + off).clamp(min=0) / (apart - apart_off).clamp(min=APART / 2)
        surely = amount * most.clamp(min=0) < 1 - STEPS * ULP
        amount = (beside - off).clamp(min=0) / (apart + apart_off)
        surely_not = amount * least > 1 + STEPS * ULP
        several = by_row.amax(1) > 1
        return stays & surely, stays & ~surely & ~surely_not & several

    def best(self) -> Tensor:
        """``[B, n]`` bool: rows that can be the best for some feature that is removed."""
        least = torch.maximum(self._most, self._least) * (1 - STEPS * ULP)
        out = torch.zeros_like(self.open)
        for b, i, row, value in self._marked:
            able = value >= least[b, i]
            out[b[able], row[able]] = True
        return out & self.usable[:, None]
