"""Many small non-negative least-squares problems at once."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.tolerances import NNLS_RIDGE, ROUNDING

PATIENCE = 3
"""Exchanges of all infeasible entries without progress before they change sides one at a time."""


def nnls(gram: Tensor, moment: Tensor, start: Tensor) -> Tensor:
    """Minimise ``x' G x - 2 h' x`` over x >= 0 for each problem, by block principal pivoting.

    A guess at which entries are positive is solved for, and all entries that turn out infeasible
    change sides at once; where that does not make progress, one at a time, which terminates
    (Portugal, Judice and Vicente 1994; Kim and Park 2011).

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
    tolerance = ROUNDING * (1 + moment.abs().amax(1, keepdim=True))
    position = torch.arange(size, device=moment.device)
    for _ in range(20 * size + 50):
        g, h = gram[unsolved], moment[unsolved]
        both = passive[:, :, None] & passive[:, None, :]
        system = torch.where(both, g, 0.0)
        system.diagonal(dim1=1, dim2=2).add_(torch.where(passive, NNLS_RIDGE, 1.0))
        factor = torch.linalg.cholesky(system)
        x = torch.cholesky_solve(torch.where(passive, h, 0.0)[:, :, None], factor)
        slope = (g @ x).squeeze(2) - h
        x = x.squeeze(2)
        within = tolerance[unsolved]
        wrong = (passive & (x < -within)) | (~passive & allowed[unsolved] & (slope < -within))
        count = wrong.sum(1)
        out[unsolved] = torch.where(passive, x, 0.0)
        better = count < fewest
        patience = torch.where(better, PATIENCE, patience - 1)
        fewest = torch.where(better, count, fewest)
        last = (wrong * (position + 1)).amax(1, keepdim=True) - 1
        single = position == last
        passive = passive ^ torch.where((patience >= 0)[:, None], wrong, wrong & single)
        more = count > 0
        if not bool(more.any()):
            break
        unsolved, passive = unsolved[more], passive[more]
        fewest, patience = fewest[more], patience[more]
    return out.clamp_(min=0.0)
