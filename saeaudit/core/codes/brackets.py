"""Squared errors of exchanges with codes >= 0, enclosed by one guess at the codes.

For the target t, codes y >= 0 have the error f(y) = |t|^2 - 2 h'y + y'Gy, which is above the least.
With s = G y - h the error is, for any l >= 0, at least

    min over x of f(x) - 2 l'x  =  f(y) - 2 l'y - v' G^-1 v,    v = s - l

(Lagrangian duality). Here l is s where y is zero and s is positive, else zero, so that l'y = 0:
the better the guess, the smaller v.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.algebra import Entering, Index, Unsigned, by_token
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import DELICATE, ROUNDING


def bracket(
    fit: Fit, entering: Entering, swaps: Unsigned, index: Index, guess: Tensor
) -> tuple[Tensor, Tensor]:
    """Lower and upper bounds ``[m]`` on squared errors with codes >= 0 of some exchanges.

    Args:
        fit: targets on their supports.
        entering: rows that may enter.
        swaps: the least-squares swaps.
        index: which of them, by token in ascending order.
        guess: ``[m, k]`` codes, the new row's at the place that is left; negative ones are zero.
    """
    token, place, column = index
    every = torch.arange(len(token), device=token.device)
    cross, weight = entering.cross[token, :, column], entering.weight[token, :, column]
    codes = guess.nan_to_num(0.0, 0.0, 0.0).clamp_(min=0) * fit.supports.active[token]
    amount = codes[every, place]
    others = codes.clone()
    others[every, place] = 0.0
    pull = by_token(fit.supports.gram, token, others) + amount[:, None] * cross
    pull[every, place] = (cross * others).sum(1) + amount
    moment = fit.moment[token]
    moment[every, place] = (fit.target[token] * entering.vector(token, column)).sum(1)
    slope = pull - moment
    high = fit.size[token] + (codes * (slope - moment)).sum(1)
    violation = torch.where(codes > 0, slope, slope.clamp(max=0))
    diagonal = fit.diagonal[token, place]
    share = fit.supports.inverse[token, place] / diagonal[:, None]
    enters = weight - weight[every, place][:, None] * share
    enters[every, place] = -1.0
    distance = swaps.distance[index]
    gap = (by_token(fit.supports.inverse, token, violation) * violation).sum(1)
    gap -= (share * violation).sum(1).square() * diagonal
    gap += (enters * violation).sum(1).square() / distance
    rough = (fit.diagonal[token] > DELICATE).any(1) | (distance * DELICATE < 1)
    gap = gap.clamp(min=0)
    rounding = ROUNDING * (fit.size[token] + high.abs() + gap)
    gap = gap.masked_fill(rough, torch.inf)
    return high - gap - rounding, high.clamp(min=0) + rounding
