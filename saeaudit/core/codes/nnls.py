"""Many small non-negative least-squares problems at once."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.tolerances import NNLS_RIDGE, ROUNDING, TINY

PATIENCE = 3
"""Exchanges of all infeasible entries without progress before they change sides one at a time."""
ROUNDS = 4
"""Times the number of entries: exchanges before these are given up."""


def nnls(gram: Tensor, moment: Tensor, start: Tensor) -> Tensor:
    """Minimise ``x' G x - 2 h' x`` over x >= 0 for each problem, by block principal pivoting.

    A guess at which entries are positive is solved for, and all entries that turn out infeasible
    change sides at once; where that does not make progress, one at a time (Portugal, Judice and
    Vicente 1994; Kim and Park 2011). Rows that depend on each other can make that cycle: what is
    not solved then is by an active set.

    Args:
        gram: ``[m, k, k]`` float64, symmetric, positive semidefinite, unit or zero diagonal; a
            zero row takes its entry out of the problem.
        moment: ``[m, k]`` float64, h.
        start: ``[m, k]`` bool, the guess.

    Returns:
        ``[m, k]`` float64, >= 0, zero where the row of `gram` is.
    """
    size = moment.shape[1]
    out = torch.zeros_like(moment)
    if not moment.numel():
        return out
    allowed = gram.diagonal(dim1=1, dim2=2) > 0
    unsolved = torch.arange(len(moment), device=moment.device)
    passive = start & allowed
    fewest = torch.full_like(unsolved, size + 1)
    patience = torch.full_like(unsolved, PATIENCE)
    tolerance = ROUNDING * moment.abs().amax(1, keepdim=True)
    position = torch.arange(size, device=moment.device)
    for _ in range(ROUNDS * size):
        g, h, within = gram[unsolved], moment[unsolved], tolerance[unsolved]
        x = _solve(g, h, passive)
        slope = (g @ x[:, :, None]).squeeze(2) - h
        wrong = (passive & (x < -within)) | (~passive & allowed[unsolved] & (slope < -within))
        count = wrong.sum(1)
        out[unsolved] = x
        better = count < fewest
        patience = torch.where(better, PATIENCE, patience - 1)
        fewest = torch.where(better, count, fewest)
        last = (wrong * (position + 1)).amax(1, keepdim=True) - 1
        passive = passive ^ (wrong & ((patience >= 0)[:, None] | (position == last)))
        more = count > 0
        unsolved, passive = unsolved[more], passive[more]
        fewest, patience = fewest[more], patience[more]
        if not len(unsolved):
            break
    out[unsolved] = _one_by_one(gram[unsolved], moment[unsolved], tolerance[unsolved])
    return out.clamp_(min=0.0)


def _solve(gram: Tensor, moment: Tensor, passive: Tensor) -> Tensor:
    """Entries ``[m, k]``, zero but where ``passive [m, k]`` bool is true."""
    system = torch.where(passive[:, :, None] & passive[:, None, :], gram, 0.0)
    system.diagonal(dim1=1, dim2=2).add_(torch.where(passive, NNLS_RIDGE, 1.0))
    factor = torch.linalg.cholesky(system)
    right = torch.where(passive, moment, 0.0)[:, :, None]
    solution: Tensor = torch.cholesky_solve(right, factor).squeeze(2)
    return solution


def _one_by_one(gram: Tensor, moment: Tensor, tolerance: Tensor) -> Tensor:
    """The same, by an active set that no problem can cycle in (Lawson and Hanson 1974, chapter 23).

    All entries begin at zero. The one of steepest slope becomes positive, and on the way to the
    best values of those that are, the first to reach zero stays there: the error only falls, and
    entries whose rows depend on those of positive ones have hardly a slope to become so.

    Args:
        gram: ``[m, k, k]``.
        moment: ``[m, k]``.
        tolerance: ``[m, 1]``: slopes of no more than this are zero.
    """
    x, passive = torch.zeros_like(moment), torch.zeros_like(moment, dtype=torch.bool)
    allowed = gram.diagonal(dim1=1, dim2=2) > 0
    at = torch.arange(len(moment), device=moment.device)
    for _ in range(10 * moment.shape[1] if len(at) else 0):
        aim = _solve(gram[at], moment[at], passive[at])
        falls = passive[at] & (aim <= 0)
        share = torch.where(falls, x[at] / (x[at] - aim).clamp(min=TINY), 1.0)
        step = share.amin(1, keepdim=True)
        x[at] = torch.lerp(x[at], aim, step).masked_fill(falls & (share <= step), 0.0)
        passive[at] &= x[at] > 0
        whole = ~falls.any(1)
        slope = moment[at] - (gram[at] @ x[at][:, :, None]).squeeze(2)
        steepest, place = slope.masked_fill(passive[at] | ~allowed[at], 0.0).max(1)
        rises = whole & (steepest > tolerance[at, 0])
        passive[at[rises], place[rises]] = True
        at = at[~whole | rises]
        if not len(at):
            break
    return x
