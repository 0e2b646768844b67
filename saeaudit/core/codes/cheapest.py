"""The cheapest codes one swap away, of all there are.

A swap of a support S puts a row j in the place of a feature i. As a feature may be off, the codes
of all the supports S - i + j with the same j are those on S and j with j on and some feature of S
off: one problem for every row that enters, beside the one of S itself.

Lower bounds (`entering`) order the rows. Those whose bound is below the best cost yet are solved
(`descent`), least bound first; when no bound is, the cheapest code is that of solving all.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from saeaudit.core.codes.algebra import Entering, Exchanged, least_squares, marked_rows
from saeaudit.core.codes.bordered import Bordered
from saeaudit.core.codes.costs import Cost
from saeaudit.core.codes.descent import Problem, descend
from saeaudit.core.codes.duals import Dual, ascend, diagonal_below
from saeaudit.core.codes.entering import EnteringBounds, SupportCost
from saeaudit.core.codes.estimates import Estimates, Estimator
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.signed import LeastSquares
from saeaudit.core.codes.tolerances import DELICATE, DEPENDENT, ROUNDING, TINY, TOLERANCE, ZERO
from saeaudit.core.float32 import exact_float32
from saeaudit.core.rows import spans

CHUNK = 16
"""Rows of one token solved at once: more are solved in vain, fewer cost more calls."""
SOLVED = 128
"""Most rows of one token that are solved: on the bundled sample three quarters of the tokens need
fewer, and further ones gain less than 0.1 bits a token."""
LISTED = 16
"""Codes of one token that are kept."""
GAIN = 1e-9
"""A code is cheaper where it costs this much less."""


class Measure(Protocol):
    """What codes are compared by."""

    floor: Tensor
    """``[n]``: least value of each row that is on."""

    def near(self, index: Tensor, centre: Tensor, reach: Tensor) -> Cost:
        """Cost of rows ``[m, c]``, -1 at empty places, at values within reach of a centre."""

    def everywhere(self, index: Tensor, near: Any) -> Cost:
        """The same as a cost that it made `near`, or less, at all values."""

    def entering(self, index: Tensor) -> Cost:
        """Cost of rows ``[m, c]``, or less, at all values."""

    def least(self, index: Tensor) -> Tensor:
        """What no value of rows, -1 at empty places, costs less than."""

    def of(self, rows: Tensor, codes: Tensor) -> Tensor:
        """What codes ``[m, k]`` cost, ``[m]``."""

    def price(self, codes: Tensor, count: Tensor, room: Tensor) -> Tensor:
        """Price ``[m]`` of squared error at which a code spends about what there is to spare.

        Args:
            codes: ``[m, c]`` about what to expect.
            count: ``[m]`` features.
            room: ``[m]`` squared error to spare, > 0.
        """

    def finish(self, problem: Problem, codes: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """What descents arrived at, made cheaper; costs are infinite where there is no code."""


class Cheapest(NamedTuple):
    """The cheapest codes of B tokens: one of the support, one for each row that was solved."""

    cost: Tensor
    """``[B, c]``, ascending; infinite where there are no more."""
    row: Tensor
    """``[B, c]`` int64: the row that enters, -1 where none does."""
    rows: Tensor
    """``[B, c, k + 1]`` int64: rows of the codes, -1 at empty places."""
    codes: Tensor
    """``[B, c, k + 1]`` float64 unit-row codes, 0 where a feature is off."""
    support: Tensor
    """``[B]``: least cost of a code of the support itself."""
    kept: Tensor
    """``[B, k + 1]``: that code, its last place empty."""
    bound: Tensor
    """``[B]``: no code one swap away costs less, whatever procedure finds it."""
    gap: Tensor
    """``[B]``: by how much a row that was not solved could be cheaper; 0 where none can."""
    solved: Tensor
    """``[B]`` int64: rows that were solved."""


def cheapest(
    fit: Fit, reference: tuple[Tensor, Tensor], enter: Tensor, measure: Measure, *,
    window: float = 0.0, most: int = SOLVED,
) -> Cheapest:  # fmt: skip
    """The cheapest codes within limits on the squared error, on supports at most one swap away.

    A row is solved from least squares on S - i + j, i the feature without which they fit best (of
    those in whose place the row's own code is positive, where there are any), raised to the floors
    (off below half of one): by `descent.descend`, or where this comes to no cheaper code and that
    start is within the limit by that, and then the measure's `finish`. S itself is solved from the
    reference code, which is taken where it costs no more than what comes of it.

    Args:
        fit: targets on the supports S.
        reference: codes ``[B, k]`` on S and their squared errors ``[B]``, the limits.
        enter: ``[n]`` bool: rows that may enter.
        measure: bits, L1 or L2.
        window: rows are solved that could come within this of the cheapest code, not only those
            that could be cheaper: then every one of `Cheapest.cost` within it is the row's least.
        most: rows of one token to solve at most.
    """
    search = Search(fit, reference, measure)
    with exact_float32():
        for rows in Estimator(fit.supports, fit.residual[:, None]).all_rows(enter):
            search.take(rows)
    return search.result(window=window, most=most)


class _Listed:
    """The `LISTED` cheapest codes of each token, cheapest first; of equals the first listed."""

    def __init__(self, codes: Tensor, cost: Tensor) -> None:
        self.codes, self.cost = codes[:, None], cost[:, None]
        self.row = torch.full(self.cost.shape, -1, device=cost.device)

    def add(self, at: tuple[Tensor, Tensor, int], row: Tensor, codes: Tensor, cost: Tensor) -> None:
        """Add the codes of tokens ``at[0]``, at places ``at[1]`` of ``at[2]`` each."""
        token, place, width = at
        shape = len(self.cost), width
        costs = cost.new_full(shape, torch.inf)
        rows = torch.full(shape, -1, device=row.device)
        wide = codes.new_zeros(*shape, codes.shape[1])
        costs[token, place], rows[token, place], wide[token, place] = cost, row, codes
        self.cost, order = torch.cat([self.cost, costs], 1).sort(dim=1, stable=True)
        self.cost, order = self.cost[:, :LISTED], order[:, :LISTED]
        self.row = torch.cat([self.row, rows], 1).gather(1, order)
        every = order[:, :, None].expand(-1, -1, codes.shape[1])
        self.codes = torch.cat([self.codes, wide], 1).gather(1, every)


class Search:
    """A search for the cheapest codes of a group of tokens, as `cheapest` says.

    Beside others, it takes the estimates that these have made of all rows: bounds of few of them
    have to be known exactly.
    """

    def __init__(self, fit: Fit, reference: tuple[Tensor, Tensor], measure: Measure) -> None:
        """Solve the supports themselves; see `cheapest` for what is given."""
        self.fit, self.measure = fit, measure
        supports = fit.supports
        self.limit = reference[1] + TOLERANCE * fit.size
        room = (self.limit - fit.error).clamp(min=0)
        self.reach = (room[:, None] * fit.diagonal).sqrt() * supports.active
        self._codes, self._cost = self._solve_supports(reference[0])
        self.tables, whole = self._make_tables(self._codes[:, :-1])
        lowest = torch.where(supports.active, measure.least(supports.rows), 0.0)
        self._lowest = lowest.clamp(max=0).sum(1)
        self._whole = torch.where(self._sound, whole, self._lowest)
        self._below = self.limit.new_full((len(self.limit), supports.units.count), torch.inf)
        self._squares: LeastSquares | None = None

    def take(self, rows: Estimates) -> None:
        """Take estimates of all rows; the fit's residual is the first of their further directions.

        They leave lower bounds on the bounds of rows, infinite where none can enter.
        """
        stop = rows.start + rows.apart.shape[1]
        index = torch.arange(rows.start, stop, device=rows.apart.device)[None]
        measure = self.measure
        below = self.tables.below(rows, measure.entering(index), measure.floor[index])
        trivial = self._trivial(index).masked_fill(rows.barred, torch.inf)
        below = torch.where(self._sound[:, None], below, trivial)
        if self._squares is None:
            self._squares = LeastSquares(self.fit, self.limit[:, None], rows.estimator)
        if not bool(self._squares.always.all()):
            never = self._squares.none_within(rows) & ~rows.unclear
            below.masked_fill_(never, torch.inf)
        self._below[:, rows.start : stop] = below

    def result(self, *, window: float = 0.0, most: int = SOLVED) -> Cheapest:
        """Solve the most promising of the rows taken; see `cheapest`."""
        bounds, places = self.bounds(most + 1)
        listed = _Listed(self._codes, self._cost)
        bound, order = bounds.sort(dim=1)
        solved = torch.zeros_like(order[:, 0])
        for first, last in spans(min(most, bound.shape[1]), CHUNK):
            promising = bound[:, first:last] < listed.cost[:, :1] + window - GAIN
            count = promising.sum(1)
            token = count.nonzero().squeeze(1)
            if not len(token):
                break
            # As many of each token: where fewer are promising, which come first, one is repeated.
            at = torch.arange(int(count.max()), device=count.device).expand(len(token), -1)
            once = at < count[token, None]
            row = order[token[:, None], first + at * once]
            codes, cost = self._solve(token, row, places[token[:, None], row])
            token = token[:, None].expand_as(at)[once]
            listed.add((token, at[once], last - first), row[once], codes[once], cost[once])
            solved += promising.sum(1)
        unsolved = torch.arange(bound.shape[1], device=bound.device) >= solved[:, None]
        ahead = torch.where(unsolved, bound, torch.inf)
        ahead = pad(ahead, (0, 1), value=torch.inf).amin(1)
        rows = self.fit.supports.rows[:, None, :].expand(-1, listed.row.shape[1], -1)
        return Cheapest(
            cost=listed.cost,
            row=listed.row,
            rows=torch.cat([rows, listed.row[:, :, None]], 2),
            codes=listed.codes,
            support=self._cost,
            kept=self._codes,
            bound=torch.minimum(self._whole, pad(bound, (0, 1), value=torch.inf)[:, 0]),
            gap=torch.where(ahead < listed.cost[:, 0] - GAIN, listed.cost[:, 0] - ahead, 0.0),
            solved=solved,
        )

    def _solve_supports(self, reference: Tensor) -> tuple[Tensor, Tensor]:
        """Codes ``[B, k + 1]``, the last of them zero, and costs ``[B]`` of the supports."""
        fit = self.fit
        every = torch.arange(len(self.limit), device=self.limit.device)
        none = torch.zeros_like(fit.moment[:, None])
        systems = Bordered(fit.supports.gram, none, pad(fit.moment, (0, 1)), fit.size)
        rows, reach = pad(fit.supports.rows, (0, 1), value=-1), pad(self.reach, (0, 1))
        cost = self.measure.near(rows, pad(fit.codes, (0, 1)), reach)
        active = pad(fit.supports.active, (0, 1))
        problem = Problem(systems, self.limit, cost, active, torch.zeros_like(every).bool())
        codes, least = descend(
            problem, pad(reference, (0, 1)), self._price(every, fit.error, reference, active)
        )
        codes, least = self.measure.finish(problem, codes, least)
        price = self.measure.of(fit.supports.rows, reference)
        same = ~(least < price)
        return (
            torch.where(same[:, None], pad(reference, (0, 1)), codes),
            torch.where(same, price, least),
        )

    def bounds(self, count: int) -> tuple[Tensor, Tensor]:
        """Lower bounds of the rows taken.

        Args:
            count: of each token so many of the lowest are asked for.

        Returns:
            Bounds ``[B, n]`` of codes in which each row enters, infinite where none can, and where
            a row is not among those asked for; the places ``[B, n]`` in which it enters when the
            row is solved.
        """
        bounds = torch.full_like(self._below, torch.inf)
        places = torch.zeros(bounds.shape, dtype=torch.int64, device=bounds.device)
        count = min(count, bounds.shape[1])
        unknown = self._below < torch.inf
        if not bool(unknown.any()):
            return bounds, places
        ranked = self._below.sort(dim=1).values
        wanted = ranked[:, count - 1, None]
        while bool((marked := unknown & (self._below <= wanted)).any()):
            unknown &= ~marked
            for entering in marked_rows(self.fit.supports, marked):
                allowed = entering.barred[:, 0] == 0
                token, row = allowed.nonzero()[:, 0], entering.rows[allowed]
                bound, place = self._measure(entering)
                bounds[token, row], places[token, row] = bound[allowed], place[allowed]
            # All rows up to here are known. Those that cannot enter, or at a far higher bound, are
            # missing: in proportion among those further on.
            known = (self._below <= wanted).sum(1, keepdim=True)
            missing = (count - (bounds <= wanted).sum(1, keepdim=True)).clamp(min=0)
            rank = (known + 1 + 2 * known * missing // count).clamp(max=bounds.shape[1])
            least = bounds.kthvalue(count, dim=1, keepdim=True).values
            further = torch.minimum(ranked.gather(1, rank - 1), least)
            wanted = torch.where(missing > 0, further, wanted)
        return bounds, places

    def _measure(self, entering: Entering) -> tuple[Tensor, Tensor]:
        """Bounds and places ``[B, c]`` of rows that may enter."""
        measure, rows = self.measure, entering.rows
        bound = self.tables.of(entering, measure.entering(rows), measure.floor[rows])
        # A row in the span of the support can have any value at the same error.
        apart = entering.apart > DEPENDENT
        bound = torch.where(self._sound[:, None] & apart, bound, self._trivial(rows))
        swaps = least_squares(self.fit, entering)
        error = swaps.error.masked_fill_(~self.fit.supports.active[:, :, None], torch.inf)
        # In the place of one feature of an exact triple a row has a code > 0, of another < 0.
        upward, place = torch.where(swaps.along > 0, error, torch.inf).min(1)
        least, any_place = error.min(1)
        place = torch.where(upward.isfinite(), place, any_place)
        within = error <= self.limit[:, None, None]
        used_up, first = self._used_up(entering.weight, within).min(1)
        place = torch.where(~apart & used_up.isfinite(), first, place)
        return torch.where(least <= self.limit[:, None], bound, torch.inf), place

    def _used_up(self, weight: Tensor, within: Tensor) -> Tensor:
        """Codes of rows in the span of the support, ``[B, k, c]``, at which each of its features is
        used up; infinite where one never is.

        In the place of any of them the error is one, up to rounding. Only in that of the first that
        is used up do all codes stay >= 0.
        """
        codes = self.fit.codes.clamp(min=0)[:, :, None]
        return (codes / weight).masked_fill(~within | (weight <= 0), torch.inf)

    def _trivial(self, rows: Tensor) -> Tensor:
        """Bounds ``[B, c]``: whatever the error, no feature of the support need be on, and the row
        ``[B, c]`` or ``[1, c]`` must be."""
        return self._lowest[:, None] + self.measure.least(rows)

    @property
    def _sound(self) -> Tensor:
        """``[B]`` bool: supports whose rows do not depend on each other."""
        return (self.fit.diagonal <= DELICATE).all(1)

    def _make_tables(self, start: Tensor) -> tuple[EnteringBounds, Tensor]:
        """Bounds of rows that enter, and the bounds ``[B]`` of the supports themselves."""
        fit, supports, measure = self.fit, self.fit.supports, self.measure
        near = measure.near(supports.rows, fit.codes, self.reach)
        support = SupportCost(measure.everywhere(supports.rows, near), measure.least(supports.rows))
        eye = torch.eye(supports.rows.shape[1], dtype=start.dtype, device=start.device)
        sound = self._sound[:, None, None]
        weight = diagonal_below(
            torch.where(sound, supports.gram, eye), torch.where(sound, supports.inverse, eye)
        )
        every = torch.arange(len(start), device=start.device)
        price = self._price(every, fit.error, start, supports.active)
        dual = ascend(
            fit.system(every), self.limit, weight, support.cost, Dual(price, price, start)
        )
        return EnteringBounds(fit, self.limit, weight, support, dual), dual.bound

    def _solve(self, token: Tensor, row: Tensor, place: Tensor) -> tuple[Tensor, Tensor]:
        """Solve problems in which a row enters.

        Args:
            token: ``[b]`` int64.
            row, place: ``[b, c]`` int64: which rows enter, and in whose place each does when the
                descent begins.

        Returns:
            Codes ``[b, c, k + 1]``, the row's last, and costs ``[b, c]``, infinite where there is
            none.
        """
        fit, supports, measure = self.fit, self.fit.supports, self.measure
        units, k, shape = supports.units, supports.rows.shape[1], row.shape
        gram, token = supports.gram[token], token.repeat_interleave(shape[1])
        row, place = row.flatten(), place.flatten()
        at = torch.arange(len(token), device=token.device)
        added = units.raw(row) / units.norms[row, None]
        cross = supports.cosines(token, added)
        moment = (fit.target[token] * added).sum(1)
        moments = torch.cat([fit.moment[token], moment[:, None]], 1)
        systems = Bordered(gram, cross.view(*shape, k), moments, fit.size[token])
        swap = Exchanged.of(fit, token, place, cross, moment)
        room = (self.limit[token] - swap.error).clamp(min=0)
        reach = (room[:, None] * swap.spread).sqrt()
        # The feature that is left may come back, and is looked for where S has it.
        centre = torch.cat([swap.codes, swap.codes[at, place, None]], 1)
        reach = torch.cat([reach, reach[at, place, None]], 1)
        centre[at, place], reach[at, place] = fit.codes[token, place], self.reach[token, place]
        rows = torch.cat([supports.rows[token], row[:, None]], 1)
        active = pad(supports.active[token], (0, 1), value=True)
        floor = measure.floor[rows.clamp(min=0)]
        start = torch.where((centre > floor / 2) & active, torch.maximum(centre, floor), 0.0)
        start[:, k] = torch.maximum(centre[:, k], floor[:, k])
        start[at, place] = 0.0
        cost = measure.near(rows, centre, reach * active)
        problem = Problem(systems, self.limit[token], cost, active, torch.ones_like(token).bool())
        codes, least = descend(problem, start, self._price(token, swap.error, start, active))
        # Where there is no error to spare least squares are all that is left.
        total = cost.of(start).sum(1)
        better = (systems.error(start) <= self.limit[token]) & (start[:, k] > 0) & (total < least)
        codes = torch.where(better[:, None], start, codes)
        codes, least = measure.finish(problem, codes, torch.where(better, total, least))
        unused = codes[:, k] <= ZERO * torch.linalg.vector_norm(codes, dim=1)
        least = least.masked_fill(unused, torch.inf)
        return codes.view(*shape, k + 1), least.view(shape)

    def _price(self, token: Tensor, fitted: Tensor, codes: Tensor, active: Tensor) -> Tensor:
        """The measure's price ``[m]`` of squared error, from that of least squares and codes."""
        least = ROUNDING * self.fit.size[token]
        room = torch.maximum(self.limit[token] - fitted, least).clamp(min=TINY)
        return self.measure.price(codes, active.sum(1).clamp(min=1), room)
