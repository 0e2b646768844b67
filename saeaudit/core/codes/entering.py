"""Lower bounds on what codes cost in which a row enters, for all rows at once.

`saeaudit.core.codes.duals.ascend` leaves mu and a for the codes of a support S. With a row u of
value s beside them the squared error is

    |t - sum_i y_i u_i - s u|^2  =  |t - sum_i y_i u_i|^2 + s^2 - 2 s (u.t - g'y),    g = U_S u.

As far as S is concerned, s u is s p with p = G^-1 g, so the tangent to the part y'R y is taken at
a - s p. Then each feature of S has the linear term l(s) = h - R a - s W p, and the bound is

    sum_i psi_i(l_i(s)) - mu (a - s p)'R (a - s p) + mu (size - limit + s^2 - 2 s u.t) + cost_u(s),
    psi_i(l) = min_y [cost_i(y) + mu (w_i y^2 - 2 l y)] <= 0.

Some feature of S must be off, for which the largest psi is left out of the sum. The sum and the
square with R are concave in s (minima of linear functions; R is positive semidefinite), so between
the least and the largest possible s they lie above their chord, and what is left is one question
to the cost of the row. A psi is read from a table of its chords, below it for the same reason.

`EnteringBounds.below` says the same of all rows from estimates of their cosines, less what these
may be off by: what it needs no lower than `EnteringBounds.of` it takes higher, and the reverse. No
psi rises with l, and a chord falls when its further end moves on. The nearer end may be too low, by
which the chord could be too steep: the further end is lowered by as much.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.algebra import Entering
from saeaudit.core.codes.costs import Cost
from saeaudit.core.codes.duals import Dual
from saeaudit.core.codes.estimates import APART, Estimates
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import DEPENDENT, ROUNDING, TINY

KNOTS = 192
"""Knots of the table of each psi."""
SPAN = 1e-6
"""Least length of a chord, as a share of |t|."""


class SupportCost(NamedTuple):
    """What the features of supports cost, whatever their values."""

    cost: Cost
    """``[B, k]``."""
    least: Tensor
    """``[B, k]``: no value costs less."""


class _Line(NamedTuple):
    """What values s of rows that enter change in the concave part."""

    pull: Tensor
    """``[B, k, c]``, W p: by which linear terms fall."""
    cross: Tensor
    """``[B, c]``, 2 a'R p."""
    square: Tensor
    """``[B, c]``, p'R p."""


