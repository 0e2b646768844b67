"""Codes that nobody trained: greedy pursuits with as many features as asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.nnls import nnls
from saeaudit.core.codes.tolerances import STEPS, ULP, ZERO
from saeaudit.core.float32 import UNIT_ERROR, exact_float32
from saeaudit.core.rows import UnitRows, spans

PLACES = 4096
"""Places (targets times features) pursued at once: their rows are held."""


def pursue(
    units: UnitRows, target: Tensor, sizes: Tensor, enter: Tensor, *, nonnegative: bool
) -> tuple[Tensor, Tensor]:
    """Orthogonal matching pursuit, or its non-negative form (Bruckstein et al. 2008).

    Each step adds the row that correlates most with the residual (in magnitude, or positively) and
    refits all codes by least squares (or non-negative least squares). It ends early where no row
    correlates by more than `ZERO` of the target's norm.

    Args:
        units: the rows.
        target: ``[B, d]`` float64.
        sizes: ``[B]`` int64: how many rows to use for each.
        enter: ``[n]`` bool: rows that may be used.
        nonnegative: which of the two.

    Returns:
        Row numbers ``[B, k]`` (-1 at unused places) and codes in unit rows ``[B, k]`` float64.
    """
    most = int(sizes.max()) if len(target) else 0
    rows = torch.full((len(target), most), -1, dtype=torch.int64, device=target.device)
    codes = torch.zeros(len(target), most, dtype=torch.float64, device=target.device)
    for start, stop in spans(len(target), max(1, PLACES // max(most, 1))):
        part = slice(start, stop)
        pursuit = _Pursuit(units, target[part], rows[part], codes[part])
        for step in range(most):
            pursuit.add(step, enter, sizes[part] > step, nonnegative=nonnegative)
    return rows, codes


def aligned_rows(
    units: UnitRows, residual: Tensor, taken: Tensor, enter: Tensor, *, signed: bool
) -> tuple[Tensor, Tensor]:
    """The row that correlates most with each residual; of equal ones the first.

    One product in float32 leaves few rows to be compared in float64.

    Args:
        units: the rows.
        residual: ``[B, d]`` float64.
        taken: ``[B, s]`` int64: rows that are not to be taken again; -1 for none.
        enter: ``[n]`` bool: rows that may be taken.
        signed: whether the correlation must be positive, or its magnitude counts.

    Returns:
        Correlations ``[B]`` float64, of float32 unit rows, -inf where no row may be taken or the
        residual is zero, and row numbers ``[B]`` int64.
    """
    supports, length = Supports(units, taken), residual.norm(dim=1)
    able = length > 0
    single = (residual / torch.where(able, length, 1.0)[:, None]).to(torch.float32)
    slack = 2.02 * ULP * (units.width + STEPS) + 2 * UNIT_ERROR
    best = torch.where(able, -torch.inf, torch.inf).to(torch.float32)
    near: list[tuple[Tensor, Tensor, Tensor]] = []
    for start, stop in spans(units.count, units.budget.columns.on(units.device)):
        with exact_float32():
            score = single @ units.block(start, stop).T
        score = score if signed else score.abs_()
        score.masked_fill_(supports.barred(enter, start, stop), -torch.inf)
        best = torch.maximum(best, score.amax(1))
        b, column = (score >= (best - slack)[:, None]).nonzero().unbind(1)
        near.append((b, column + start, score[b, column]))
    b, row, value = (torch.cat(columns) for columns in zip(*near, strict=True))
    close = (value >= best[b] - slack) & value.isfinite()
    b, row = b[close], row[close]
    exact = (residual[b] * units.take(row).to(torch.float64)).sum(1)
    exact = exact if signed else exact.abs_()
    most = torch.full_like(length, -torch.inf).scatter_reduce_(0, b, exact, "amax")
    first = row.new_full((len(taken),), units.count)
    first.scatter_reduce_(0, b, row.masked_fill(exact < most[b], units.count), "amin")
    return most, first.clamp_(max=units.count - 1)


class _Pursuit:
    """Some targets, and what is taken for each so far."""

    def __init__(self, units: UnitRows, target: Tensor, rows: Tensor, codes: Tensor) -> None:
        """Begin with nothing taken; `rows` and `codes` ``[B, k]`` are written into."""
        batch, most = rows.shape
        self._units, self._target, self._rows, self._codes = units, target, rows, codes
        self._vectors = target.new_zeros(batch, most, units.width)
        self._gram = target.new_zeros(batch, most, most)
        self._moment = target.new_zeros(batch, most)
        self._residual = target
        self._least = ZERO * target.norm(dim=1)

    def add(self, step: int, enter: Tensor, wanted: Tensor, *, nonnegative: bool) -> None:
        """Add a row that may ``enter [n]`` bool where one is wanted ``[B]`` bool, and refit."""
        best, row = aligned_rows(
            self._units, self._residual, self._rows[:, :step], enter, signed=nonnegative
        )
        taken = wanted & (best > self._least)
        self._rows[:, step] = torch.where(taken, row, -1)
        vectors, codes = self._vectors[:, : step + 1], self._codes[:, : step + 1]
        if nonnegative:
            added = self._units.raw(row) / self._units.norms[row, None] * taken[:, None]
            vectors[:, step] = added
            cross = (vectors @ added[:, :, None]).squeeze(2)
            self._gram[:, step, : step + 1] = self._gram[:, : step + 1, step] = cross
            self._moment[:, step] = (added * self._target).sum(1)
            guess = codes > 0
            guess[:, step] = taken
            gram, moment = self._gram[:, : step + 1, : step + 1], self._moment[:, : step + 1]
            codes[:] = nnls(gram, moment, guess)
            decoded = (codes[:, None, :] @ vectors).squeeze(1)
            self._residual = self._target - decoded
        else:
            fit = Fit(Supports(self._units, self._rows[:, : step + 1]), self._target)
            codes[:] = fit.codes
            self._residual = fit.residual
