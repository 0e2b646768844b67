"""Third rows of nearly parallel pairs: near-copies, and nearly opposite rows.

The bound on the second cosine of a triple (docs/mathematics.md) falls to zero as its largest one
nears 1 or -1, so lists of neighbours do not serve: any row may be the third. Most are ruled out for
whole blocks of pairs at once (`saeaudit.core.cosines.blocks`); the rest is looked at pair by pair,
in float64, since float32 may be off by as much as two rows are from being parallel. Like all
products these propose, and `genuine` decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.blocks import ROUNDING, Batch, Planes, batches, block_rows, reached
from saeaudit.core.cosines.edges import TooDenseError
from saeaudit.core.cosines.genuine import LEAST_SINGLE, CandidateSets
from saeaudit.core.cosines.screen import Screen
from saeaudit.core.rows import MARGIN, UnitRows, spans


class _Pairs(NamedTuple):
    """Nearly parallel pairs of rows."""

    block: Tensor
    """``[m]`` int64: the block of each."""
    place: Tensor
    """``[2, m]`` int64: where the two rows of each are among those of all blocks."""
    cosine: Tensor
    """``[m]`` float64."""
    single: Tensor
    """``[m]`` float64: squared residual of one row on the other, ``1 - cosine^2``."""
    residual: Tensor
    """``[m]`` float64: largest squared residual of a genuine triple, loosened."""


def sets_beside(fine: Screen, i: Tensor, j: Tensor, rho: float, gamma: float) -> Tensor:
    """Sets of three rows that may be genuine triples with a pair of rows as their strong edge.

    Args:
        fine: a float32 screen of the rows.
        i: ``[m]`` int64 row numbers.
        j: ``[m]`` int64 row numbers, other than `i`; no pair twice.
        rho: largest residual.
        gamma: least ratio of the single residual to the residual, >= 1.

    Returns:
        ``[n]`` int64 keys of sets, ascending; see `set_keys`.

    Raises:
        TooDenseError: more combinations than can be looked at, or more sets than can be held.
    """
    units = fine.units
    sets = CandidateSets(units)
    error = (units.width + 64) * 2.0**-52
    total = 0
    for batch in batches(units, i, j, units.budget.tile_side(fine.device)):
        rows = block_rows(units, batch)
        gram = rows @ rows.mT
        pairs = _pairs(batch, gram, rho, gamma)
        thirds = reached(fine, rows, gram, _planes(pairs))
        total += len(pairs.block) * len(thirds)
        if total > units.budget.combinations:
            raise TooDenseError(f"{total} combinations of nearly parallel pairs and third features")
        member = batch.rows.reshape(-1)
        for columns, table in _cosines(units, rows.flatten(0, 1), thirds):
            step = units.budget.exact_rows(len(columns), units.device)
            for start, stop in spans(len(pairs.block), step):
                part = _Pairs(*(column[..., start:stop] for column in pairs))
                at, column = _near_plane(part, table, error)
                triples = torch.stack([*member[part.place[:, at]], columns[column]], 1)
                sets.add(triples[(triples[:, :2] != triples[:, 2:]).all(1)])
    return sets.finish()


def _pairs(batch: Batch, gram: Tensor, rho: float, gamma: float) -> _Pairs:
    """Leave out pairs whose single residual is too small, and say what a triple must reach."""
    size = gram.shape[2]
    cosine = gram.view(-1, size)[batch.place[0], batch.place[1] % size].clamp(-1, 1)
    single = 1 - cosine * cosine
    residual = torch.clamp(single / (gamma * (1 - MARGIN)) ** 2, max=(rho * (1 + MARGIN)) ** 2)
    least = torch.where(cosine < 0, min(rho, LEAST_SINGLE), rho).to(single) * (1 - MARGIN)
    keep = single >= least * least - ROUNDING
    pairs = _Pairs(batch.block, batch.place, cosine, single, residual)
    return _Pairs(*(column[..., keep] for column in pairs))


def _planes(pairs: _Pairs) -> Planes:
    """What must lie in a pair's plane of a third row.

    The Gram determinant is ``s^2`` times the rest of it, and at most ``r^2``.
    """
    rest = (pairs.residual + ROUNDING) / (pairs.single - ROUNDING).clamp(min=ROUNDING)
    return Planes(pairs.block, pairs.cosine, 1 - rest)


def _cosines(units: UnitRows, rows: Tensor, index: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Cosines of unit rows ``[n, d]`` with the rows at `index`: ``(part, [n, len(part)])``."""
    step = max(1, units.budget.entries // max(rows.shape))
    for start, stop in spans(len(index), step):
        part = index[start:stop]
        yield part, rows @ units.raw(part).div_(units.norms[part, None]).T


def _near_plane(pairs: _Pairs, table: Tensor, error: float) -> tuple[Tensor, Tensor]:
    """Pairs and columns of third rows that are near enough to the pairs' planes.

    With c the cosine of a pair and x, y those of a third row, the Gram determinant of the three is
    ``s^2 - (x^2 + y^2 - 2 c x y)``; a triple has at most ``r^2 (1 - min(x, y)^2)`` of it.

    Args:
        pairs: m of them.
        table: ``[n, columns]`` cosines of the n rows of all blocks.
        error: bound on that of a cosine in `table`.
    """
    first, second = pairs.place
    x, y = table.index_select(0, first), table.index_select(0, second)
    inside = (x * y).mul_(-2 * pairs.cosine[:, None])
    x.square_()
    y.square_()
    inside.add_(x).add_(y).addcmul_(torch.minimum(x, y), pairs.residual[:, None], value=-1)
    least = pairs.single - pairs.residual - 16 * error
    at, column = (inside >= least[:, None]).nonzero().unbind(1)
    keep = torch.maximum(x, y)[at, column].sqrt() <= pairs.cosine[at].abs() + MARGIN
    return at[keep], column[keep]
