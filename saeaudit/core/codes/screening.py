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

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.aside import Aside, Few, Totals
from saeaudit.core.codes.bars import Bars
from saeaudit.core.codes.estimates import APART, Columns, Estimates, Estimator, Places
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.settled import Settler
from saeaudit.core.codes.signed import (
    LeastSquares,
    Undecided,
    choose,
    exact_products,
    exact_residuals,
    least_root,
    make_tests,
    step,
)
from saeaudit.core.codes.stays import Stays
from saeaudit.core.codes.tolerances import STEPS, ULP
from saeaudit.core.rows import spans

HARDLY = 1e-9
"""Share of the target that a form of p is left out for: it is part of the bound."""


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
        self._stays = Stays(fit, estimator, first + 1, self.scale)
        mask = fit.positive.mask
        self._repeats = ((~mask & supports.active).sum(1) - 1).clamp(min=0).to(torch.float32)
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
        self._aside = Aside()

    def _nonnegative(self, fit: Fit, active: Tensor) -> None:
        """What codes >= 0 are tested by."""
        est, positive, scale = self._estimator, fit.positive, self.scale[:, None]
        apart = positive.codes[:, None, :] - fit.codes_without_nonnegative
        form = apart @ est.cosines * scale[:, :, None]
        form *= active[:, :, None]
        self._main = form.diagonal(dim1=1, dim2=2).to(torch.float32)
        beyond = form.abs().sum(2) - form.diagonal(dim1=1, dim2=2).abs()
        self.length_positive = positive.residual.norm(dim=1) * self.scale
        bounded = est.bounded(form)
        self._form = bounded.form
        self._form_off = bounded.off + STEPS * ULP * form.abs().sum(2)
        self._diagonal = bool(((beyond <= HARDLY) | ~self.usable[:, None]).all())
        if self._diagonal:
            self._form_off = self._form_off + beyond
        off = self._form_off + (est.off + STEPS * ULP) * self.length_positive[:, None]
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

    def take(self, rows: Estimates) -> None:
        """Take some rows that may enter."""
        counted, unsigned = self.squares.count(rows)
        by_row, nonnegative, signs = self._count_nonnegative(rows)
        as_now, unsure = self._stays.of(rows)
        unclear = rows.unclear | ~(rows.barred | self.usable[:, None])
        stop = rows.start + unclear.shape[1]
        self.open[:, rows.start : stop] = unclear
        self.unclear[:, rows.start : stop] = unclear
        aside = unsure & (by_row.amax(1) > 1)
        for b, _, _, c in (unsigned, nonnegative, signs):
            aside[b, c] = True
        barred = rows.barred | unclear
        aside &= ~barred
        sure = (~(barred | aside)).to(torch.float32)[:, None, :]
        different = least_different(by_row, self._repeats[:, None, None], as_now[:, None, :])
        self._count(
            (total * sure).nan_to_num_().sum(2, dtype=torch.float64)
            for total in (by_row, different, counted)
        )
        number = self._aside.add(rows, aside, Totals(by_row, counted, as_now, unsure))
        self._aside.note(self._aside.unsigned, number, unsigned)
        self._aside.note(self._aside.nonnegative, number, nonnegative)
        self._aside.note(self._aside.signs, number, signs)
        if self._aside.held > self._fit.supports.swaps_at_once:
            self.decide()

    def _count(self, by_token: Iterable[Tensor]) -> None:
        """Add counts ``[B, T]``: of codes >= 0, of different ones, of codes of either sign."""
        for total, more in zip((self.count, self.distinct, self.unsigned), by_token, strict=True):
            total += more

    def _count_nonnegative(self, rows: Estimates) -> tuple[Tensor, Undecided, Undecided]:
        """Codes >= 0 within each limit ``[B, T, c]``, swaps that may be, and slopes near zero."""
        beside = rows.beside[:, self._first + 1] * self.length_positive.to(torch.float32)[:, None]
        beside = beside.masked_fill_(rows.barred, -1e15)[:, None, :]
        if self._diagonal:
            slope = torch.addcmul(beside, self._main[:, :, None], rows.cosine)
        else:
            slope = (self._form @ rows.cosine).add_(beside)
        highest = slope.amax(2)
        bound = highest.clamp(min=0) * rows.steepest[:, None] * (1 + STEPS * ULP)
        test = self.tests.open(rows, bound, self.tests.wanted)
        places, test, at = choose(rows, test, bound >= self._least_best(rows))
        steep_slope = slope[places.token, places.place]
        over_root = steep_slope * places.nearness
        passes, m, c = self.tests.passed(rows, test, steep_slope[at], over_root[at])
        b, t, i = test
        self.passing[b, t, i] |= (passes.amax(1) > 0) & self.usable[b]
        self._mark_best(rows, highest, places, over_root)
        near = self._near(rows, slope)
        counts = self._signs @ self._signs_of(slope, highest)
        counts.flatten(0, 1).index_add_(0, b * counts.shape[1] + t, passes)
        return counts, (b[m], t[m], i[m], c), near

    def _near(self, rows: Estimates, slope: Tensor) -> Undecided:
        """Of slopes ``[B, k, c]`` those of features that can go that are too near zero."""
        near = slope.abs().amin(1) <= self._unsigned_off.amax(1, keepdim=True)
        near &= rows.allowed > 0
        b, c = near.nonzero().unbind(1)
        r, i = (slope[b, :, c].abs() <= self._unsigned_off[b]).nonzero().unbind(1)
        return b[r], torch.zeros_like(i), i, c[r]

    def _signs_of(self, slope: Tensor, highest: Tensor) -> Tensor:
        """Ones ``[B, k, c]`` where rows surely could replace features that can go; `slope` is
        written to."""
        enters = (highest > self.slope_off) & self.usable[:, None]
        self.passing |= self._bars.droppable & enters[:, None, :]
        return step(slope.sub_(self.slope_off[:, :, None]))

    def _least_best(self, rows: Estimates) -> Tensor:
        """``[B, k]``: roots below which no swap is the best for what it removes."""
        steep, share_off = rows.steepest[:, None], rows.most_off[:, None]
        least: Tensor = torch.maximum(self._most, self._least) * (1 - share_off)
        return least.sub_(self._off * steep)

    def _mark_best(self, rows: Estimates, slope: Tensor, places: Places, over_root: Tensor) -> None:
        """Note the swaps that can be the best for the feature that is removed.

        Args:
            rows: that may enter.
            slope: ``[B, k]``, the highest.
            places: all that may have a best swap among these rows.
            over_root: ``[m, c]`` of these, slopes over roots of distances.
        """
        b, i = places.token, places.place
        steep, share_off = rows.steepest[b], rows.most_off[b]
        highest = over_root.amax(1)
        most = torch.where(self._bars.free, -torch.inf, slope - self.slope_off)
        free = highest * (1 - share_off) - self._off[b, i] * steep
        most[b, i] = torch.where(self._bars.free[b, i], free, most[b, i])
        self._most = torch.maximum(self._most, most)
        least = self._least_best(rows)[b, i]
        m, c = (over_root >= least[:, None]).nonzero().unbind(1)
        b, i = b[m], i[m]
        value = over_root[m, c] * (1 + rows.share_off[b, c])
        value += self._off[b, i] * rows.steep[b, c]
        self._marked.append(_Marked(b, i, c + rows.start, value))

    def decide(self) -> None:
        """Decide what can be of the rows set aside; the others are open."""
        if not self._aside.held:
            return
        columns, totals, few = self._aside.take()
        self._aside = Aside()
        is_open = torch.zeros_like(totals.unsure)
        n, t, _ = few.unsigned
        passes, between = self.squares.decide(columns, few.unsigned)
        totals.unsigned.index_put_((n, t), passes.to(totals.unsigned.dtype), accumulate=True)
        is_open[n[between]] = True
        self._settle(columns, few.nonnegative, totals.nonnegative, is_open)
        self._decide_signs(columns, few.signs, totals.nonnegative, is_open)
        at = totals.unsure.nonzero().squeeze(1)
        totals.as_now[at], totals.unsure[at] = self._stays.of_columns(columns.at(at))
        is_open |= totals.unsure & (totals.nonnegative.amax(1) > 1)
        self.open[columns.token, columns.row] = is_open
        at = (~is_open).nonzero().squeeze(1)
        token, by_row = columns.token[at], totals.nonnegative[at]
        different = least_different(by_row, self._repeats[token, None], totals.as_now[at, None])
        none = torch.zeros_like(self.count)
        self._count(
            none.index_add(0, token, total.double())
            for total in (by_row, different, totals.unsigned[at])
        )

    def _settle(self, columns: Columns, few: Few, count: Tensor, is_open: Tensor) -> None:
        """Count swaps that have a closed form in ``count [m, T]``; note rows of which others are
        open."""
        for first, last in spans(len(few.n), self._fit.supports.swaps_at_once):
            n, t, i = (index[first:last] for index in few)
            b = columns.token[n]
            low, high = self._settler.settle(columns, n, i)
            limit = self._bars.limits[b, t]
            passes = high <= limit
            count.index_put_((n, t), passes.to(count.dtype), accumulate=True)
            self.passing[b[passes], t[passes], i[passes]] = True
            is_open[n[~passes & (low <= limit)]] = True

    def _decide_signs(self, columns: Columns, few: Few, count: Tensor, is_open: Tensor) -> None:
        """Count slopes near zero that are above it, one inner product in float64 each.

        That is of the row and the residual, for all features alike; where the rest is not below
        it, the product is of what codes >= 0 without the feature leave.
        """
        fit, n, i = self._fit, few.n, few.i
        b, row = columns.token[n], columns.row[n]
        at, which = torch.unique(n, return_inverse=True)
        beside = exact_residuals(fit, columns.token[at], columns.row[at])
        rest = (self._form[b, i] * columns.cosine[n]).sum(1)
        slope = beside[which] * self.scale[b] + rest
        off, floor = self._form_off[b, i], fit.floor[b] * self.scale[b]
        above = slope - off > floor / APART
        unknown = (~above & (slope + off > 0)).nonzero().squeeze(1)
        exact = exact_products(
            fit, lambda b, i: fit.codes_without_nonnegative[b, i], (b[unknown], i[unknown]),
            row[unknown],
        )  # fmt: skip
        least = fit.floor[b[unknown]]
        above[unknown] = exact > least
        is_open[n[unknown[(exact > 0) & (exact <= least / APART)]]] = True
        n, b, i = n[above], b[above], i[above]
        count.index_add_(0, n, self._signs[b, :, i])
        self.passing[b, :, i] |= self._bars.droppable[b, :, i]

    def best(self) -> Tensor:
        """``[B, n]`` bool: rows that can be the best for some feature that is removed."""
        least = torch.maximum(self._most, self._least) * (1 - STEPS * ULP)
        out = torch.zeros_like(self.open)
        for b, i, row, value in self._marked:
            able = value >= least[b, i]
            out[b[able], row[able]] = True
        return out & self.usable[:, None]


def least_different(count: Tensor, repeats: Tensor, as_now: Tensor) -> Tensor:
    """Least number of different codes among those that a row enters; all shapes broadcast.

    Where a code of S - i + j has no use for i either, it is the best on all of S + j, of which
    there is one for each j: swaps of all features that it does not use lead to it, and all other
    codes differ. Where adding the row to the support's own codes leaves their features as they are,
    as many go unused as do now; otherwise one code is counted.

    Args:
        count: of codes.
        repeats: by how many all features that go unused now are more than one.
        as_now: bool, whether the row leaves the features as they are.
    """
    one = count.clamp(max=1)
    return torch.where(as_now, torch.maximum(count - repeats, one), one)
