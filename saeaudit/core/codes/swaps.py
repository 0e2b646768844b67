"""All codes one swap away from a given one, in closed form.

For a support S of k unit rows with Gram matrix G, P = G^-1 U_S U^T (from a QR decomposition of
the rows, not from G) and r the residual of the least-squares codes z of a target t, removing i and
adding j leaves

    error(i, j) = |r|^2 + z_i^2 / g_i - (u_j.r + z_i P_ij / g_i)^2 / (q_j + P_ij^2 / g_i)

with g_i = (G^-1)_ii and q_j = 1 - sum_s G_sj P_sj, the squared distance of u_j from the span of S
(block inverse of the Gram matrix). The codes of the new support follow the same way, so that no
swap needs a solve; only those whose least-squares codes have a negative entry, and whose lower
bound on the non-negative error still passes, go through `saeaudit.core.codes.nnls`.

All k (F - k) swaps of a token cost one k x F product over d and one k x F product over k.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from saeaudit.core.codes.fits import DELICATE, Fit
from saeaudit.core.rows import spans

DEPENDENT = 1e-9
"""A row closer than this (squared) to the span of others brings no direction of its own."""
TOLERANCE = 1e-10
"""A squared error passes a limit that it exceeds by no more than this share of |target|^2."""


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
    alone: Tensor | None = None
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
    batch, k = supports.rows.shape
    device = supports.rows.device
    works = [_Work(fit, limit, enter, listing) for fit, limit in zip(fits, limits, strict=True)]
    columns = supports.units.budget.swap_columns(batch * k, device)
    basis = supports.basis.reshape(batch * k, supports.units.width)
    for start, stop in spans(supports.units.count if k else 0, columns):
        index = torch.arange(start, stop, device=device)
        added = supports.units.raw(index) / supports.units.norms[start:stop, None]
        inside = (basis @ added.T).view(batch, k, stop - start)
        cross = supports.upper.mT @ inside
        weight = supports.upper_inverse @ inside
        apart = (1 - inside.square().sum(1)).clamp_(min=0)
        allowed = enter[start:stop].expand(batch, -1).clone()
        token, place = ((supports.rows >= start) & (supports.rows < stop)).nonzero().unbind(1)
        allowed[token, supports.rows[token, place] - start] = False
        for work in works:
            work.block(start, added, inside, cross, weight, apart, allowed)
    return [work.result() for work in works]


class _Work:
    """Running counts and minima of one target."""

    def __init__(self, fit: Fit, limits: Tensor, enter: Tensor, listing: bool) -> None:
        self.fit = fit
        self.listed: list[Tensor] | None = [] if listing else None
        supports = fit.supports
        batch, k = supports.rows.shape
        device = supports.rows.device
        active = supports.active
        self.limits = limits + TOLERANCE * fit.size[:, None]
        alone = fit.without_nonnegative[:, None, :] <= self.limits[:, :, None]
        self.alone = alone & active[:, None, :]
        self.alone_unsigned = (fit.without[:, None, :] <= self.limits[:, :, None]) & active[
            :, None, :
        ]
        # The widest limit at which a feature cannot simply go: beyond it swaps need no look.
        open_limits = torch.where(self.alone, float("-inf"), self.limits[:, :, None])
        self.widest = open_limits.amax(1).masked_fill(~active, float("-inf"))
        taken = enter[supports.rows.clamp(min=0)] & active
        entering = enter.sum() - taken.sum(1)
        never = torch.where(self.alone_unsigned | ~active[:, None, :], -torch.inf, 0.0)
        self.limits_unsigned = self.limits[:, :, None] + never
        self.any_limit = torch.maximum(self.limits_unsigned.amax(1), self.widest)
        self.small = fit.small
        self.count = self.alone.sum(2) * entering[:, None]
        self.unsigned = self.alone_unsigned.sum(2) * entering[:, None]
        self.passing = self.alone & (entering > 0)[:, None, None]
        self.error = torch.full((batch, k), float("inf"), dtype=torch.float64, device=device)
        self.feature = torch.full((batch, k), -1, dtype=torch.int64, device=device)
        self.best = self.error.clone()
        # Where a feature can go at every limit, the best replacement by least squares.
        self.free = active & torch.isneginf(self.widest)
        self.any_free = self.free.any()
        self.free_error = self.error.clone()
        self.free_feature = self.feature.clone()

    def block(
        self, start: int, added: Tensor, inside: Tensor, cross: Tensor, weight: Tensor,
        apart: Tensor, allowed: Tensor,
    ) -> None:  # fmt: skip
        """Take the swaps that bring in rows ``start:``.

        Least squares decide the unsigned counts. With codes >= 0, the error as a function of the
        new row's code has the slope -2 `slope` at zero and at least the curvature 2 `distance`, so
        it is at least ``without - slope^2 / distance``: a row with no slope stays out.
        """
        fit = self.fit
        scaled = weight / fit.own[:, :, None]
        distance = torch.addcmul(apart[:, None, :], scaled, weight)
        along = torch.addcmul((fit.residual @ added.T)[:, None, :], scaled, fit.codes[:, :, None])
        # What brings no direction of its own gains nothing. (One pass each: on a CPU these are
        # several times as fast as filling by a mask.)
        gain = along.square().div_(torch.nn.functional.threshold(distance, DEPENDENT, torch.inf))
        unsigned = torch.sub(fit.without[:, :, None], gain, out=gain)
        barred = torch.where(allowed, 0.0, torch.inf)[:, None, :]
        unsigned += barred
        dependent = (distance + barred).amin() < DEPENDENT
        # Codes >= 0 fit no better than least squares do: often nothing here is within a limit.
        near = (unsigned.amin(2) <= self.any_limit).any()
        if not bool(near | self.any_free | dependent):
            return
        for t in range(self.limits.shape[1]):
            within = unsigned <= self.limits_unsigned[:, t, :, None]
            self.unsigned[:, t] += within.flatten(1).sum(1)
        moment = fit.target @ added.T
        slope = (moment[:, None, :] - fit.codes_without_nonnegative @ cross).clamp_(min=0)
        bound = slope.square().div_(distance.clamp(min=1e-14)).neg_()
        bound += fit.without_nonnegative[:, :, None]
        # At most: the new row alone makes up for what it can.
        most = fit.without_nonnegative[:, :, None] - slope.square()
        bound += barred
        most += barred
        found = self._undecided(bound, most).nonzero()
        held = fit.positive
        inner = held.inverse @ cross
        beyond = cross - fit.supports.gram @ inner
        apart = 1 - (cross * inner).sum(1)
        beside = held.residual @ added.T
        solved = fit.supports.units.budget.solved_cells // max(1, weight.shape[1])
        for first, last in spans(len(found), max(1, solved)):
            b, i, c = found[first:last].unbind(1)
            error, codes = self._grown(
                b, i, inner[b, :, c], beyond[b, :, c], apart[b, c], beside[b, c]
            )
            open_ = error.isnan().nonzero().squeeze(1)
            error[open_] = torch.inf
            least = self._least(
                b[open_], i[open_], unsigned[b, i, c][open_], along[b, i, c][open_],
                distance[b, i, c][open_], weight[b, :, c][open_],
            )  # fmt: skip
            hard = open_[least <= self.widest[b[open_], i[open_]]]
            for low, high in spans(len(hard), fit.supports.systems_at_once):
                some = hard[low:high]
                token, place, one = b[some], i[some], c[some]
                _, error[some] = fit.swapped(
                    token, place, cross[token, :, one], moment[token, one], codes[some] > 0
                )
            self._count(b, i, c + start, error, most[b, i, c])
        if bool(self.free.any()):
            b, i = self.free.nonzero().unbind(1)
            least, at = bound[b, i].min(1)
            better = least < torch.minimum(self.free_error[b, i], fit.without_nonnegative[b, i])
            b, i = b[better], i[better]
            self.free_error[b, i] = least[better]
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
        close = best + 1e-12 * self.fit.size[:, None]  # the bounds can meet, to rounding
        needed = least <= torch.minimum(close, self.widest)[:, :, None]
        for t in range(self.limits.shape[1]):
            limit = torch.where(self.alone[:, t], -torch.inf, self.limits[:, t, None])[:, :, None]
            sure = most <= limit
            self.count[:, t] += sure.flatten(1).sum(1)
            self.passing[:, t] |= sure.view(torch.uint8).amax(2).bool()
            needed |= (least <= limit) & ~sure
        return needed

    def _count(self, b: Tensor, i: Tensor, row: Tensor, error: Tensor, most: Tensor) -> None:
        """Take the non-negative errors of some swaps, but count none that bounds have counted."""
        passed = (error[:, None] <= self.limits[b]) & ~self.alone[b, :, i]
        if self.listed is None:
            passed &= most[:, None] > self.limits[b]
        self.count.index_add_(0, b, passed.long())
        hit, which = passed.nonzero().unbind(1)
        self.passing[b[hit], which, i[hit]] = True
        if self.listed is not None:
            self.listed.append(torch.stack([b[hit], which, i[hit], row[hit]], 1))
        self._improve(b, i, error, row)

    def _grown(
        self, b: Tensor, i: Tensor, inner: Tensor, beyond: Tensor, apart: Tensor, beside: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Exchange i for a new row among the features that are positive in the support's codes.

        That is the answer if all codes stay positive and no other feature of the support wants in
        (the Karush-Kuhn-Tucker conditions). All in closed form: with P = `inner` the weights of
        the new row, g its own entry of the inverse Gram matrix and y the codes, removing i adds
        P_i^2 / g_i to the squared distance, y_i P_i / g_i to the slope.

        Args:
            b, i: ``[m]`` token and place.
            inner: ``[m, k]``, P.
            beyond: ``[m, k]``: inner products of the support's rows with what P leaves of the row.
            apart: ``[m]``: squared norm of that.
            beside: ``[m]``: inner product of the row with the residual.

        Returns:
            Squared errors ``[m]``, NaN where it is not the answer, and codes ``[m, k]``.
        """
        held = self.fit.positive
        at = torch.arange(len(b), device=b.device)
        own, of_i = held.own[b, i], inner[at, i]
        step = of_i / own
        ratio = held.codes[b, i] / own
        distance = apart + of_i * step
        amount = (beside + held.codes[b, i] * step) / distance
        share = held.inverse[b, i]
        codes = held.codes[b] - ratio[:, None] * share
        codes -= amount[:, None] * (inner - step[:, None] * share)
        shadow = held.shadow[b, i]
        wants = held.slope[b] + ratio[:, None] * shadow
        wants -= amount[:, None] * (beyond + step[:, None] * shadow)
        mask, small = held.mask[b], self.small[b][:, None]
        mask[at, i] = False
        empty = ~self.fit.supports.active[b]
        empty[at, i] = True
        error = held.error[b] + held.codes[b, i] * ratio - amount.square() * distance
        sound = (distance > DEPENDENT) & held.sound[b]

        def answers() -> Tensor:
            inside = ((codes >= -small) | ~mask).all(1)
            return inside & ((wants <= small) | mask | empty).all(1) & sound & (amount > 0)

        first = answers()
        out = torch.where(first, error, torch.nan)
        # Otherwise without the code that its sign costs most, by the same inverse of a Gram matrix.
        enters = inner - step[:, None] * share
        spread = torch.where(mask, held.own[b], 0.0) - share.square() / own[:, None]
        spread += enters.square() / distance[:, None]
        cost = torch.where(mask & (codes < 0), codes.square() / spread.clamp(min=1e-30), -1.0)
        cost, worst = cost.max(1)
        pull = codes[at, worst] / spread[at, worst]
        column = held.inverse[b, :, worst] - share * (share[at, worst] / own)[:, None]
        new = enters[at, worst] / distance
        column += enters * new[:, None]
        codes -= column * pull[:, None]
        amount = amount + new * pull
        lift = held.shadow[b, worst] - shadow * (share[at, worst] / own)[:, None]
        lift -= (beyond + step[:, None] * shadow) * new[:, None]
        wants += lift * pull[:, None]
        mask[at, worst] &= cost < 0
        codes[at, worst] *= cost < 0
        second = answers() & ~first & (cost >= 0) & (spread[at, worst] <= DELICATE)
        out = torch.where(second, error + cost, out)
        codes[at, i] = amount
        return out.clamp(min=0), codes

    def _least(
        self, b: Tensor, i: Tensor, error: Tensor, along: Tensor, distance: Tensor, weight: Tensor
    ) -> Tensor:
        """Lower bound ``[m]`` on squared errors with codes >= 0.

        Least squares on the new support, and what the sign of one code costs at least: its square
        over its entry of the new inverse Gram matrix, which is the old one less a row and column,
        plus enters enters' / distance.
        """
        fit, at = self.fit, torch.arange(len(b), device=b.device)
        inverse = fit.supports.inverse
        share = inverse[b, i] / fit.own[b, i][:, None]
        enters = weight - weight[at, i][:, None] * share
        enters[at, i] = -1.0
        codes = fit.codes[b] - fit.codes[b, i][:, None] * share
        codes -= (along / distance)[:, None] * enters
        spread = fit.own[b] - inverse[b, i] * share + enters.square() / distance[:, None]
        cost = torch.where(codes < 0, codes.square() / spread.clamp(min=1e-30), 0.0).amax(1)
        rough = (distance < DEPENDENT) | (fit.own[b, i] > DELICATE)
        return error + cost.masked_fill(rough, 0.0) * (1 - 1e-9)

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
            guess = fit.codes_without_nonnegative[token, place] > 0
            _, error = fit.swapped(token, place, cross, moment, guess)
            self._improve(token, place, error, feature)
        listed = None
        if self.listed is not None:
            none = self.feature.new_empty(0, 4)
            listed = torch.cat([none, *self.listed])
        return Swaps(
            self.count, self.unsigned, self.passing, self.error, self.feature, listed, self.alone
        )
