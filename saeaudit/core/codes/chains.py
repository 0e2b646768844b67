"""Codes several swaps away, counted from below."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.sparse import Signatures
from saeaudit.core.codes.swaps import Swaps, one_swaps


def chained(fit: Fit, limits: Tensor, enter: Tensor, *, swaps: int, beam: int) -> Tensor:
    """Count distinct supports within a limit that chains of swaps reach, S itself left out.

    Every chain goes on from the `beam` supports of least error that the last step reached, so the
    count is a lower bound. Supports are told apart by `Signatures`; two that share one count once,
    which keeps the bound.

    Args:
        fit: a target a token on its support.
        limits: ``[B, 1]`` largest squared errors.
        enter: ``[n]`` bool: rows that may enter.
        swaps: steps, at least 1.
        beam: supports to go on from.

    Returns:
        ``[B]`` int64.
    """
    supports = fit.supports
    signatures = Signatures(supports.units.count, limits.device)
    out = torch.zeros(len(limits), dtype=torch.int64, device=limits.device)
    for b in range(len(limits)):
        rows = supports.rows[b][supports.active[b]][None]
        reached = signatures.of(rows, rows >= 0)
        for step in range(swaps if rows.shape[1] else 0):
            parents = Fit(Supports(supports.units, rows), fit.target[b].expand(len(rows), -1))
            within = limits[b].expand(len(rows), 1)
            (result,) = one_swaps([parents], [within], enter, listing=True)
            children = _children(signatures, rows, result, enter)
            reached = torch.unique(torch.cat([reached, children]))
            if step + 1 < swaps:
                rows = _best(rows, result, beam)
            if not len(rows):
                break
        out[b] = len(reached) - 1
    return out


def _children(signatures: Signatures, rows: Tensor, swaps: Swaps, enter: Tensor) -> Tensor:
    """Signatures of the supports one counted swap away from ``rows [p, k]``."""
    assert swaps.listed is not None and swaps.droppable is not None
    numbers = signatures.numbers
    parents = signatures.of(rows, rows >= 0)
    parent, _, place, row = swaps.listed.unbind(1)
    sums = [parents[parent] - numbers[rows[parent, place]] + numbers[row]]
    parent, _, place = swaps.droppable.nonzero().unbind(1)
    for p, i in zip(parent.tolist(), place.tolist(), strict=True):
        allowed = enter.clone()
        allowed[rows[p]] = False
        sums.append(parents[p] - numbers[rows[p, i]] + numbers[allowed])
    return torch.cat(sums)


def _best(rows: Tensor, swaps: Swaps, beam: int) -> Tensor:
    """The `beam` supports ``[p, k]`` of least error among the best swaps of each place."""
    counted = swaps.passing[:, 0] & (swaps.feature >= 0)
    error = torch.where(counted, swaps.error, torch.inf)
    least, at = error.flatten().topk(min(beam, error.numel()), largest=False)
    at = at[least.isfinite()]
    parent, place = at // rows.shape[1], at % rows.shape[1]
    best = rows[parent].clone()
    best[torch.arange(len(at), device=at.device), place] = swaps.feature[parent, place]
    return best
