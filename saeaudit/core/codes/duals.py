"""Lower bounds on what a code costs that fits a target within an error."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.costs import Cost
from saeaudit.core.codes.fits import Systems
from saeaudit.core.codes.tolerances import CURVATURE

KEPT = 0.1
"""Share of a feature's curvature (its squared distance from the span of the others) that a diagonal
below the Gram matrix leaves to the rest of it."""
ROUNDS, DAMPED, MOST_LESS = 6, 0.3, 0.5
"""Passes over the features to make that diagonal, the share of each step that is taken, and the
share of an entry that one step takes back at most."""
FIRST = 0.9
"""The passes begin with this share of the greatest multiple of the curvatures below the matrix."""
STEPS = 100
"""Steps up the dual."""


def diagonal_below(gram: Tensor, inverse: Tensor) -> Tensor:
    """Diagonals W, large, with ``G - W`` positive definite: ``[m, k]`` > 0.

    One feature after the other takes a share of the curvature that the others leave to it beyond
    `KEPT` of its 1 / (G^-1)_ii.

    Args:
        gram: ``[m, k, k]``, G, positive definite.
        inverse: ``[m, k, k]``, G^-1.
    """
    curvature = 1 / inverse.diagonal(dim1=1, dim2=2)
    root = curvature.sqrt()
    top = torch.linalg.eigvalsh(root[:, :, None] * inverse * root[:, None, :])[:, -1:]
    weight: Tensor = FIRST * curvature / top
    rest = torch.linalg.inv(gram - torch.diag_embed(weight))
    for _ in range(ROUNDS):
        for i in range(gram.shape[1]):
            entry = rest[:, i, i]
            step = DAMPED * (1 / entry - KEPT * curvature[:, i])
            step = torch.maximum(step, -MOST_LESS * weight[:, i])
            column = rest[:, :, i]
            ratio = step / (1 - step * entry)
            square = column[:, :, None] * column[:, None, :]
            rest += square.mul_(ratio[:, None, None])
            weight[:, i] += step
    return weight


class Dual(NamedTuple):
    """A lower bound and where it is taken."""

    bound: Tensor
    """``[m]``."""
    price: Tensor
    """``[m]``, mu > 0: cost of a unit of squared error."""
    point: Tensor
    """``[m, k]``, a: where the part of the error that is not separable meets its tangent."""


def ascend(systems: Systems, limit: Tensor, weight: Tensor, cost: Cost, start: Dual) -> Dual:
    """The best of the lower bounds that steps up the dual pass.

    With G = W + R, R positive semidefinite, the squared error is at least

        size + sum_i (w_i y_i^2 - 2 l_i y_i) - a'R a,    l = h - R a,

    for any a, and equal to it at y = a: the part y'R y is convex, hence above its tangent. So for
    any mu > 0 what a code within the limit costs is at least

        sum_i min_y [cost_i(y) + mu (w_i y^2 - 2 l_i y)] + mu (size - a'R a - limit).

    In each step a moves towards the minimiser y, and mu with the excess of the error there, by
    shrinking shares (the bound is concave in mu and in mu a).

    Args:
        systems: of m supports.
        limit: ``[m]`` squared errors.
        weight: ``[m, k]``, W.
        cost: of their features, whatever their values.
        start: mu and a to begin at.
    """
    price, point = start.price, start.point
    rest = systems.gram - torch.diag_embed(weight)
    room = (limit - systems.error(point)).abs() + CURVATURE
    best = start._replace(bound=torch.full_like(price, -torch.inf))
    for step in range(STEPS):
        turned = (rest @ point[:, :, None]).squeeze(2)
        linear = systems.moment - turned
        centre, steep = linear / weight, price[:, None] * weight
        value, total = cost.on(centre, steep)
        silent = steep * centre.square()
        value = torch.where(silent <= total, 0.0, value)
        constant = systems.size - (point * turned).sum(1) - limit
        bound = (torch.minimum(silent, total) - silent).sum(1) + price * constant
        better = bound > best.bound
        best = Dual(
            torch.where(better, bound, best.bound),
            torch.where(better, price, best.price),
            torch.where(better[:, None], point, best.point),
        )
        pace = 1 / (step + 5)
        excess = (weight * value.square() - 2 * linear * value).sum(1) + constant
        price = price * torch.exp(pace * (excess / room).clamp(-1, 1))
        point = point + pace * (value - point)
    return best
