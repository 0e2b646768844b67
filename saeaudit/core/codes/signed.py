"""Swaps with codes of either sign by estimates, and what values are tested against.

See `saeaudit.core.codes.screening` for what the tests are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.algebra import by_token
from saeaudit.core.codes.estimates import Columns, Estimates, Estimator, Places
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import STEPS, ULP
from saeaudit.core.rows import spans

STEEP = 1e30
"""Factor that makes zero or one of a float32 value by its sign, when clamped between these."""
FEW = 4
"""Tests of one row that are decided by an inner product each: with more, the whole row is."""


class Signed(NamedTuple):
    """Swaps with codes of either sign, at some places ``[m, c]`` or single ones ``[m]``."""

    amount: Tensor
    """Codes of the rows that enter; of no meaning where they may not."""
    value: Tensor
    """Roots of what they gain."""


class Tests(NamedTuple):
    """For each token, limit and removed feature the value over sqrt(d) that a row must reach."""

    wanted: Tensor
    """``[B, T, k]`` bool: where there is a question."""
    root: Tensor
    """``[B, T, k]`` float32: that value."""
    off: Tensor
    """``[B, k]`` float32: by how much a value times sqrt(d) may be off."""

    def sure(self, test: Test, steep: Tensor, share_off: Tensor) -> Tensor:
        """Values from which on the answer is yes, for rows of given steepness, one a test."""
        b, t, i = test
        return self.root[b, t, i] * (1 + share_off) + self.off[b, i] * steep

    def possible(self, test: Test, steep: Tensor, share_off: Tensor) -> Tensor:
        """Values below which it is no."""
        b, t, i = test
        return self.root[b, t, i] * (1 - share_off) - self.off[b, i] * steep

    def open(self, rows: Estimates, highest: Tensor, wanted: Tensor) -> Test:
        """Tests that the highest value ``[B, k]`` of some rows may pass.

        Args:
            rows: whose values they are.
            highest: float32, or what is above it.
            wanted: ``[B, T, k]`` bool, where that matters.
        """
        least = self.root * (1 - rows.most_off)[:, None, None]
        least -= (self.off * rows.steepest[:, None])[:, None]
        b, t, i = (wanted & (highest[:, None] >= least)).nonzero().unbind(1)
        return b, t, i

    def passed(
        self, rows: Estimates, test: Test, sure: Tensor, possible: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Which rows pass some tests.

        Args:
            rows: that may enter.
            test: ``[m]``.
            sure, possible: ``[m, c]`` what is compared with what is surely, and possibly, enough.

        Returns:
            Ones ``[m, c]`` where a row surely passes, else zeros; and where it may, ``[n]`` int64,
            the number of the test and the column.
        """
        b = test[0]
        # All rows by the least certain first: few lie between its bounds.
        steepest, most_off = rows.steepest[b], rows.most_off[b]
        passes = step(sure - self.sure(test, steepest, most_off)[:, None])
        may = step(possible - self.possible(test, steepest, most_off)[:, None])
        allowed = rows.allowed[b]
        passes *= allowed
        m, c = (may.mul_(allowed) > passes).nonzero().unbind(1)
        test = test[0][m], test[1][m], test[2][m]
        certainty = rows.steep[test[0], c], rows.share_off[test[0], c]
        yes = sure[m, c] > self.sure(test, *certainty)
        passes[m[yes], c[yes]] = 1.0
        may_be = ~yes & (possible[m, c] >= self.possible(test, *certainty))
        return passes, m[may_be], c[may_be]


Test = tuple[Tensor, Tensor, Tensor]
"""Some tests, ``[m]`` int64 each: token, limit and place."""


class Chosen(NamedTuple):
    """Tests, and the places that they are of."""

    places: Places
    test: Test
    at: Tensor
    """``[m]`` int64: which of the places each test is of."""


