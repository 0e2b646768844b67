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
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.algebra import Entering
from saeaudit.core.codes.costs import Cost
from saeaudit.core.codes.duals import Dual
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import DEPENDENT, ROUNDING

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
        self._top = self._linear.clamp(min=0) + weight * limit.sqrt()[:, None]
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
            cost: of these rows ``[c, 1]``, whatever their values.
            floor: ``[c]`` their least values.
        """
        fit, price = self._fit, self._price[:, None]
        apart = entering.apart.clamp(min=DEPENDENT)
        along = entering.along(fit.residual)
        room = (self._limit - fit.error)[:, None] + along.square() / apart
        most = along / apart + (room.clamp(min=0) / apart).sqrt()
        never = (room < 0) | (most < floor)
        short = SPAN * fit.size.sqrt()[:, None]
        ends = floor.expand_as(most), torch.maximum(most, floor + short)
        first, second = self._concave(entering, ends)
        slant = (second - first) / (ends[1] - ends[0])
        moment = entering.along(fit.target)
        centre = moment - slant / (2 * price)
        _, total = cost.on(centre.T, price.T)
        bound = total.T - price * centre.square() + first - slant * ends[0]
        bound += price * ((1 - ROUNDING) * fit.size - self._limit)[:, None]
        return bound.masked_fill_(never, torch.inf) + entering.barred[:, 0]

    def _concave(self, entering: Entering, ends: tuple[Tensor, Tensor]) -> list[Tensor]:
        """The concave part ``[B, c]`` of the bound at two values of the entering rows."""
        weight, active = entering.weight, self._fit.supports.active[:, :, None]
        pull = self._weight[:, :, None] * weight
        cross = 2 * (weight * self._turned[:, :, None]).sum(1)
        square = (weight * (self._rest @ weight)).sum(1)
        sums = []
        for s in ends:
            psi = self._psi(self._linear[:, :, None] - s[:, None, :] * pull)
            needless = psi.masked_fill(~active, -torch.inf).amax(1)
            level = self._level[:, None] - s * cross + s.square() * square
            sums.append(psi.sum(1) - needless - self._price[:, None] * level)
        return sums

    def _psi(self, linear: Tensor) -> Tensor:
        """Lower bounds ``[B, k, c]`` on every psi, which does not rise with l."""
        top = self._top[:, :, None]
        place = linear * ((KNOTS - 1) / top)
        knot = place.floor().clamp_(0, KNOTS - 2)
        index = knot.long()
        low, high = self._table.gather(2, index), self._table.gather(2, index + 1)
        psi = torch.lerp(low, high, (place - knot).clamp_(0, 1))
        beyond = linear > top
        if bool(beyond.any()):
            b, i, c = beyond.nonzero().unbind(1)
            square = self._price[b] * linear[b, i, c].square() / self._weight[b, i]
            psi[b, i, c] = (self._least[b, i] - square).clamp(max=0)
        return psi
