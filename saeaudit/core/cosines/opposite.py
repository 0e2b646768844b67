"""Third rows of nearly opposite pairs, from whole rows of cosines, a block of columns at a time.

The bound on the second cosine of a triple (docs/mathematics.md) falls to zero as its largest one
nears -1, so lists of neighbours do not serve: every row is looked at for every such pair. Products
are in float64, since in float32 they may be off by as much as a pair is from being opposite; like
all products they propose, and `genuine` decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.edges import TooDenseError
from saeaudit.core.cosines.genuine import LEAST_SINGLE, add_sets, no_sets
from saeaudit.core.rows import MARGIN, UnitRows, spans


class _Opposite(NamedTuple):
    """Nearly opposite pairs of rows."""

    i: Tensor
    """``[m]`` int64."""
    j: Tensor
    """``[m]`` int64."""
    cosine: Tensor
    """``[m]`` float64, exact."""
    single: Tensor
    """``[m]`` float64: squared residual of one row on the other, ``1 - cosine^2``."""
    residual: Tensor
    """``[m]`` float64: largest squared residual of a genuine triple, loosened."""


def sets_beside(units: UnitRows, i: Tensor, j: Tensor, rho: float, gamma: float) -> Tensor:
    """Sets of three rows that may be genuine triples with a pair of rows as their strong edge.

    Args:
        units: the rows.
        i: ``[m]`` int64 row numbers.
        j: ``[m]`` int64 row numbers, other than `i`.
        rho: largest residual.
        gamma: least ratio of the single residual to the residual, >= 1.

    Returns:
        ``[n]`` int64 keys of sets, ascending; see `add_sets`.

    Raises:
        TooDenseError: more combinations than can be looked at, or more sets than can be held.
    """
    sets = no_sets(units.device)
    pairs = _pairs(units, i, j, rho, gamma)
    total = len(pairs.i) * units.count
    if not total:
        return sets
    if total > units.budget.combinations:
        raise TooDenseError(f"{total} combinations of antipodal pairs and third features")
    ends, place = torch.unique(torch.stack([pairs.i, pairs.j]), return_inverse=True)
    error = (units.width + 64) * 2.0**-52
    for start, table in _whole_rows(units, ends):
        step = units.budget.exact_rows(table.shape[1], units.device)
        for first, last in spans(len(pairs.i), step):
            part = _Opposite(*(column[first:last] for column in pairs))
            at, column = _near_plane(part, table, place[:, first:last], error)
            if len(at):
                triples = torch.stack([part.i[at], part.j[at], column + start], 1)
                others = (triples[:, :2] != triples[:, 2:]).all(1)
                sets = add_sets(sets, triples[others], units)
    return sets


def _pairs(units: UnitRows, i: Tensor, j: Tensor, rho: float, gamma: float) -> _Opposite:
    """Leave out pairs whose single residual is too small, and say what a triple must reach."""
    cosine = units.cosines(i, j)
    single = 1 - cosine * cosine
    residual = torch.clamp(single / (gamma * (1 - MARGIN)) ** 2, max=(rho * (1 + MARGIN)) ** 2)
    pairs = _Opposite(i, j, cosine, single, residual)
    keep = single >= (LEAST_SINGLE * (1 - MARGIN)) ** 2
    return _Opposite(*(column[keep] for column in pairs))


def _whole_rows(units: UnitRows, index: Tensor) -> Iterator[tuple[int, Tensor]]:
    """Cosines of the rows at `index` with all rows: ``(start, [len(index), columns] float64)``."""

    def unit(rows: Tensor) -> Tensor:
        return units.raw(rows).div_(units.norms[rows, None])

    every = torch.arange(units.count, device=units.device)
    columns = max(1, units.budget.entries // max(len(index), units.width))
    for start, stop in spans(units.count, columns):
        block = unit(every[start:stop])
        table = block.new_empty(len(index), stop - start)
        for first, last in spans(len(index), columns):
            torch.mm(unit(index[first:last]), block.T, out=table[first:last])
        yield start, table


def _near_plane(
    pairs: _Opposite, table: Tensor, place: Tensor, error: float
) -> tuple[Tensor, Tensor]:
    """Pairs and columns of third rows that are near enough to the pairs' planes.

    With c the cosine of a pair and x, y those of a third row, the Gram determinant of the three is
    ``s^2 (1 - x^2) - (y - c x)^2``; a triple has at most ``r^2 (1 - min(x, y)^2)`` of it.

    Args:
        pairs: m of them.
        table: ``[n, columns]`` cosines of n rows.
        place: ``[2, m]`` which of the n rows the two of each pair are.
        error: bound on that of a cosine in `table`.
    """
    x = table[place[0]]
    height = torch.addcmul(table[place[1]], pairs.cosine[:, None], x, value=-1)
    inside = height.square_().addcmul_(x.square_(), pairs.single[:, None])
    # First what is cheap, for all: the right side at its largest.
    least = pairs.single - pairs.residual - 16 * error
    at, column = (inside >= least[:, None]).nonzero().unbind(1)
    determinant = pairs.single[at] - inside[at, column]
    x, y = table[place[0, at], column].abs(), table[place[1, at], column].abs()
    keep = determinant <= pairs.residual[at] * (1 - torch.minimum(x, y) ** 2) + 16 * error
    keep &= torch.maximum(x, y) <= pairs.cosine[at].abs() + MARGIN
    return at[keep], column[keep]