def choose(rows: Estimates, test: Test, also: Tensor) -> Chosen:
    """The places of some tests, and those that ``also [B, k]`` bool says."""
    also = also.clone()
    also[test[0], test[2]] = True
    token, place = also.nonzero().unbind(1)
    number = torch.zeros_like(also, dtype=torch.int64)
    number[token, place] = torch.arange(len(token), device=token.device)
    return Chosen(rows.places(token, place), test, number[test[0], test[2]])


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
        self._none = torch.zeros_like(active)
        self._first = first

    def of(self, rows: Estimates, places: Places) -> Signed:
        """Swaps at some places that bring in some rows, ``[m, c]``."""
        beside = self._beside(rows)[places.token]
        removed = self._removed[places.token, places.place][:, None]
        return _signed(beside, removed, places.cosine, places.nearness)

    def of_columns(self, columns: Columns, n: Tensor, place: Tensor) -> Signed:
        """Swaps ``[m]`` of rows ``n [m]`` for what is at places ``[m]``."""
        token = columns.token[n]
        beside = columns.beside[n, self._first] * self._length[token, 0]
        cosine, nearness = columns.cosine[n, place], columns.nearness(n, place)
        return _signed(beside, self._removed[token, place], cosine, nearness)

    def _beside(self, rows: Estimates) -> Tensor:
        """``[B, c]``: inner products of rows with the residual, zero where they may not enter."""
        beside: Tensor = rows.beside[:, self._first] * self._length
        return beside.masked_fill_(rows.barred, 0.0)

    def most(self, rows: Estimates) -> Tensor:
        """``[B, k]``: no value is more, of rows that are clear."""
        beside = (self._beside(rows).abs() * rows.steep).amax(1)[:, None]
        share = (rows.highest * rows.steepest[:, None]).clamp(max=1)
        return torch.addcmul(beside, self._removed.abs(), share).mul_(1 + STEPS * ULP)

    def count(self, rows: Estimates) -> tuple[Tensor, Undecided]:
        """Counts ``[B, T, c]`` float32 of swaps that are surely within each limit, and others that
        may be."""
        test = self.tests.open(rows, self.most(rows), self.tests.wanted)
        places, test, at = choose(rows, test, self._none)
        value = self.of(rows, places).value[at]
        passes, m, c = self.tests.passed(rows, test, value, value)
        b, t, i = test
        batch, limits = self.always.shape
        counts = self.always.flatten()[:, None].repeat(1, value.shape[1]).to(value.dtype)
        counts.index_add_(0, b * limits + t, passes)
        return counts.view(batch, limits, -1), (b[m], t[m], i[m], c)

    def decide(self, columns: Columns, undecided: Test) -> tuple[Tensor, Tensor]:
        """Which of those undecided pass once their inner products are exact.

        What is left to be off is their rows' distances, the least part.

        Args:
            columns: rows of tokens.
            undecided: row number among these, limit and place, of `tests`; of rows with more than
                `FEW` of them none is looked at.

        Returns:
            Two times bool ``[m]``: tests that are passed, and that stay undecided.
        """
        n, t, i = undecided
        is_open = torch.bincount(n, minlength=len(columns.token))[n] > FEW
        passes = torch.zeros_like(is_open)
        at = (~is_open).nonzero().squeeze(1)
        n, t, i = n[at], t[at], i[at]
        b = columns.token[n]
        exact = self._without(b, i, columns.row[n]) * self._scale[b, 0]
        value, root = exact.abs() * columns.nearness(n, i), self.tests.root[b, t, i].double()
        off = columns.share_off[n]
        passes[at] = value >= root * (1 + off)
        is_open[at] = ~passes[at] & (value >= root * (1 - off))
        return passes, is_open

    def _without(self, token: Tensor, place: Tensor, row: Tensor) -> Tensor:
        """Inner products ``[m]`` of rows with what least squares without features leave."""
        fit = self._fit

        def codes(token: Tensor, place: Tensor) -> Tensor:
            ratio = fit.codes[token, place] / fit.diagonal[token, place]
            return fit.codes[token] - ratio[:, None] * fit.supports.inverse[token, place]

        return exact_products(fit, codes, (token, place), row)

    def none_within(self, rows: Estimates) -> Tensor:
        """``[B, c]`` bool: rows, of those that are clear, that no swap brings within any limit."""
        test = self.tests.open(rows, self.most(rows), self.tests.wanted)
        places, test, at = choose(rows, test, self._none)
        value = self.of(rows, places).value[at]
        least = self.tests.possible(test, rows.steepest[test[0]], rows.most_off[test[0]])
        may = step(value - least[:, None])
        passes = value.new_zeros(rows.apart.shape).index_add_(0, test[0], may)
        return (passes == 0) & (self.always == 0).all(1, keepdim=True)


Undecided = tuple[Tensor, Tensor, Tensor, Tensor]
"""Tests that may be passed, ``[m]`` int64 each: token, limit, place, column."""


def _signed(beside: Tensor, removed: Tensor, cosine: Tensor, nearness: Tensor) -> Signed:
    value = torch.addcmul(beside, removed, cosine).mul_(nearness)
    return Signed(value * nearness, value.abs_())


def exact_products(
    fit: Fit, codes: Callable[[Tensor, Tensor], Tensor], index: tuple[Tensor, Tensor], row: Tensor
) -> Tensor:
    """Inner products ``[m]`` in float64 of unit rows ``row [m]`` with what codes leave of targets.

    Args:
        fit: the targets.
        codes: of tokens and places, ``[n]`` int64 each, the codes ``[n, k]``.
        index: token and place of each row.
        row: int64.
    """
    supports = fit.supports
    units, k = supports.units, supports.rows.shape[1]
    pair, which = torch.unique(index[0] * k + index[1], return_inverse=True)
    out = torch.empty(len(row), dtype=torch.float64, device=row.device)
    order = which.argsort()
    for first, last in spans(len(row), units.budget.exact_rows(units.width, units.device)):
        part = order[first:last]
        chosen, at = torch.unique_consecutive(which[part], return_inverse=True)
        token, place = pair[chosen] // k, pair[chosen] % k
        rest = fit.target[token] - by_token(supports.vectors.mT, token, codes(token, place))
        out[part] = (rest[at][:, None, :] @ units.raw(row[part])[:, :, None]).view(-1)
    return out / units.norms[row]


def exact_residuals(fit: Fit, token: Tensor, row: Tensor) -> Tensor:
    """Inner products ``[m]`` in float64 of unit rows ``row [m]`` with what the codes >= 0 of
    ``token [m]``, ascending, leave."""
    units, residual = fit.supports.units, fit.positive.residual
    out = residual.new_empty(len(row))
    for first, last in spans(len(row), units.budget.exact_rows(units.width, units.device)):
        of, at = torch.unique_consecutive(token[first:last], return_inverse=True)
        products = units.raw(row[first:last]) @ residual[of].T
        out[first:last] = products.gather(1, at[:, None]).squeeze(1)
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
