"""Swaps that leave no feature at zero: codes of exactly as many features as the support.

Least-squares codes that are all positive are the non-negative ones too, so none needs a solve.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.algebra import (
    Entering,
    Index,
    Unsigned,
    every_row,
    least_squares,
    swapped_codes,
)
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import DEPENDENT, TOLERANCE
from saeaudit.core.rows import spans


class FullSwaps(NamedTuple):
    """Swaps within a limit whose codes are all above the floor, one each."""

    token: Tensor
    """``[m]`` int64: place in the batch."""
    place: Tensor
    """``[m]`` int64: which feature of the support leaves."""
    row: Tensor
    """``[m]`` int64: row number that enters."""
    error: Tensor
    """``[m]`` squared errors."""


def full_swaps(fit: Fit, limit: Tensor, enter: Tensor) -> FullSwaps:
    """List the swaps that leave no feature of the new support at zero.

    Codes of least squares that are all positive are the non-negative ones too: no solve is needed.

    Args:
        fit: targets on their supports.
        limit: ``[B]`` largest squared errors, as in `one_swaps`.
        enter: ``[n]`` bool: rows that may enter.
    """
    none = torch.empty(0, dtype=torch.int64, device=limit.device)
    parts = [FullSwaps(none, none, none, limit[:0])]
    within = (limit + TOLERANCE * fit.size)[:, None, None]
    empty = ~fit.supports.active
    for entering in every_row(fit, enter):
        swaps = least_squares(fit, entering)
        passing = (swaps.error <= within) & (swaps.distance >= DEPENDENT) & ~empty[:, :, None]
        b, i, c = passing.nonzero().unbind(1)
        for start, stop in spans(len(b), fit.supports.swaps_at_once):
            index = b[start:stop], i[start:stop], c[start:stop]
            codes = swapped_codes(fit, entering, swaps, index)
            full = ((codes > fit.floor[index[0], None]) | empty[index[0]]).all(1)
            token, place, column = (numbers[full] for numbers in index)
            error = swaps.error[token, place, column]
            parts.append(FullSwaps(token, place, entering.row(token, column), error))
    return FullSwaps(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def changes(fit: Fit, token: Tensor, codes: Tensor, rows: Tensor) -> Tensor:
    """By how much other codes differ from the non-negative codes of each support.

    Args:
        fit: targets on their supports.
        token: ``[m]`` int64: whose codes they are.
        codes: ``[m, k]`` unit-row codes.
        rows: ``[m, k]`` int64: what they are of; a row that is not the support's at its place is
            none of the support's.

    Returns:
        ``[m]`` sums of absolute differences over the sum of the support's codes; NaN where that
        is zero.
    """
    before = fit.positive.codes[token]
    kept = rows == fit.supports.rows[token]
    change = torch.where(kept, (codes - before).abs(), codes + before).sum(1)
    total = before.sum(1)
    return torch.where(total > 0, change / total, torch.nan)


class Farthest:
    """The full swaps whose codes differ most from the support's own, and what encoders can give.

    The change of a code is the sum of absolute differences from the non-negative codes of the
    support, over their sum. With z the codes of the support, h row i of the inverse Gram matrix
    over its entry i, P the weights of the new row and w its code, the codes of the others change by

        -(z_i - w P_i) h_s - w P_s

    of which the triangle inequality bounds the sum of absolute values, and so does the root of the
    sum of squares times that of their number. Most swaps cannot be the farthest by these.
    """

    def __init__(self, fit: Fit, limits: Tensor, thresholds: Tensor | None) -> None:
        """Begin with none.

        Args:
            fit: targets on their supports.
            limits: ``[B, T]`` largest squared errors, as in `one_swaps`.
            thresholds: ``[n]`` codes of each row that an encoder's are above; None where it has
                no thresholds.
        """
        self.fit = fit
        """Targets on their supports."""
        self.thresholds = thresholds
        """``[n]`` codes that an encoder's are above; None where it has no thresholds."""
        self._limits = limits + TOLERANCE * fit.size[:, None]
        self.change = torch.full_like(limits, -1.0)
        """``[B, T]``: the largest change within each limit; -1 where there is no full swap."""
        self.place = torch.full_like(limits, -1, dtype=torch.int64)
        """``[B, T]`` int64: which feature of the support leaves then."""
        self.row = self.place.clone()
        """``[B, T]`` int64: the row that enters then."""
        self.attainable = torch.zeros_like(limits, dtype=torch.bool)
        """``[B, T]`` bool: whether some full swap has all codes above their thresholds."""
        refit, active = fit.positive.codes, fit.supports.active
        self.total = refit.sum(1)
        """``[B]``: sums of the supports' codes."""
        drift = (fit.codes - refit).abs().sum(1, keepdim=True)
        self.leaves = refit + drift
        """``[B, k]``: no change is further from a bound on that of least squares than this."""
        share = fit.supports.inverse / fit.diagonal[:, :, None]
        self.share = share - torch.diag_embed(share.diagonal(dim1=1, dim2=2))
        """``[B, k, k]``: by how much codes fall for each unit of one that leaves (middle axis)."""
        self.others = (active.sum(1) - 1).clamp(min=0)
        """``[B]``: features beside the one that leaves."""
        rows = fit.supports.rows.clamp(min=0)
        floor = fit.floor[:, None].expand_as(refit)
        self._weakest = self._lowest(floor)
        if thresholds is not None:
            self.weakest_above = self._lowest(thresholds[rows])

    def _lowest(self, least: Tensor) -> tuple[Tensor, Tensor]:
        """Place ``[B]`` of the code that is least over ``least [B, k]``, and that least code."""
        active = self.fit.supports.active
        if not active.shape[1]:
            return self.place.new_zeros(len(active)), least.new_zeros(len(active))
        place = torch.where(active, self.fit.codes - least, torch.inf).argmin(1)
        return place, least.gather(1, place[:, None]).squeeze(1)

    def take(self, entering: Entering, swaps: Unsigned) -> None:
        """Take the swaps that bring in some rows."""
        fit = self.fit
        reach = self._limits.amax(1)[:, None]
        if not bool((swaps.error.amin(2) <= reach).any()):
            return
        amount = swaps.along / swaps.distance.clamp(min=DEPENDENT)
        able = (swaps.distance >= DEPENDENT) & (amount > fit.floor[:, None, None])
        able &= (swaps.error <= reach[:, :, None]) & fit.supports.active[:, :, None]
        bound = torch.where(able, self._bounds(entering, amount), -1.0)
        self._measure(entering, swaps, self._promising(swaps, bound))
        wanted = self._open(swaps, bound[:, None] > self.change[:, :, None, None])
        index = self._kept(entering, swaps, wanted.nonzero(), self._weakest)
        self._measure(entering, swaps, index)
        if self.thresholds is None:
            return
        tall = able & (amount > self.thresholds[entering.rows][:, None, :])
        wanted = self._open(swaps, tall[:, None] & ~self.attainable[:, :, None, None])
        index = self._kept(entering, swaps, wanted.nonzero(), self.weakest_above)
        self._measure(entering, swaps, index)

    def _bounds(self, entering: Entering, amount: Tensor) -> Tensor:
        """Upper bounds ``[B, k, c]`` on changes, for codes ``amount`` of the rows that enter."""
        weight, share = entering.weight, self.share
        stays = torch.addcmul(self.fit.codes[:, :, None], amount, weight, value=-1)
        magnitude, square = weight.abs(), weight.square()
        sums = (magnitude.sum(1, keepdim=True) - magnitude) * amount
        sums += stays.abs() * share.abs().sum(2)[:, :, None]
        squares = (square.sum(1, keepdim=True) - square).mul_(amount).mul_(amount)
        squares += stays * amount * (2 * share @ weight)
        squares += stays.square_() * share.square().sum(2)[:, :, None]
        roots = squares.clamp_(min=0).mul_(self.others[:, None, None]).sqrt_()
        bound = torch.minimum(sums, roots).add_(amount).add_(self.leaves[:, :, None])
        return bound.div_(self.total[:, None, None])

    def _open(self, swaps: Unsigned, wanted: Tensor) -> Tensor:
        """Bool ``[B, k, c]``: wanted (``[B, T, k, c]``) at a limit that the swap is within."""
        out = torch.zeros_like(swaps.error, dtype=torch.bool)
        for t in range(self._limits.shape[1]):
            out |= wanted[:, t] & (swaps.error <= self._limits[:, t, None, None])
        return out

    def _promising(self, swaps: Unsigned, bound: Tensor) -> Index:
        """The swap of largest bound for each token and limit, whose bounds become -1.

        Measured before all others, these leave few of them to be measured.
        """
        batch, _, columns = bound.shape
        best = []
        for t in range(self._limits.shape[1]):
            within = swaps.error <= self._limits[:, t, None, None]
            highest, at = torch.where(within, bound, -1.0).view(batch, -1).max(1)
            token = (highest > self.change[:, t]).nonzero().squeeze(1)
            best.append(torch.stack([token, at[token] // columns, at[token] % columns], 1))
        b, i, c = torch.unique(torch.cat(best), dim=0).unbind(1)
        bound[b, i, c] = -1.0
        return b, i, c

    def _kept(
        self, entering: Entering, swaps: Unsigned, index: Tensor, weakest: tuple[Tensor, Tensor]
    ) -> Index:
        """Of some swaps ``[m, 3]`` those that leave the weakest code above its least, or remove
        it: one code is quicker to know than all."""
        b, i, c = index.unbind(1)
        place, least = (of_token[b] for of_token in weakest)
        share = self.share[b, i, place]
        amount = swaps.along[b, i, c] / swaps.distance[b, i, c]
        stays = self.fit.codes[b, i] - amount * entering.weight[b, i, c]
        codes = self.fit.codes[b, place] - stays * share - amount * entering.weight[b, place, c]
        kept = (codes > least) | (i == place)
        return b[kept], i[kept], c[kept]

    def _measure(self, entering: Entering, swaps: Unsigned, index: Index) -> None:
        """Compare the codes of some swaps with the support's own."""
        for start, stop in spans(len(index[0]), self.fit.supports.swaps_at_once):
            b, i, c = (numbers[start:stop] for numbers in index)
            self._compare(entering, swaps, (b, i, c))

    def _compare(self, entering: Entering, swaps: Unsigned, index: Index) -> None:
        fit = self.fit
        codes = swapped_codes(fit, entering, swaps, index)
        full = ((codes > fit.floor[index[0], None]) | ~fit.supports.active[index[0]]).all(1)
        b, i, c = (numbers[full] for numbers in index)
        codes, before = codes[full], fit.positive.codes[b]
        every = torch.arange(len(b), device=b.device)
        new, old = codes[every, i], before[every, i]
        change = (codes - before).abs().sum(1) - (new - old).abs() + new + old
        change /= self.total[b]
        row = entering.row(b, c)
        error = swaps.error[b, i, c]
        attains = self._attains(codes, b, i, row)
        for t in range(self._limits.shape[1]):
            within = error <= self._limits[b, t]
            self.attainable[b[within & attains], t] = True
            self._improve(t, b[within], i[within], row[within], change[within])

    def _attains(self, codes: Tensor, b: Tensor, i: Tensor, row: Tensor) -> Tensor:
        """Bool ``[m]``: codes ``[m, k]`` are all above their thresholds."""
        if self.thresholds is None:
            return torch.zeros_like(b, dtype=torch.bool)
        rows = self.fit.supports.rows[b]
        rows[torch.arange(len(b), device=b.device), i] = row
        return ((codes > self.thresholds[rows.clamp(min=0)]) | (rows < 0)).all(1)

    def _improve(self, t: int, b: Tensor, i: Tensor, row: Tensor, change: Tensor) -> None:
        """Keep the largest change; of equal ones the first by place, then row."""
        before = self.change[:, t]
        most = before.clone().scatter_reduce_(0, b, change, "amax")
        won = (change == most[b]) & (change > before[b])
        count = self.fit.supports.units.count
        first = torch.full_like(self.place[:, t], torch.iinfo(torch.int64).max)
        first.scatter_reduce_(0, b[won], i[won] * count + row[won], "amin")
        self.place[b[won], t] = first[b[won]] // count
        self.row[b[won], t] = first[b[won]] % count
        self.change[:, t] = most
