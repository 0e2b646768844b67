"""All codes one swap away from a given one, in closed form.

`saeaudit.core.codes.algebra` has the algebra. A swap counts where its non-negative least-squares
codes stay within a limit on the squared error and the entering feature's code is more than the
fit's `floor`. Whether it enters is a question of slope: the error as a function of its code alone,
the others at their best, has the slope -2 `slope` at zero and a curvature between 2 `distance` and
2, so the code lies between `slope` and ``slope / distance``. No swap needs a solve but those whose
least-squares codes have a negative entry, and whose lower bound on the error still passes.

All k (F - k) swaps of a token cost one k x F product over d and a few k x F products over k, in
float32: `saeaudit.core.codes.screening` counts what these estimates are sure of. What follows in
float64 is for the rows that they leave open, and for those that may hold a best swap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.algebra import (
    AgainstPositive,
    Entering,
    Unsigned,
    least_squares,
    lower_bounds,
    marked_rows,
)
from saeaudit.core.codes.bars import Bars
from saeaudit.core.codes.cheapest import Search
from saeaudit.core.codes.estimates import Estimator
from saeaudit.core.codes.fits import Fit, Systems
from saeaudit.core.codes.full import Farthest
from saeaudit.core.codes.pivots import Column, exchanged
from saeaudit.core.codes.reach import Reach
from saeaudit.core.codes.screening import Screened, least_different
from saeaudit.core.codes.tolerances import CURVATURE, DEPENDENT, NNLS_RIDGE, ROUNDING
from saeaudit.core.float32 import exact_float32
from saeaudit.core.rows import spans


@dataclass
class Swaps:
    """What one swap can do for each token, for a list of limits on the squared error."""

    count: Tensor
    """``[B, T]`` int64: supports S - i + j whose non-negative codes stay within each limit, the
    entering feature's above the fit's `floor`."""
    distinct: Tensor
    """``[B, T]`` int64: lower bound on how many different features those codes are of. Two swaps
    have the same code where it needs neither of the features that they remove."""
    unsigned: Tensor
    """``[B, T]`` int64: supports whose codes of either sign stay within each limit."""
    passing: Tensor
    """``[B, T, k]`` bool: features that some counted swap removes."""
    droppable: Tensor
    """``[B, T, k]`` bool: features without which, and without any other, codes stay within."""
    error: Tensor
    """``[B, k]``: for each removed feature, the least non-negative squared error, where that is
    within the widest limit at which the feature cannot simply go; infinite elsewhere. Of a feature
    that can go at every limit: that of the swap with the least lower bound."""
    feature: Tensor
    """``[B, k]`` int64: row number of the feature that enters then; -1 where there is none."""


def one_swaps(
    fits: list[Fit],
    limits: list[Tensor],
    enter: Tensor,
    farthest: Sequence[Farthest] = (),
    searches: Sequence[Search] = (),
) -> list[Swaps]:
    """Count the swaps within limits, and find the best for every removed feature.

    Where a feature can go at every limit without any in its place, only the best swap of it (by
    a lower bound on the error) is looked at; of all others, every one that could be the best.

    Args:
        fits: targets on the same supports.
        limits: for each of them ``[B, T]`` squared errors; a swap passes where its error is at
            most the limit and `TOLERANCE` of the target more.
        enter: ``[n]`` bool: rows that may enter.
        farthest: for each of `fits` what is to be told of the same swaps, or none.
        searches: on the first of `fits`, for which the same estimates are taken.

    Returns:
        One `Swaps` for each of `fits`.
    """
    bars = [Bars.of(fit, limit) for fit, limit in zip(fits, limits, strict=True)]
    with exact_float32():
        screened, reached = _screen(fits, bars, enter, farthest, searches)
    counts = [_Counts(fit, bar) for fit, bar in zip(fits, bars, strict=True)]
    for count, quick in zip(counts, screened, strict=True):
        for entering in marked_rows(count.fit.supports, quick.open | quick.best()):
            swaps = least_squares(count.fit, entering)
            count.take(entering, swaps, quick.open.gather(1, entering.rows))
    for far, rows in zip(farthest, reached, strict=True):
        for entering in marked_rows(far.fit.supports, rows):
            far.take(entering, least_squares(far.fit, entering))
    return [count.result(quick) for count, quick in zip(counts, screened, strict=True)]


def _screen(
    fits: list[Fit], bars: list[Bars], enter: Tensor, farthest: Sequence[Farthest],
    searches: Sequence[Search],
) -> tuple[list[Screened], list[Tensor]]:  # fmt: skip
    """Count what estimates are sure of.

    Returns:
        The counts of each of `fits`, and for each of `farthest` bool ``[B, n]``: rows that may
        bring it.
    """
    beside = [residual for fit in fits for residual in (fit.residual, fit.positive.residual)]
    estimator = Estimator(fits[0].supports, torch.stack(beside, 1))
    screened = [
        Screened(*pair, estimator, 2 * n) for n, pair in enumerate(zip(fits, bars, strict=True))
    ]
    reaches = [Reach(far, quick, estimator) for far, quick in zip(farthest, screened, strict=False)]
    for rows in estimator.all_rows(enter):
        for quick, reach in zip_longest(screened, reaches):
            quick.take(rows)
            if reach is not None:
                reach.take(rows)
        for search in searches:
            search.take(rows)
    for quick in screened:
        quick.decide()
    reached = [reach.rows() for reach in reaches]
    for far, reach in zip(farthest, reaches, strict=True):
        far.attainable |= reach.attainable
    return screened, reached


class _Counts:
    """Running counts and minima of one target."""

    def __init__(self, fit: Fit, bars: Bars) -> None:
        self.fit = fit
        batch, k = fit.supports.rows.shape
        device = fit.supports.rows.device
        active = fit.supports.active
        self.limits, self.droppable, self.widest, self.free = bars
        every_limit = self.limits[:, :, None]
        self.limits_unsigned = torch.where(active[:, None, :], every_limit, -torch.inf)
        self.count = torch.zeros(self.limits.shape, dtype=torch.int64, device=device)
        self.distinct, self.unsigned = self.count.clone(), self.count.clone()
        self.passing = torch.zeros_like(self.droppable)
        self.error = torch.full((batch, k), torch.inf, dtype=torch.float64, device=device)
        self.feature = torch.full((batch, k), -1, dtype=torch.int64, device=device)
        self.best = self.error.clone()
        self.lengths = fit.codes_without_nonnegative.norm(dim=2)
        # Where a feature can go at every limit, the best replacement by a lower bound.
        self.free_error = self.error.clone()
        self.free_feature = self.feature.clone()

    def take(self, entering: Entering, swaps: Unsigned, uncounted: Tensor) -> None:
        """Take the swaps that bring in some rows, and count those ``uncounted [B, c]`` bool.

        Least squares decide the unsigned counts. With codes >= 0 the error is between
        ``without - slope^2 / distance`` and ``without - slope^2``.
        """
        fit, barred = self.fit, entering.barred
        for t in range(self.limits.shape[1]):
            within = swaps.error <= self.limits_unsigned[:, t, :, None]
            self.unsigned[:, t] += (within & uncounted[:, None, :]).flatten(1).sum(1)
        moment = entering.along(fit.target)
        slope = moment[:, None, :] - fit.codes_without_nonnegative @ entering.cross
        slope.clamp_(min=0)
        # What a row brings at least is its slope, at most the slope over the distance.
        most = fit.without_nonnegative[:, :, None] - slope.square()
        most = torch.where(slope > fit.floor[:, None, None], most, torch.inf)
        amount = slope / swaps.distance.clamp(min=CURVATURE)
        least = torch.addcmul(fit.without_nonnegative[:, :, None], amount, slope, value=-1)
        least = torch.where(amount > fit.floor[:, None, None], least, torch.inf)
        least += barred
        most += barred
        rows = AgainstPositive.of(fit, entering)
        # What the codes weigh of the ridge of their Gram matrix is in slopes, and in no error.
        size = self.lengths[:, :, None] + amount * entering.weight.norm(dim=1, keepdim=True)
        by_row, undecided = self._undecided(least - NNLS_RIDGE * size.square(), most)
        self._solve(entering, swaps, rows, _Open(undecided.nonzero(), moment, most, by_row))
        by_row *= uncounted[:, None, :]
        self.count += by_row.sum(2)
        self.distinct += self._distinct(by_row, rows)
        if bool(self.free.any()):
            self._replace_free(entering, least)

    def _distinct(self, by_row: Tensor, rows: AgainstPositive) -> Tensor:
        """Least number ``[B, T]`` of different codes among counts ``[B, T, c]`` of each row's."""
        fit, positive = self.fit, self.fit.positive
        mask, active = positive.mask[:, :, None], fit.supports.active[:, :, None]
        amount = rows.beside.clamp(min=0) / rows.apart.clamp(min=DEPENDENT)
        codes = torch.addcmul(positive.codes[:, :, None], amount[:, None, :], rows.inner, value=-1)
        wants = torch.addcmul(positive.slope[:, :, None], amount[:, None, :], rows.beyond, value=-1)
        stay = (codes > fit.floor[:, None, None]) & mask
        stay |= (wants <= fit.small[:, None, None]) & ~mask
        as_now = (stay | ~active).all(1) & (rows.apart > DEPENDENT) & positive.sound[:, None]
        repeats = ((~mask & active).sum(1) - 1).clamp(min=0)
        return least_different(by_row, repeats[:, None], as_now[:, None, :]).sum(2)

    def _solve(
        self, entering: Entering, swaps: Unsigned, rows: AgainstPositive, work: _Open
    ) -> None:
        """Find non-negative errors of undecided swaps, infinite where the row does not enter."""
        fit, cross = self.fit, entering.cross
        for first, last in spans(len(work.undecided), fit.supports.swaps_at_once):
            b, i, c = work.undecided[first:last].unbind(1)
            error, guess = _exchanges(fit, rows.pairs(b, c), b, i)
            hard = error.isnan().nonzero().squeeze(1)
            error[hard] = torch.inf
            b_, i_, c_ = b[hard], i[hard], c[hard]
            least, most = lower_bounds(fit, entering, swaps, (b_, i_, c_)), work.most[b_, i_, c_]
            between = least[:, None] <= self.limits[b_]
            between &= self.limits[b_] < most[:, None]
            hard = hard[between.any(1) | (least <= self._close()[b_, i_])]
            for first_hard, last_hard in spans(len(hard), fit.supports.systems_at_once):
                part = hard[first_hard:last_hard]
                token, place, column = b[part], i[part], c[part]
                moment = work.moment[token, column]
                system = fit.exchange(token, place, cross[token, :, column], moment)
                error[part] = _entered(fit, system, guess[part], token, place)
            self._count(work, (b, i, c), error)
            self._improve(b, i, error, entering.row(b, c))

    def _replace_free(self, entering: Entering, least: Tensor) -> None:
        """Note better replacements, by lower bounds ``[B, k, c]``, of features that can go."""
        b, i = self.free.nonzero().unbind(1)
        bound, at = least[b, i].min(1)
        better = bound < torch.minimum(self.free_error[b, i], self.fit.without_nonnegative[b, i])
        b, i = b[better], i[better]
        self.free_error[b, i] = bound[better]
        self.free_feature[b, i] = entering.row(b, at[better])

    def _undecided(self, least: Tensor, most: Tensor) -> tuple[Tensor, Tensor]:
        """Count the swaps that bounds decide; which of the rest need their exact error.

        Args:
            least: ``[B, k, columns]`` lower bounds on squared errors, infinite where the row
                does not enter.
            most: upper bounds, infinite where the row may not enter.

        Returns:
            Counts ``[B, T, columns]``, and bool ``[B, k, columns]``: where a limit lies between
            the bounds, or where the error may be the least of the removed feature's.
        """
        self.best = torch.minimum(self.best, most.amin(2))
        needed = least <= self._close()[:, :, None]
        counts = []
        for t in range(self.limits.shape[1]):
            limit = self.limits[:, t, None, None]
            sure = most <= limit
            counts.append(sure.sum(1))
            self.passing[:, t] |= sure.view(torch.uint8).amax(2).bool()
            needed |= (least <= limit) & ~sure
        return torch.stack(counts, 1), needed

    def _close(self) -> Tensor:
        """``[B, k]``: errors up to which a swap may be the best for its removed feature."""
        close = self.best + ROUNDING * self.fit.size[:, None]  # the bounds can meet, to rounding
        return torch.minimum(close, self.widest)

    def _count(self, work: _Open, index: tuple[Tensor, Tensor, Tensor], error: Tensor) -> None:
        """Take the non-negative errors of some swaps, but count none that bounds have counted."""
        b, i, c = index
        passed = (error[:, None] <= self.limits[b]) & (work.most[index][:, None] > self.limits[b])
        hit, which = passed.nonzero().unbind(1)
        one = torch.ones_like(which)
        work.by_row.index_put_((b[hit], which, c[hit]), one, accumulate=True)
        self.passing[b[hit], which, i[hit]] = True

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

    def result(self, screened: Screened) -> Swaps:
        """Settle the best replacements of features that can simply go, and add what estimates
        have counted."""
        fit = self.fit
        units = fit.supports.units
        b, i = (self.free & (self.free_feature >= 0)).nonzero().unbind(1)
        for start, stop in spans(len(b), fit.supports.systems_at_once):
            token, place = b[start:stop], i[start:stop]
            feature = self.free_feature[token, place]
            added = units.raw(feature) / units.norms[feature, None]
            cross = fit.supports.cosines(token, added)
            moment = (fit.target[token] * added).sum(1)
            beside = (fit.positive.residual[token] * added).sum(1)
            pairs = AgainstPositive.of_pairs(fit, token, cross, beside)
            error, guess = _exchanges(fit, pairs, token, place)
            hard = error.isnan().nonzero().squeeze(1)
            b_, i_ = token[hard], place[hard]
            system = fit.exchange(b_, i_, cross[hard], moment[hard])
            error[hard] = _entered(fit, system, guess[hard], b_, i_)
            self._improve(token, place, error, feature)
        # What was looked at for another reason depends on how far estimates were sure.
        beyond = (self.error > self.widest) & ~self.free
        self.error.masked_fill_(beyond, torch.inf)
        self.feature.masked_fill_(beyond, -1)
        return Swaps(
            self.count + screened.count.long(), self.distinct + screened.distinct.long(),
            self.unsigned + screened.unsigned.long(), self.passing | screened.passing,
            self.droppable, self.error, self.feature,
        )  # fmt: skip


