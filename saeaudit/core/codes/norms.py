"""The sum of a code (L1) and the sum of its squares (L2) as measures of codes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.descent import Problem
from saeaudit.core.codes.fits import Systems
from saeaudit.core.codes.nnls import nnls
from saeaudit.core.codes.tolerances import NNLS_RIDGE, ROUNDING, TINY

SURELY = 1 - 1e-9
"""Share of what leaving a feature out costs that a bound counts on."""
STEPS = 60
"""Most steps to the codes of one error; about eight are needed."""
DOUBLINGS = 60
"""Most steps to a weight of the norm at which the error is passed."""


class Sums(NamedTuple):
    """L1 of features with floors."""

    floor: Tensor
    """``[m, c]``, infinite where a place is empty."""

    def on(self, centre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """See `Cost`."""
        value = torch.maximum(centre - 0.5 / weight, self.floor)
        return value, value + weight * (value - centre).square()

    def of(self, codes: Tensor) -> Tensor:
        """See `Cost`."""
        return codes

    def column(self, place: int) -> Sums:
        """See `Cost`."""
        return Sums(self.floor[:, place, None])

    def rows(self, index: Tensor) -> Sums:
        """See `Cost`."""
        return Sums(self.floor[index])


class Squares(NamedTuple):
    """Squared L2 of features with floors."""

    floor: Tensor
    """``[m, c]``, infinite where a place is empty."""

    def on(self, centre: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """See `Cost`."""
        value = torch.maximum(weight * centre / (1 + weight), self.floor)
        return value, value.square() + weight * (value - centre).square()

    def of(self, codes: Tensor) -> Tensor:
        """See `Cost`."""
        return codes.square()

    def column(self, place: int) -> Squares:
        """See `Cost`."""
        return Squares(self.floor[:, place, None])

    def rows(self, index: Tensor) -> Squares:
        """See `Cost`."""
        return Squares(self.floor[index])


class Norms:
    """L1 or L2 of codes with floors.

    Without floors the codes that it finishes are the least on their support, exactly; with floors
    the least among those with the same features on.
    """

    def __init__(self, floor: Tensor, cost: type[Sums] | type[Squares]) -> None:
        """Take ``floor [n]``, least values of features that are on, and which norm."""
        self.floor, self._cost = floor, cost

    def least(self, index: Tensor) -> Tensor:
        """What features, -1 at empty places, cost at their floors."""
        return self._cost(self._floors(index)).of(self._floors(index))

    def _floors(self, index: Tensor) -> Tensor:
        return torch.where(index >= 0, self.floor[index.clamp(min=0)], torch.inf)

    def of(self, rows: Tensor, codes: Tensor) -> Tensor:
        """The norm ``[m]`` of codes ``[m, k]``."""
        return self._cost(codes).of(codes).sum(1)

    def near(self, index: Tensor, centre: Tensor, reach: Tensor) -> Sums | Squares:
        """Cost of features ``[m, c]``, -1 at empty places, the same about any centre."""
        return self._cost(self._floors(index))

    def everywhere(self, index: Tensor, near: Sums | Squares) -> Sums | Squares:
        """The same."""
        return near

    def entering(self, index: Tensor) -> Sums | Squares:
        """Cost of features ``[m, c]``."""
        return self._cost(self.floor[index])

    def price(self, codes: Tensor, count: Tensor, room: Tensor) -> Tensor:
        """Price of squared error where rows are orthogonal and all of it is spent."""
        if self._cost is Sums:
            return (count / room).sqrt() / 2
        return (codes.square().sum(1) / room).sqrt().clamp(min=TINY)

    def finish(self, problem: Problem, codes: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """The least codes with the same features on; without floors, of those on the support.

        Where a row enters and all features of the support stay on, each is left out in turn.

        Args:
            problem: m of them, in this norm.
            codes: ``[m, c]``.
            cost: ``[m]``, infinite where a descent has no code within the limit.
        """
        if bool((self.floor > 0).any()):
            codes, least, _ = _least_on(problem, codes > 0)
            return codes, torch.where(cost.isfinite(), least, torch.inf)
        codes, cost, weight = _least_on(problem, problem.active)
        full = problem.enters & ~problem.off(codes).any(1) & cost.isfinite()
        full = full.nonzero().squeeze(1)
        if len(full):
            part = problem.only(full[:, None])
            bound = cost[full, None] + _more_without(part, codes[full], weight[full])
            codes[full], cost[full] = _least_without_one(part, bound)
        return codes, cost


def _least_on(problem: Problem, on: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The least codes with features ``on [m, c]`` bool, their norms, and weights of the norm.

    Features are off where without a floor they are 0.
    """
    systems, floors = problem.systems.apart(), problem.cost
    assert isinstance(floors, Sums | Squares)
    both = on[:, :, None] & on[:, None, :]
    gram, moment = torch.where(both, systems.gram, 0.0), torch.where(on, systems.moment, 0.0)
    path = _Path(
        Systems(gram, moment, systems.size), torch.where(on, floors.floor, 0.0), on,
        isinstance(floors, Squares),
    )  # fmt: skip
    codes, within, weight = path.at_error(problem.limit + ROUNDING * systems.size)
    return codes, torch.where(within, floors.of(codes).sum(1), torch.inf), weight


