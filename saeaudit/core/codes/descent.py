"""Codes of little cost within an error: coordinate descent, one feature's value after the other."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.bordered import Bordered, Walk
from saeaudit.core.codes.costs import Cost

LADDER = (0.7, 1.4, 2.8, 64.0)
"""Prices of squared error to descend at, one after the other, as multiples of the measure's: near 1
a code spends about all that least squares leave to spare, and from 64 on it comes down to fitting.
"""
PASSES = 2
"""Passes over the features at each price. (More change a code by less than 0.1 bits.)"""


class Problem(NamedTuple):
    """m supports with the row that enters, if any, at the last of c places."""

    systems: Bordered
    limit: Tensor
    """``[m]``: largest squared errors."""
    cost: Cost
    active: Tensor
    """``[m, c]`` bool: places that are taken."""
    enters: Tensor
    """``[m]`` bool: whether a row enters, which then must be on, and some other feature off."""

    def only(self, index: Tensor) -> Problem:
        """Problems ``[b, c]`` int64, a row of them of one support each."""
        flat = index.flatten()
        return Problem(
            self.systems.only(index), self.limit[flat], self.cost.rows(flat), self.active[flat],
            self.enters[flat],
        )  # fmt: skip

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
    codes, best, least = start, start, torch.full_like(price, torch.inf)
    columns = [problem.cost.column(place) for place in range(codes.shape[1])]
    for factor in LADDER:
        walk = Walk(problem.systems, codes)
        for _ in range(PASSES):
            _pass(problem, columns, walk, price * factor)
        codes = walk.codes
        total = problem.cost.of(codes).sum(1)
        better = (problem.systems.error(codes) <= problem.limit) & (total < least)
        best = torch.where(better[:, None], codes, best)
        least = torch.where(better, total, least)
    return best, least


def _pass(problem: Problem, columns: list[Cost], walk: Walk, price: Tensor) -> None:
    """One pass over all places, whose costs are `columns`, at prices ``[m]`` of squared error."""
    support = problem.active[:, :-1]
    was_on = ((walk.codes[:, :-1] > 0) & support).long()
    number = was_on.sum(1)
    # Where a row enters not all of the support may be on: so many others at most.
    most = torch.where(problem.enters, support.sum(1) - 2, support.shape[1])
    steep, zero = price.unsqueeze(1), torch.zeros_like(price[:1])
    for i, before in enumerate(was_on.unbind(1)):
        number -= before
        centre = walk.centre(i)
        value, total = columns[i].on(centre.unsqueeze(1), steep)
        on = (total.squeeze(1) < centre.square().mul_(price)) & (number <= most)
        number += on
        walk.set(i, torch.where(on, value.squeeze(1), zero))
    value, _ = columns[-1].on(walk.centre(len(columns) - 1).unsqueeze(1), steep)
    walk.set(len(columns) - 1, torch.where(problem.enters, value.squeeze(1), zero))
