"""Which of a token's alternative codes are worth pricing, and what they cost.

There are k (F - k) one-swap supports a token. All are ranked by an estimate (the codes that remain
when i leaves, plus the entering code alone, each at its price); those that come first are solved
exactly and priced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.codelength import Prices
from saeaudit.core.codes.fits import Fit, Systems
from saeaudit.core.codes.tolerances import CURVATURE, DEPENDENT, TOLERANCE
from saeaudit.core.rows import spans

TABLE = 48
"""Bins of the table of value prices that estimates are read from; the last is for all beyond."""
OTHER_SHARE = 4
"""Candidates by description length for each one by another measure."""
MEASURES = ("bits", "l1", "l2")
"""What codes are compared by: description length, sum, and sum of squares of unit-row codes."""


class Candidates(NamedTuple):
    """Alternative codes, one row each."""

    token: Tensor
    """``[m]`` int64: place in the batch, ascending."""
    place: Tensor
    """``[m]`` int64: which feature of the support leaves."""
    row: Tensor
    """``[m]`` int64: row number that enters; -1 where none does."""
    rows: Tensor
    """``[m, k]`` int64 row numbers, -1 at empty places."""
    codes: Tensor
    """``[m, k]`` float64 non-negative least-squares codes in unit rows."""
    error: Tensor
    """``[m]`` squared errors."""

    def only(self, keep: Tensor) -> Candidates:
        """Those that a bool ``[m]`` or an index names."""
        return Candidates(*(column[keep] for column in self))

    @staticmethod
    def joined(parts: Sequence[Candidates], fit: Fit) -> Candidates:
        """The candidates of all parts, which may be none, in their order."""
        rows = fit.supports.rows
        place = rows.new_empty(0)
        places = rows.new_empty(0, rows.shape[1])
        empty = Candidates(
            place, place, place, places, places.to(torch.float64), place.to(torch.float64)
        )
        return Candidates(*(torch.cat(columns) for columns in zip(empty, *parts, strict=True)))


class Ranking:
    """Estimates, from one set of prices.

    Example: ``Ranking(prices).rank(fit, limit, enter, 64)`` names the places and rows of the 64
    swaps a token that promise the shortest codes, and of 16 by each of the other measures.
    """

    def __init__(self, prices: Prices) -> None:
        self.prices = prices
        self.table = prices.table(TABLE)
        self.gate = torch.where(prices.observed, prices.gate, torch.inf)

    def rank(self, fit: Fit, limit: Tensor, enter: Tensor, most: int) -> tuple[Tensor, Tensor]:
        """The swaps that could pass and whose estimates are least, by each of `MEASURES`.

        Args:
            fit: targets on their supports.
            limit: ``[B]`` largest squared errors.
            enter: ``[n]`` bool: rows that may enter.
            most: how many to keep by description length; a quarter of that by each of the others.

        Returns:
            Places ``[B, c]`` and rows ``[B, c]``, -1 where there are no more; some come twice.
        """
        supports = fit.supports
        units, (batch, k) = supports.units, supports.rows.shape
        device = supports.rows.device
        limit = limit + TOLERANCE * fit.size
        base = self._remaining(fit)
        others = max(1, most // OTHER_SHARE)
        sizes = (most, others, others)
        best: list[tuple[Tensor, Tensor]] = [
            (torch.empty(batch, 0, dtype=torch.float64, device=device),
             torch.empty(batch, 0, dtype=torch.int64, device=device))
            for _ in sizes
        ]  # fmt: skip
        columns = units.budget.swap_columns(batch * k, device)
        grid = self.prices.grid
        for start, stop in spans(units.count if k else 0, columns):
            index = torch.arange(start, stop, device=device)
            added = units.raw(index) / units.norms[start:stop, None]
            cross = supports.vectors.view(-1, units.width) @ added.T
            cross = cross.view(batch, k, stop - start)
            weight = supports.inverse @ cross
            distance = (1 - (cross * weight).sum(1)).clamp_(min=0)[:, None, :]
            distance = distance + weight.square() / fit.diagonal[:, :, None]
            slope = (fit.target @ added.T)[:, None, :] - fit.codes_without_nonnegative @ cross
            gain = slope.square() / distance.clamp(min=CURVATURE)
            least = fit.without_nonnegative[:, :, None] - gain
            out = (least > limit[:, None, None]) | (slope <= fit.small[:, None, None])
            out |= (distance < DEPENDENT) | ~enter[start:stop]
            token, place = ((supports.rows >= start) & (supports.rows < stop)).nonzero().unbind(1)
            out[token, :, supports.rows[token, place] - start] = True
            amount = slope / distance.clamp(min=DEPENDENT)
            amount = torch.maximum(amount, grid.anchor[start:stop])
            bins = ((amount - grid.anchor[start:stop]) / grid.width).clamp(0, TABLE - 1).long()
            value = self.table[start:stop].T.gather(0, bins.view(-1, stop - start)).view_as(amount)
            costs = (self.gate[start:stop] + value, amount, amount.square())
            flat = torch.arange(k, device=device)[:, None] * units.count + index
            for n, cost in enumerate(costs):
                score = (base[n][:, :, None] + cost).masked_fill_(out, torch.inf).view(batch, -1)
                score, at = score.topk(min(sizes[n], score.shape[1]), dim=1, largest=False)
                score = torch.cat([best[n][0], score], 1)
                swap = torch.cat([best[n][1], flat.reshape(-1)[at]], 1)
                score, at = score.topk(min(sizes[n], score.shape[1]), dim=1, largest=False)
                best[n] = score, swap.gather(1, at)
        swaps = torch.cat([torch.where(score.isfinite(), swap, -1) for score, swap in best], 1)
        return (
            torch.where(swaps < 0, -1, swaps // units.count),
            torch.where(swaps < 0, -1, swaps % units.count),
        )

    def _remaining(self, fit: Fit) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, k]`` by each measure: what the codes that remain without a feature cost."""
        codes = fit.codes_without_nonnegative
        rows = fit.supports.rows.clamp(min=0)[:, None, :].expand_as(codes)
        active = codes > 0
        codes = torch.where(active, torch.maximum(codes, self.prices.grid.anchor[rows]), 0.0)
        bits = torch.zeros_like(codes)
        index = rows[active]
        bits[active] = self.gate[index] + self.prices.value(index, codes[active])
        return bits.sum(2), codes.sum(2), codes.square().sum(2)