def _more_without(problem: Problem, codes: Tensor, weight: Tensor) -> Tensor:
    """What the norm grows by at least without each feature ``[m, c]``, where all are positive.

    With the squared error at the price 1 / t the least codes minimise a quadratic, and without a
    feature its least value is ``codes_i^2 / (t (H^-1)_ii)`` above.
    """
    matrix = problem.systems.apart().gram
    if isinstance(problem.cost, Squares):
        matrix = matrix + torch.diag_embed(weight[:, None] * problem.active)
    ridge = torch.where(problem.active, NNLS_RIDGE, 1.0)
    inverse = torch.linalg.inv(matrix + torch.diag_embed(ridge))
    spread = weight[:, None] * inverse.diagonal(dim1=1, dim2=2)
    more: Tensor = SURELY * codes.square() / spread.clamp(min=TINY)
    return more


def _least_without_one(problem: Problem, bound: Tensor) -> tuple[Tensor, Tensor]:
    """The least codes and norms with one feature of the support left out.

    Args:
        problem: m of them.
        bound: ``[m, c]`` lower bounds without each feature.
    """
    bound = bound.masked_fill(~problem.active, torch.inf)[:, :-1]
    bound, order = bound.sort(dim=1)
    codes = torch.zeros_like(problem.systems.moment)
    cost = torch.full_like(problem.limit, torch.inf)
    for place, least in zip(order.unbind(1), bound.unbind(1), strict=True):
        unsettled = (least < cost).nonzero().squeeze(1)
        if not len(unsettled):
            break
        part = problem.only(unsettled[:, None])
        on = part.active.scatter(1, place[unsettled, None], False)
        fewer, norm, _ = _least_on(part, on)
        better = norm < cost[unsettled]
        codes[unsettled] = torch.where(better[:, None], fewer, codes[unsettled])
        cost[unsettled] = torch.where(better, norm, cost[unsettled])
    return codes, cost


class _Path(NamedTuple):
    """Codes of least squared error with t times their norm beside it, by t."""

    systems: Systems
    floor: Tensor
    """``[m, c]``, 0 where a feature is off."""
    on: Tensor
    """``[m, c]`` bool."""
    squares: bool
    """Whether the norm is L2."""

    def at(self, t: Tensor, guess: Tensor) -> Tensor:
        """The codes for ``t [m]``: floors, and beyond them non-negative least squares."""
        gram, moment, _ = self.systems
        moment = moment - (gram @ self.floor[:, :, None]).squeeze(2)
        weight = t[:, None] * self.on
        if self.squares:
            gram, moment = gram + torch.diag_embed(weight), moment - weight * self.floor
        else:
            moment = moment - weight / 2
        return self.floor + nnls(gram, moment, guess)

    def only(self, index: Tensor) -> _Path:
        """Some of the problems."""
        systems = Systems(*(field[index] for field in self.systems))
        return _Path(systems, self.floor[index], self.on[index], self.squares)

    def at_error(self, limit: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The codes of a squared error, which t only adds to.

        The error is about linear in t^2, in which it is interpolated between two t on either side
        (where one of them stays, its part counts half: the Illinois method).

        Args:
            limit: ``[m]``.

        Returns:
            Codes ``[m, c]``, as close to the limit as the floors allow; whether ``[m]`` they are
            within it; and their t ``[m]``.
        """
        low, high = torch.zeros_like(limit), self._beyond(limit)
        codes = self.at(low, self.on)
        below = self.systems.error(codes) - limit
        ends = self.at(high, self.on)
        above = self.systems.error(ends) - limit
        within = below <= 0
        codes = torch.where((above <= 0)[:, None], ends, codes)
        going = (within & (above > 0)).nonzero().squeeze(1)
        close = 2 * ROUNDING * self.systems.size
        for _ in range(STEPS):
            if not len(going):
                break
            part = self.only(going)
            a, b, f, g = low[going], high[going], below[going], above[going]
            t = ((a.square() * g - b.square() * f) / (g - f)).clamp(min=0).sqrt()
            new = part.at(t, codes[going] > part.floor)
            error = part.systems.error(new) - limit[going]
            inside = error <= 0
            low[going], high[going] = torch.where(inside, t, a), torch.where(inside, b, t)
            below[going] = torch.where(inside, error, f / 2)
            above[going] = torch.where(inside, g / 2, error)
            codes[going] = torch.where(inside[:, None], new, codes[going])
            going = going[~(inside & (error > -close[going]))]
        return codes, within, low

    def _beyond(self, limit: Tensor) -> Tensor:
        """A t ``[m]`` at which the error passes the limit, or floors are all that is left."""
        t = (2 * self.systems.moment.abs().amax(1)).clamp(min=TINY)
        lowest = self.systems.error(self.floor) <= limit
        for _ in range(DOUBLINGS if self.squares else 0):
            more = (self.systems.error(self.at(t, self.on)) <= limit) & ~lowest
            if not bool(more.any()):
                break
            t = torch.where(more, 4 * t, t)
        return t
