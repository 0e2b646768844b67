"""Codes of little cost within an error: coordinate descent, one feature's value after the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.costs import Cost
from saeaudit.core.codes.fits import Systems

LADDER = (0.7, 1.4, 2.8, 64.0)
"""Prices of squared error to descend at, one after the other, as multiples of the measure's: near 1
a code spends about all that least squares leave to spare, and from 64 on it comes down to fitting.
"""
PASSES = 2
"""Passes over the features at each price. (More change a code by less than 0.1 bits.)"""


class Problem(NamedTuple):
    """m supports with the row that enters, if any, at the last of c places."""

    systems: Systems
    limit: Tensor
    """``[m]``: largest squared errors."""
    cost: Cost
    active: Tensor
    """``[m, c]`` bool: places that are taken."""
    enters: Tensor
    """``[m]`` bool: whether a row enters, which then must be on, and some other feature off."""

    def only(self, index: Tensor) -> Problem:
        """Some of the problems."""
        systems = Systems(*(field[index] for field in self.systems))
        return Problem(
            systems, self.limit[index], self.cost.rows(index), self.active[index],
            self.enters[index],
        )  # fmt: skip

    def slope(self, codes: Tensor) -> Tensor:
        """Half the gradient ``[m, c]`` of the squared error."""
        gram = self.systems.gram
        return (gram @ codes[:, :, None]).squeeze(2) - self.systems.moment

    def moved(self, slope: Tensor, place: int, by: Tensor) -> None:
        """Change slopes for codes at a place that have changed ``by [m]``.

        A Gram matrix's row stands for its column: its entries lie side by side.
        """
        slope.addcmul_(self.systems.gram[:, place], by[:, None])

    def off(self, codes: Tensor) -> Tensor:
        """``[m, c]`` bool: features of the support that are off."""
        off = (codes <= 0) & self.active
        off[:, -1] = False
        return off


def descend(problem: Problem, start: Tensor, price: Tensor) -> tuple[Tensor, Tensor]:
    """The cheapest code within the limit that descents at the prices of `LADDER` arrive at.

    Each goes on from the last: in `PASSES` passes every place in turn takes the value that costs
    least, with squared error at its price, beside the others' (off wins ties, then the smaller
    value). The last feature of the support that is off stays so where a row enters.

    Args:
        problem: m of them.
        start: ``[m, c]`` codes to begin at.
        price: ``[m]`` the measure's price of squared error.

    Returns:
        Codes ``[m, c]`` and their costs ``[m]``, infinite where none is within the limit.
    """
    codes, best, least = start.clone(), start, torch.full_like(price, torch.inf)
    for factor in LADDER:
        slope = problem.slope(codes)
        for _ in range(PASSES):
            _pass(problem, codes, slope, price * factor)
        total = problem.cost.of(codes).sum(1)
        better = (problem.systems.error(codes) <= problem.limit) & (total < least)
        best = torch.where(better[:, None], codes, best)
        least = torch.where(better, total, least)
    return best, least


def _pass(problem: Problem, codes: Tensor, slope: Tensor, price: Tensor) -> None:
    """One pass over all places; `codes` and `slope` are changed."""
    last = codes.shape[1] - 1
    off = problem.off(codes).sum(1)
    for i in range(last + 1):
        here = codes[:, i].clone()
        centre = here - slope[:, i]
        value, total = problem.cost.column(i).on(centre[:, None], price[:, None])
        if i < last:
            others = off - ((here <= 0) & problem.active[:, i]).long()
            on = (total[:, 0] < price * centre.square()) & ~(problem.enters & (others < 1))
        else:
            on = problem.enters
        on = on & problem.active[:, i]
        codes[:, i] = torch.where(on, value[:, 0], 0.0)
        if i < last:
            off = others + (~on & problem.active[:, i]).long()
        problem.moved(slope, i, codes[:, i] - here)
