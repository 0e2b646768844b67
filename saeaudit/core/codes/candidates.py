"""Codes that stand beside a token's reference code, one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from saeaudit.core.codes.cheapest import Cheapest
from saeaudit.core.codes.codelength import Prices
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.swaps import Swaps

MEASURES = ("bits", "l1", "l2")
"""What codes are compared by: description length, sum, and sum of squares of unit-row codes."""


class Candidates(NamedTuple):
    """Codes other than the reference."""

    token: Tensor
    """``[m]`` int64: place in the batch, ascending."""
    row: Tensor
    """``[m]`` int64: a row that is on and not in the reference; -1 where there is none."""
    rows: Tensor
    """``[m, c]`` int64 row numbers, -1 at empty places."""
    codes: Tensor
    """``[m, c]`` float64 unit-row codes, 0 where a feature is off."""
    error: Tensor
    """``[m]`` squared errors; infinite where one is only known to be within the limit."""
    priced: Tensor
    """``[m]`` bool: whether it is compared by description length."""

    @staticmethod
    def joined(parts: Sequence[Candidates]) -> Candidates:
        """The candidates of all parts, of which there is one or more, by token."""
        both = Candidates(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
        order = both.token.argsort(stable=True)
        return Candidates(*(column[order] for column in both))


def cheapest_codes(search: Cheapest, most: int, *, priced: bool) -> Candidates:
    """The codes that a search came to: the `most` cheapest, and the support's if not among them.

    Args:
        search: over some tokens.
        most: codes of one token, the cheapest first.
        priced: whether they are compared by description length.
    """
    cost, row = search.cost[:, :most], search.row[:, :most]
    token, place = cost.isfinite().nonzero().unbind(1)
    listed = ((row < 0) & cost.isfinite()).any(1)
    kept = (search.support.isfinite() & ~listed).nonzero().squeeze(1)
    supports = search.rows[kept, 0].clone()
    supports[:, -1] = -1
    row = torch.cat([row[token, place], torch.full_like(kept, -1)])
    return Candidates(
        token=torch.cat([token, kept]),
        row=row,
        rows=torch.cat([search.rows[token, place], supports]),
        codes=torch.cat([search.codes[token, place], search.kept[kept]]),
        error=torch.full(row.shape, torch.inf, dtype=cost.dtype, device=cost.device),
        priced=torch.full_like(row, priced, dtype=torch.bool),
    )


def closest_codes(fit: Fit, swaps: Swaps) -> Candidates:
    """For each token the code >= 0 of least squared error on its support or one swap away.

    Args:
        fit: targets on the supports.
        swaps: the best of them for every feature that leaves.
    """
    supports, refit = fit.supports, fit.positive
    error, place = pad(swaps.error, (0, 1), value=torch.inf).min(1)
    token = (error < refit.error).nonzero().squeeze(1)
    place = place[token]
    row = swaps.feature[token, place]
    added = supports.units.raw(row) / supports.units.norms[row, None]
    moment = (fit.target[token] * added).sum(1)
    system = fit.exchange(token, place, supports.cosines(token, added), moment)
    guess = fit.codes_without_nonnegative[token, place] > 0
    guess.scatter_(1, place[:, None], True)
    solved = system.solve(guess)
    new = solved.gather(1, place[:, None])
    rows, codes = pad(supports.rows, (0, 1), value=-1), pad(refit.codes, (0, 1))
    rows[token, -1] = row
    codes[token] = torch.cat([solved.scatter(1, place[:, None], 0.0), new], 1)
    least = refit.error.clone()
    least[token] = system.error(solved)
    return Candidates(
        token=torch.arange(len(least), device=least.device),
        row=rows[:, -1],
        rows=rows,
        codes=codes,
        error=least,
        priced=torch.zeros_like(least, dtype=torch.bool),
    )


def measures(prices: Prices, rows: Tensor, codes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Codes ``[m, k]`` in unit rows by `MEASURES`, each ``[m]``.

    Bits are infinite where a feature was never observed.
    """
    active = codes > 0
    unknown = (active & ~prices.observed[rows.clamp(min=0)]).any(1)
    bits = prices.codes(rows, codes).masked_fill(unknown, torch.inf)
    return bits, codes.sum(1), codes.square().sum(1)