def solve(fit: Fit, place: Tensor, row: Tensor, limit: Tensor, floor: Tensor) -> Candidates:
    """Non-negative least squares of swaps; those within the limit whose new feature is used.

    Args:
        fit: targets on their supports.
        place: ``[B, c]`` places to leave, -1 for none.
        row: ``[B, c]`` rows to enter.
        limit: ``[B]`` largest squared errors.
        floor: ``[n]`` least value of each row that an encoder outputs: codes below are raised to
            it where the error then stays within the limit.
    """
    supports = fit.supports
    units = supports.units
    count = units.count
    token = torch.arange(len(place), device=place.device)[:, None].expand_as(place)
    named = place >= 0
    k = max(supports.rows.shape[1], 1)
    key = torch.unique((token * k + place)[named] * count + row[named])  # each once, by token
    row, place, token = key % count, key // count % k, key // count // k
    limit = limit + TOLERANCE * fit.size
    parts = []
    for start, stop in spans(len(token), supports.systems_at_once):
        b, i, j = token[start:stop], place[start:stop], row[start:stop]
        added = units.raw(j) / units.norms[j, None]
        cross = supports.cosines(b, added)
        moment = (fit.target[b] * added).sum(1)
        at = torch.arange(len(b), device=b.device)
        guess = fit.codes_without_nonnegative[b, i] > 0
        guess[at, i] = True
        system = fit.exchange(b, i, cross, moment)
        codes = system.solve(guess)
        rows = supports.rows[b].clone()
        rows[at, i] = j
        solved = Candidates(b, i, j, rows, codes, system.error(codes))
        solved = _raised(system, solved, limit[b], floor)
        parts.append(solved.only((solved.error <= limit[b]) & (solved.codes[at, i] > 0)))
    return Candidates.joined(parts, fit)


def _raised(system: Systems, solved: Candidates, limit: Tensor, floor: Tensor) -> Candidates:
    """The same with codes raised to their floors where the error stays within ``limit [m]``."""
    codes, least = solved.codes, floor[solved.rows.clamp(min=0)]
    higher = torch.where(codes > 0, torch.maximum(codes, least), 0.0)
    error = system.error(higher)
    within = error <= limit
    return solved._replace(
        codes=torch.where(within[:, None], higher, codes),
        error=torch.where(within, error, solved.error),
    )


def removals(fit: Fit, limit: Tensor, floor: Tensor) -> Candidates:
    """Codes with one feature less, and the refitted code itself, that stay within the limit."""
    supports = fit.supports
    limit = limit + TOLERANCE * fit.size
    b, i = ((fit.without_nonnegative <= limit[:, None]) & supports.active).nonzero().unbind(1)
    fewer = Candidates(
        b, i, torch.full_like(b, -1), supports.rows[b], fit.codes_without_nonnegative[b, i],
        fit.without_nonnegative[b, i],
    )  # fmt: skip
    refit = fit.positive
    b = (refit.error <= limit).nonzero().squeeze(1)
    nowhere = torch.full_like(b, -1)
    same = Candidates(b, nowhere, nowhere, supports.rows[b], refit.codes[b], refit.error[b])
    both = Candidates.joined([fewer, same], fit)
    both = both.only(torch.argsort(both.token, stable=True))
    parts = []
    for start, stop in spans(len(both.token), supports.systems_at_once):
        solved = both.only(torch.arange(start, stop, device=limit.device))
        token = solved.token
        parts.append(_raised(fit.system(token), solved, limit[token], floor))
    return Candidates.joined(parts, fit)


def measures(prices: Prices, rows: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes ``[m, k]`` in unit rows by `MEASURES`, each ``[m]``.

    Bits are infinite where a feature was never observed.
    """
    active = codes > 0
    unknown = (active & ~prices.observed[rows.clamp(min=0)]).any(1)
    bits = prices.codes(rows, codes).masked_fill(unknown, torch.inf)
    return bits, codes.sum(1), codes.square().sum(1)