class EnteringBounds:
    """Bounds for one group of supports and one measure."""

    def __init__(
        self, fit: Fit, limit: Tensor, weight: Tensor, support: SupportCost, dual: Dual
    ) -> None:
        """Make the tables.

        Args:
            fit: targets on their supports.
            limit: ``[B]`` squared errors.
            weight: ``[B, k]``, W.
            support: costs of the supports' features.
            dual: mu and a.
        """
        self._fit, self._limit, self._weight, self._price = fit, limit, weight, dual.price
        self._least = support.least
        self._rest = fit.supports.gram - torch.diag_embed(weight)
        self._turned = (self._rest @ dual.point[:, :, None]).squeeze(2)
        self._linear = fit.moment - self._turned
        self._level = (dual.point * self._turned).sum(1)
        # Without a target there is no error to spare, and nothing to tell knots apart by.
        top = self._linear.clamp(min=0) + weight * limit.sqrt()[:, None]
        self._top = top.clamp(min=TINY)
        steep = dual.price[:, None] * weight
        columns = []
        for knot in range(KNOTS):
            centre = self._top * (knot / (KNOTS - 1)) / weight
            _, total = support.cost.on(centre, steep)
            silent = steep * centre.square()
            columns.append(torch.minimum(total, silent) - silent)
        self._table = torch.stack(columns, 2)

    def of(self, entering: Entering, cost: Cost, floor: Tensor) -> Tensor:
        """Bounds ``[B, c]``; infinite where codes of either sign do not stay within the limit.

        Args:
            entering: rows that may enter.
            cost: of these rows, of their shape, whatever their values.
            floor: their least values, likewise.
        """
        fit = self._fit
        apart = entering.apart.clamp(min=DEPENDENT)
        along = entering.along(fit.residual)
        room = (self._limit - fit.error)[:, None] + along.square() / apart
        most = along / apart + (room.clamp(min=0) / apart).sqrt()
        never = (room < 0) | (most < floor)
        short = SPAN * fit.size.sqrt()[:, None]
        ends = floor.expand_as(most), torch.maximum(most, floor + short)
        weight = entering.weight
        line = _Line(
            pull=self._weight[:, :, None] * weight,
            cross=2 * (weight * self._turned[:, :, None]).sum(1),
            square=(weight * (self._rest @ weight)).sum(1),
        )
        values = self._concave(line, ends[0]), self._concave(line, ends[1])
        bound = self._least_cost(cost, entering.along(fit.target), ends, values)
        return bound.masked_fill_(never, torch.inf) + entering.barred[:, 0]

    def below(self, rows: Estimates, cost: Cost, floor: Tensor) -> Tensor:
        """Lower bounds ``[B, c]`` on those of all rows, -inf where estimates say nothing.

        Args:
            rows: estimated, the fit's residual the first of the further directions.
            cost: of these rows ``[1, c]``, whatever their values.
            floor: ``[1, c]`` their least values, >= 0.
        """
        fit, of, limit = self._fit, rows.estimator, self._limit
        length = fit.residual.norm(dim=1, keepdim=True)
        along, off = rows.beside[:, 0].double() * length, of.off * length
        apart_off = of.off_apart(rows.apart)
        near = (rows.apart - apart_off).double().clamp(min=APART)
        high = along + off
        room = (limit - fit.error)[:, None] + (along.abs() + off).square() / near
        most = high / torch.where(high > 0, near, (rows.apart + apart_off).double())
        most += (room.clamp(min=0) / near).sqrt()
        never = (room < 0) | (most < floor)
        short = SPAN * fit.size.sqrt()[:, None]
        ends = floor.expand_as(most), torch.maximum(most, floor + short)
        line = self._estimated(rows, near)
        floors = bool(floor.any())
        # Where no row has a floor the nearer end is zero, where all rows are alike.
        first = self._concave(line, ends[0] if floors else ends[0][:, :1])
        second = self._concave(line, ends[1])
        if floors:
            second -= self._too_low(rows, ends[0])
        moment = self._fitted(rows) + high
        bound = self._least_cost(cost, moment, ends, (first, second))
        bound -= (ROUNDING * self._price * (fit.size + limit))[:, None]
        bound.masked_fill_(never, torch.inf)
        # Beyond its table a psi is too low to be concave.
        beyond = (self._linear_at(line, ends[1]) > self._top[:, :, None]).any(1)
        bound.masked_fill_(rows.unclear | beyond | bound.isnan(), -torch.inf)
        return bound.masked_fill_(rows.barred, torch.inf)

    def _estimated(self, rows: Estimates, near: Tensor) -> _Line:
        """The least, or most, that rows may change the concave part by at their least distances
        ``[B, c]``: it is no higher than by what they do."""
        of, p = rows.estimator, rows.cosine.double()
        turned, share = self._turned * of.root, self._weight * of.root.square()
        cross = (turned[:, None, :] @ p).squeeze(1) - of.off * turned.abs().sum(1)[:, None]
        # The root of a sum of squares changes by no more than that of the changes.
        inside = (share[:, None, :] @ p.square()).squeeze(1).sqrt()
        inside -= of.off * share.sum(1).sqrt()[:, None]
        pull = p.sub_(of.off).mul_((self._weight * of.root)[:, :, None])
        return _Line(pull, 2 * cross, 1 - near - inside.clamp(min=0).square())

    def _too_low(self, rows: Estimates, s: Tensor) -> Tensor:
        """By how much ``[B, c]`` that may be below what the rows do at values of them."""
        of = rows.estimator
        turned, share = self._turned * of.root, self._weight * of.root.square()
        steepest = self._table.diff(dim=2).abs().amax(2) * ((KNOTS - 1) / self._top)
        of_psi = 2 * of.off * (steepest * self._weight * of.root).sum(1)
        of_cross = 4 * of.off * turned.abs().sum(1)
        # The square is what a row of length one has along the support, less a square below that.
        of_square = 2 * of.off_apart(rows.apart) + 4 * of.off * share.sum(1).sqrt()[:, None]
        low = (of_psi + self._price * of_cross)[:, None] * s
        return low + self._price[:, None] * of_square * s.square()

    def _fitted(self, rows: Estimates) -> Tensor:
        """``[B, c]``: inner products of rows with what least squares fit are no higher."""
        of = rows.estimator
        form, off = of.bounded(self._fit.codes[:, None, :] @ of.cosines)
        return (form @ rows.cosine + off[:, :, None]).squeeze(1).double()

    def _least_cost(
        self, cost: Cost, moment: Tensor, ends: tuple[Tensor, Tensor], values: tuple[Tensor, Tensor]
    ) -> Tensor:
        """Least ``[B, c]`` of the row's cost, its error at its price and the chord of the concave
        part, of which values at two ends are given."""
        price = self._price[:, None]
        slant = (values[1] - values[0]) / (ends[1] - ends[0])
        centre = moment - slant / (2 * price)
        _, total = cost.on(centre, price)
        bound = total - price * centre.square() + values[0] - slant * ends[0]
        bound += price * ((1 - ROUNDING) * self._fit.size - self._limit)[:, None]
        return bound

    def _concave(self, line: _Line, s: Tensor) -> Tensor:
        """The concave part ``[B, c]`` of the bound at values of the first c entering rows."""
        cross, square = line.cross[:, : s.shape[1]], line.square[:, : s.shape[1]]
        psi = self._psi(self._linear_at(line, s))
        empty = ~self._fit.supports.active[:, :, None]
        needless = (psi.masked_fill(empty, -torch.inf) if bool(empty.any()) else psi).amax(1)
        level = self._level[:, None] - s * cross + s.square() * square
        return psi.sum(1) - needless - self._price[:, None] * level

    def _linear_at(self, line: _Line, s: Tensor) -> Tensor:
        """Linear terms ``[B, k, c]`` of the support's features at such values."""
        return self._linear[:, :, None] - s[:, None, :] * line.pull[:, :, : s.shape[1]]

    def _psi(self, linear: Tensor) -> Tensor:
        """Lower bounds ``[B, k, c]`` on every psi, which does not rise with l."""
        top = self._top[:, :, None]
        place = linear * ((KNOTS - 1) / top)
        knot = place.floor().clamp_(0, KNOTS - 2)
        index = knot.long()
        low, high = self._table.gather(2, index), self._table[:, :, 1:].gather(2, index)
        psi = low.lerp_(high, place.sub_(knot).clamp_(0, 1))
        beyond = linear > top
        if bool(beyond.any()):
            b, i, c = beyond.nonzero().unbind(1)
            square = self._price[b] * linear[b, i, c].square() / self._weight[b, i]
            psi[b, i, c] = (self._least[b, i] - square).clamp(max=0)
        return psi
