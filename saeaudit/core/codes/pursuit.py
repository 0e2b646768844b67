"""Codes that nobody trained: greedy pursuits with as many features as asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.nnls import nnls
from saeaudit.core.codes.tolerances import ZERO
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
    decoder = units.scaled(units.stored(0, units.count), units.norms).to(torch.float64)
    decoder = decoder.masked_fill_(~enter[:, None], 0.0)
    for start, stop in spans(len(target), max(1, PLACES // max(most, 1))):
        part = slice(start, stop)
        pursuit = _Pursuit(units, target[part], rows[part], codes[part])
        for step in range(most):
            pursuit.add(step, decoder, sizes[part] > step, nonnegative=nonnegative)
    return rows, codes


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

    def add(self, step: int, decoder: Tensor, wanted: Tensor, *, nonnegative: bool) -> None:
        """Add a row where one is wanted ``[B]`` bool, and refit."""
        score = self._residual @ decoder.T
        score = score if nonnegative else score.abs()
        score.scatter_(1, self._rows[:, :step].clamp(min=0), -torch.inf)
        best, row = score.max(1)
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
