"""All codes one swap away from a given one, in closed form.

`saeaudit.core.codes.algebra` has the algebra; no swap needs a solve but those whose least-squares
codes have a negative entry, and whose lower bound on the non-negative error still passes.

All k (F - k) swaps of a token cost one k x F product over d and one k x F product over k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saeaudit.core.codes.algebra import (
    AgainstPositive,
    Entering,
    Unsigned,
    enter_rows,
    least_squares,
    lower_bounds,
    positive_exchanges,
)
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import CURVATURE, DEPENDENT, ROUNDING, TOLERANCE
from saeaudit.core.rows import spans


@dataclass
class Swaps:
    """What one swap can do for each token, for a list of limits on the squared error."""

    count: Tensor
    """``[B, T]`` int64: supports S - i + j whose non-negative codes stay within each limit."""
    unsigned: Tensor
    """``[B, T]`` int64: the same with codes of either sign."""
    passing: Tensor
    """``[B, T, k]`` bool: features that some counted swap removes."""
    error: Tensor
    """``[B, k]``: for each removed feature, the least non-negative squared error looked at."""
    feature: Tensor
    """``[B, k]`` int64: row number of the feature that enters then; -1 where none was looked at."""
    listed: Tensor | None = None
    """``[m, 4]`` int64, if asked for: token, limit, removed place and entering row of every
    counted swap but those of features that can simply go."""
    droppable: Tensor | None = None
    """``[B, T, k]`` bool: features that can simply go, so that all their swaps count."""


def one_swaps(
    fits: list[Fit],
    limits: list[Tensor],
    enter: Tensor,
    *,
    listing: bool = False,
) -> list[Swaps]:
    """Count the swaps within limits, and find the best for every removed feature.

    Where a feature can go without any in its place, all swaps of it pass and only the best one
    (by least-squares error) is looked at; of all others, every one that could pass is.

    Args:
        fits: targets on the same supports.
        limits: for each of them ``[B, T]`` squared errors; a swap passes where its error is at
            most the limit and `TOLERANCE` of the target more.
        enter: ``[n]`` bool: rows that may enter.
        listing: whether to list the swaps, not only count them.

    Returns:
        One `Swaps` for each of `fits`.
    """
    supports = fits[0].supports
    units, (batch, k) = supports.units, supports.rows.shape
    counts = [_Counts(fit, limit, enter, listing) for fit, limit in zip(fits, limits, strict=True)]
    columns = units.budget.swap_columns(batch * k, supports.rows.device)
    for start, stop in spans(units.count if k else 0, columns):
        entering = enter_rows(supports, enter, start, stop)
        for count in counts:
            count.take(entering)
    return [count.result() for count in counts]


class _Counts:
    """Running counts and minima of one target."""

    def __init__(self, fit: Fit, limits: Tensor, enter: Tensor, listing: bool) -> None:
        self.fit = fit
        self.listed: list[Tensor] | None = [] if listing else None
        supports = fit.supports
        batch, k = supports.rows.shape
        device = supports.rows.device
        active = supports.active[:, None, :]
        self.limits = limits + TOLERANCE * fit.size[:, None]
        every_limit = self.limits[:, :, None]
        self.droppable = (fit.without_nonnegative[:, None, :] <= every_limit) & active
        droppable_unsigned = (fit.without[:, None, :] <= every_limit) & active
        # The widest limit at which a feature cannot simply go: beyond it swaps need no look.
        open_limits = torch.where(self.droppable, -torch.inf, every_limit)
        self.widest = open_limits.amax(1).masked_fill(~supports.active, -torch.inf)
        taken = enter[supports.rows.clamp(min=0)] & supports.active
        entering = enter.sum() - taken.sum(1)
        never = torch.where(droppable_unsigned | ~active, -torch.inf, 0.0)
        self.limits_unsigned = every_limit + never
        self.any_limit = torch.maximum(self.limits_unsigned.amax(1), self.widest)
        self.count = self.droppable.sum(2) * entering[:, None]
        self.unsigned = droppable_unsigned.sum(2) * entering[:, None]
        self.passing = self.droppable & (entering > 0)[:, None, None]
        self.error = torch.full((batch, k), torch.inf, dtype=torch.float64, device=device)
        self.feature = torch.full((batch, k), -1, dtype=torch.int64, device=device)
        self.best = self.error.clone()
        # Where a feature can go at every limit, the best replacement by least squares.
        self.free = supports.active & torch.isneginf(self.widest)
        self.any_free = self.free.any()
        self.free_error = self.error.clone()
        self.free_feature = self.feature.clone()

    def take(self, entering: Entering) -> None:
        """Take the swaps that bring in some rows.

        Least squares decide the unsigned counts. With codes >= 0, the error as a function of the
        new row's code has the slope -2 `slope` at zero and at least the curvature 2 `distance`, so
        it is at least ``without - slope^2 / distance``: a row with no slope stays out.
        """
        fit, barred = self.fit, entering.barred
        swaps = least_squares(fit, entering)
        dependent = (swaps.distance + barred).amin() < DEPENDENT
        # Codes >= 0 fit no better than least squares do: often nothing here is within a limit.
        near = (swaps.error.amin(2) <= self.any_limit).any()
        if not bool(near | self.any_free | dependent):
            return
        for t in range(self.limits.shape[1]):
            within = swaps.error <= self.limits_unsigned[:, t, :, None]
            self.unsigned[:, t] += within.flatten(1).sum(1)
        moment = fit.target @ entering.vectors.T
        slope = moment[:, None, :] - fit.codes_without_nonnegative @ entering.cross
        slope.clamp_(min=0)
        least = slope.square().div_(swaps.distance.clamp(min=CURVATURE)).neg_()
        least += fit.without_nonnegative[:, :, None]
        # At most: the new row alone makes up for what it can.
        most = fit.without_nonnegative[:, :, None] - slope.square()
        least += barred
        most += barred
        self._solve(entering, swaps, moment, most, self._undecided(least, most).nonzero())
        if bool(self.free.any()):
            self._replace_free(entering.start, least)

    def _solve(
        self, entering: Entering, swaps: Unsigned, moment: Tensor, most: Tensor, undecided: Tensor
    ) -> None:
        """Find the non-negative errors of ``undecided [m, 3]``: token, place and column."""
        fit, cross = self.fit, entering.cross
        rows = AgainstPositive.of(fit, entering)
        at_once = fit.supports.units.budget.solved_cells // max(1, cross.shape[1])
        for first, last in spans(len(undecided), max(1, at_once)):
            b, i, c = undecided[first:last].unbind(1)
            error, codes = positive_exchanges(fit, rows, b, i, c)
            unknown = error.isnan().nonzero().squeeze(1)
            error[unknown] = torch.inf
            b_, i_, c_ = b[unknown], i[unknown], c[unknown]
            least = lower_bounds(fit, entering, swaps, (b_, i_, c_))
            hard = unknown[least <= self.widest[b_, i_]]
            for low, high in spans(len(hard), fit.supports.systems_at_once):
                part = hard[low:high]
                token, place, column = b[part], i[part], c[part]
                system = fit.exchange(token, place, cross[token, :, column], moment[token, column])
                error[part] = system.error(system.solve(codes[part] > 0))
            self._count(b, i, c + entering.start, error, most[b, i, c])

    def _replace_free(self, start: int, least: Tensor) -> None:
        """Note better replacements, by lower bounds ``[B, k, c]``, of features that can go."""
        b, i = self.free.nonzero().unbind(1)
        bound, at = least[b, i].min(1)
        better = bound < torch.minimum(self.free_error[b, i], self.fit.without_nonnegative[b, i])
        b, i = b[better], i[better]
        self.free_error[b, i] = bound[better]
        self.free_feature[b, i] = at[better] + start

    def _undecided(self, least: Tensor, most: Tensor) -> Tensor:
        """Count the swaps that bounds decide; which of the rest need their exact error.

        Args:
            least: ``[B, k, columns]`` lower bounds on squared errors.
            most: upper bounds.

        Returns:
            Bool of the same shape: where a limit lies between the bounds, or where the error may
            be the least of the removed feature's.
        """
        if self.listed is not None:
            return least <= self.widest[:, :, None]
        best = torch.minimum(self.best, most.amin(2))
        self.best = best
        close = best + ROUNDING * self.fit.size[:, None]  # the bounds can meet, to rounding
        needed = least <= torch.minimum(close, self.widest)[:, :, None]
        for t in range(self.limits.shape[1]):
            limit = torch.where(self.droppable[:, t], -torch.inf, self.limits[:, t, None])
            limit = limit[:, :, None]
            sure = most <= limit
            self.count[:, t] += sure.flatten(1).sum(1)
            self.passing[:, t] |= sure.view(torch.uint8).amax(2).bool()
            needed |= (least <= limit) & ~sure
        return needed

    def _count(self, b: Tensor, i: Tensor, row: Tensor, error: Tensor, most: Tensor) -> None:
        """Take the non-negative errors of some swaps, but count none that bounds have counted."""
        passed = (error[:, None] <= self.limits[b]) & ~self.droppable[b, :, i]
        if self.listed is None:
            passed &= most[:, None] > self.limits[b]
        self.count.index_add_(0, b, passed.long())
        hit, which = passed.nonzero().unbind(1)
        self.passing[b[hit], which, i[hit]] = True
        if self.listed is not None:
            self.listed.append(torch.stack([b[hit], which, i[hit], row[hit]], 1))
        self._improve(b, i, error, row)

    def _improve(self, b: Tensor, i: Tensor, error: Tensor, feature: Tensor) -> None:
        """Keep the least error of each removed feature; of equal ones the smallest row number."""
        k = self.error.shape[1]
        place = b * k + i
        least = self.error.view(-1).clone()
        least.scatter_reduce_(0, place, error, "amin")
        won = (error == least[place]) & (error < self.error.view(-1)[place])
        place, feature = place[won], feature[won]
        entering = torch.full_like(self.feature.view(-1), torch.iinfo(torch.int64).max)
        entering.scatter_reduce_(0, place, feature, "amin")
        self.feature.view(-1)[place] = entering[place]
        self.error.copy_(least.view_as(self.error))

    def result(self) -> Swaps:
        """Settle the best replacements of features that can simply go."""
        fit = self.fit
        units = fit.supports.units
        b, i = (self.free & (self.free_feature >= 0)).nonzero().unbind(1)
        for start, stop in spans(len(b), fit.supports.systems_at_once):
            token, place = b[start:stop], i[start:stop]
            feature = self.free_feature[token, place]
            added = units.raw(feature) / units.norms[feature, None]
            cross = fit.supports.cosines(token, added)
            moment = (fit.target[token] * added).sum(1)
            system = fit.exchange(token, place, cross, moment)
            error = system.error(system.solve(fit.codes_without_nonnegative[token, place] > 0))
            self._improve(token, place, error, feature)
        listed = None
        if self.listed is not None:
            listed = torch.cat([self.feature.new_empty(0, 4), *self.listed])
        return Swaps(
            self.count, self.unsigned, self.passing, self.error, self.feature, listed,
            self.droppable,
        )  # fmt: skip
