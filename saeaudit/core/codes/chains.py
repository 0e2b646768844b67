"""Codes several swaps away, counted from below."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.swaps import one_swaps


def chained(fit: Fit, limits: Tensor, enter: Tensor, *, swaps: int, beam: int) -> Tensor:
    """Count distinct supports within a limit that chains of swaps reach, S itself left out.

    Every chain goes on from the `beam` supports of least error that the last step reached, so the
    count is a lower bound. Supports are told apart by the sum of one random 62-bit number a
    feature; two that share a sum count once, which keeps the bound.

    Args:
        fit: a target a token on its support.
        limits: ``[B, 1]`` largest squared errors.
        enter: ``[n]`` bool: rows that may enter.
        swaps: steps, at least 1.
        beam: supports to go on from.

    Returns:
        ``[B]`` int64.
    """
    supports, device = fit.supports, limits.device
    generator = torch.Generator().manual_seed(7)
    numbers = torch.randint(1 << 62, (supports.units.count,), generator=generator).to(device)
    out = torch.zeros(len(limits), dtype=torch.int64, device=device)
    for b in range(len(limits)):
        rows = supports.rows[b][supports.active[b]][None]
        start = int(numbers[rows[0]].sum())
        seen = torch.tensor([start], device=device)
        for step in range(swaps if rows.shape[1] else 0):
            here = Fit(Supports(supports.units, rows), fit.target[b].expand(len(rows), -1))
            (found,) = one_swaps([here], [limits[b].expand(len(rows), 1)], enter, listing=True)
            assert found.listed is not None and found.alone is not None
            base = numbers[rows].sum(1)
            p, _, i, j = found.listed.unbind(1)
            sums = [seen, base[p] - numbers[rows[p, i]] + numbers[j]]
            p, _, i = found.alone.nonzero().unbind(1)
            for parent, place in zip(p.tolist(), i.tolist(), strict=True):
                can = enter.clone()
                can[rows[parent]] = False
                sums.append(base[parent] - numbers[rows[parent, place]] + numbers[can])
            seen = torch.unique(torch.cat(sums))
            if step + 1 == swaps:
                break
            error = torch.where(found.passing[:, 0] & (found.feature >= 0), found.error, torch.inf)
            least, at = error.flatten().topk(min(beam, error.numel()), largest=False)
            at = at[least.isfinite()]
            if not len(at):
                break
            parent, place = at // rows.shape[1], at % rows.shape[1]
            entering = found.feature[parent, place]
            rows = rows[parent].clone()
            rows[torch.arange(len(at), device=device), place] = entering
        out[b] = len(seen) - 1
    return out
