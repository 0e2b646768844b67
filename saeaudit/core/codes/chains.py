"""Codes several swaps away, counted from below."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.full import full_swaps
from saeaudit.core.codes.sparse import Signatures


def chained(fit: Fit, limit: Tensor, enter: Tensor, *, swaps: int, beam: int) -> Tensor:
    """Count distinct supports within a limit that chains of swaps reach, S itself left out.

    Only swaps that leave no feature at zero count, so each support is that of a code of its own.
    Every chain goes on from the `beam` supports of least error that the last step reached, so the
    count is a lower bound. Supports are told apart by `Signatures`; two that share one count once,
    which keeps the bound.

    Args:
        fit: a target a token on its support.
        limit: ``[B]`` largest squared errors.
        enter: ``[n]`` bool: rows that may enter.
        swaps: steps, at least 1.
        beam: supports to go on from.

    Returns:
        ``[B]`` int64.
    """
    supports = fit.supports
    signatures = Signatures(supports.units.count, limit.device)
    out = torch.zeros(len(limit), dtype=torch.int64, device=limit.device)
    for b in range(len(limit)):
        rows = supports.rows[b][supports.active[b]][None]
        reached = signatures.of(rows, rows >= 0)
        for _ in range(swaps if rows.shape[1] else 0):
            parents = Fit(Supports(supports.units, rows), fit.target[b].expand(len(rows), -1))
            parent, place, row, error = full_swaps(parents, limit[b].expand(len(rows)), enter)
            if not len(parent):
                break
            sums = signatures.of(rows, rows >= 0)[parent]
            sums += signatures.numbers[row] - signatures.numbers[rows[parent, place]]
            reached = torch.unique(torch.cat([reached, sums]))
            _, best = error.topk(min(beam, len(error)), largest=False)
            rows = rows[parent[best]]
            rows[torch.arange(len(best), device=rows.device), place[best]] = row[best]
        out[b] = len(reached) - 1
    return out