class _Open(NamedTuple):
    """Swaps that bounds leave undecided, and what it takes to count them."""

    undecided: Tensor
    """``[m, 3]``: token, place and column."""
    moment: Tensor
    """``[B, c]``: inner products of targets and rows that enter."""
    most: Tensor
    """``[B, k, c]`` upper bounds on squared errors: a limit above has been counted."""
    by_row: Tensor
    """``[B, T, c]`` counts so far."""


def _exchanges(fit: Fit, rows: AgainstPositive, b: Tensor, i: Tensor) -> tuple[Tensor, Tensor]:
    """Squared errors ``[m]`` of exchanges that a few changes of the support's codes lead to.

    Returns:
        Them, infinite where the new feature's code is no more than the floor, NaN where a solver
        has to find it; and bool ``[m, k]``, a guess at which codes are positive.
    """
    column = Column(
        torch.where(fit.positive.mask[b], rows.inner, rows.beyond), rows.apart, rows.beside
    )
    codes, gain, known = exchanged(fit.tableau, b, i, column)
    new = codes.gather(1, i[:, None]).squeeze(1)
    error = torch.where(new > fit.floor[b], (fit.positive.error[b] + gain).clamp(min=0), torch.inf)
    return error.masked_fill(~known, torch.nan), codes > 0


def _entered(fit: Fit, system: Systems, guess: Tensor, token: Tensor, place: Tensor) -> Tensor:
    """Squared errors ``[m]`` of exchanges, infinite where the new feature's code is no more than
    the floor."""
    codes = system.solve(guess)
    new = codes[torch.arange(len(token), device=token.device), place]
    return torch.where(new > fit.floor[token], system.error(codes), torch.inf)
