"""Codes that nobody trained: greedy pursuits with as many features as asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.nnls import nnls
from saeaudit.core.rows import UnitRows


def pursue(
    units: UnitRows, target: Tensor, sizes: Tensor, enter: Tensor, *, nonnegative: bool
) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit, or its non-negative form (Bruckstein et al. 2008).

    Each step adds the row that correlates most with the residual (in magnitude, or positively) and
    refits all codes by least squares (or non-negative least squares).

    Args:
        units: the rows.
        target: ``[B, d]`` float64.
        sizes: ``[B]`` int64: how many rows to use for each.
        enter: ``[n]`` bool: rows that may be used.
        nonnegative: which of the two.

    Returns:
        Row numbers ``[B, k]`` (-1 at unused places) and codes in unit rows ``[B, k]`` float64.
    """
    batch = len(target)
    most = int(sizes.max()) if batch else 0
    rows = torch.full((batch, most), -1, dtype=torch.int64, device=target.device)
    codes = torch.zeros(batch, most, dtype=torch.float64, device=target.device)
    residual = target
    decoder = units.scaled(units.stored(0, units.count), units.norms).to(torch.float64)
    for step in range(most):
        score = residual @ decoder.T
        score = score if nonnegative else score.abs()
        score = score.masked_fill(~enter, -torch.inf)
        used = rows[:, :step].clamp(min=0)
        score.scatter_(1, used, -torch.inf)
        score.masked_fill_((sizes <= step)[:, None], -torch.inf)
        best, row = score.max(1)
        rows[:, step] = torch.where(best > 0, row, -1)
        supports = Supports(units, rows[:, : step + 1])
        fit = Fit(supports, target)
        if nonnegative:
            guess = supports.active & (fit.codes > 0)
            fitted = nnls(supports.gram, fit.moment, guess) * supports.active
        else:
            fitted = fit.codes
        codes[:, : step + 1] = fitted
        residual = target - (fitted[:, None, :] @ supports.vectors).squeeze(1)
    return rows, codes
