"""What makes three rows a genuine triple, and what follows for their cosines.

A triple is near-dependent when one row, its target, lies within `rho` of the span of the other two.
With r that residual and s the residual of the better single row, it is genuine when ``r <= rho``,
``s >= gamma r`` and no single row explains the target already: ``s > rho``. A non-negative code
cannot use a negative multiple of a row, so where the cosine of the better row is negative,
``s >= LEAST_SINGLE`` will do. With hi and mid the largest and the second largest |cosine| of the
three, docs/mathematics.md shows

    mid^2 >= (1 - hi^2 - rho'^2) / (2 (1 + hi) - rho'^2),     rho' = min(rho, sqrt(1 - hi^2)/gamma)
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.edges import TooDenseError
from saeaudit.core.rows import MARGIN, UnitRows, fold, round9, spans

LEAST_SINGLE = 0.01
"""Least single residual beside an antipodal pair, alpha = 100 in f3 = f2 - alpha f1: with none,
every row would make a triple with two exactly opposite ones."""


class Triples(NamedTuple):
    """Triples in the roles of u_k = a u_i + b u_j + residual, |b| >= |a|, k the best target."""

    features: Tensor
    """``[m, 3]`` int64 row numbers (f1, f2, f3) = (i, j, k)."""
    a: Tensor
    """``[m]`` float64; NaN where f1 and f2 are parallel."""
    b: Tensor
    """``[m]`` float64."""
    residual: Tensor
    """``[m]`` float64: distance of u_k from the span of u_i and u_j."""
    single: Tensor
    """``[m]`` float64: distance of u_k from the nearer of the two lines."""
    cosines: Tensor
    """``[m, 3]`` float64: c12, c13, c23."""


def second_cosine(hi: float, rho: float, gamma: float) -> float:
    """Least |second largest cosine| of a genuine triple whose largest is `hi` (0 if unbounded).

    mid of equation (*) in docs/mathematics.md.
    """
    tight = min(rho, math.sqrt(max(1 - hi * hi, 0.0)) / gamma)
    numerator = 1 - hi * hi - tight * tight
    return math.sqrt(max(numerator, 0.0) / (2 * (1 + hi) - tight * tight))


def strong_cosine(rho: float, gamma: float) -> float:
    """Least possible largest |cosine| of a genuine triple: 0.5 as rho goes to 0, 0.493 at 0.2."""
    low, high = 0.0, 1.0
    for _ in range(60):  # halvings, past the digits of float64
        middle = (low + high) / 2
        if second_cosine(middle, rho, gamma) <= middle:
            high = middle
        else:
            low = middle
    return high


def strong_floor(rho: float, gamma: float) -> float:
    """Where edges must be listed from whatever the budget: `strong_cosine`, loosened."""
    return strong_cosine(rho * (1 + MARGIN), gamma * (1 - MARGIN)) - MARGIN


def useful_cosines(rho: float) -> tuple[float, float]:
    """Range of the cosine of a genuine triple's strong edge, least and most, both sides closed.

    Above it one row alone explains another to within `rho`; below it two rows are opposite but for
    less than `LEAST_SINGLE`.
    """
    return -_cosine_at(min(rho, LEAST_SINGLE)), _cosine_at(rho)


def _cosine_at(single: float) -> float:
    return math.sqrt(max(1 - single * single, 0.0))


class CandidateSets:
    """Collects sets of three rows that may be genuine triples, each once."""

    def __init__(self, units: UnitRows) -> None:
        self._units = units
        self._parts: list[Tensor] = []
        self._total = self._merged = 0

    def add(self, triples: Tensor) -> None:
        """Add ``[m, 3]`` triples of row numbers.

        Raises:
            TooDenseError: more sets than the budget.
        """
        self.add_keys(set_keys(triples.sort(dim=1).values, self._units.count))

    def add_keys(self, keys: Tensor) -> None:
        """Add ``[m]`` keys of sets, as `add`."""
        self._parts.append(keys)
        self._total += len(keys)
        if self._total > 2 * self._merged + self._units.budget.entries:
            self.finish()

    def finish(self) -> Tensor:
        """Keys of the sets so far, ``[n]`` int64 ascending; see `set_keys`.

        Raises:
            TooDenseError: more sets than the budget.
        """
        none = torch.empty(0, dtype=torch.int64, device=self._units.device)
        self._parts = [torch.unique(torch.cat([none, *self._parts]))]
        self._total = self._merged = len(self._parts[0])
        most = self._units.budget.candidates
        if self._merged > most:
            raise TooDenseError(f"more than {most} candidate triples")
        return self._parts[0]


def set_keys(triple: Tensor, count: int) -> Tensor:
    """``[m, 3]`` ascending row numbers below `count` as integers that sort in the same order."""
    return (triple[:, 0] * count + triple[:, 1]) * count + triple[:, 2]


def rows_of_sets(sets: Tensor, count: int) -> Tensor:
    """``[m, 3]`` row numbers of what `set_keys` made."""
    pair, c = torch.div(sets, count, rounding_mode="floor"), sets % count
    return torch.stack([torch.div(pair, count, rounding_mode="floor"), pair % count, c], 1)


def genuine(units: UnitRows, sets: Tensor, rho: float, gamma: float) -> Triples:
    """Describe the genuine triples among ``[m, 3]`` sets of row numbers, in the order given."""
    fits = _fits(units, sets)
    of_target = fits.cosines[:, 1:]
    opposite = -of_target.amin(1) > of_target.amax(1)  # of equally good rows the positive counts
    keep = (fits.single > rho) | (opposite & (fits.single >= LEAST_SINGLE))
    # From the rows themselves only the residuals that their cosines cannot rule out.
    most = (fits.single / gamma).clamp(max=rho) * (1 + MARGIN)
    keep &= fits.determinant <= most * most * fits.square + MARGIN**2
    triples = _described(units, _Fits(*(column[keep] for column in fits)))
    keep = triples.residual <= rho
    keep &= triples.single >= round9(gamma * triples.residual)
    return Triples(*(column[keep] for column in triples))


def describe(units: UnitRows, sets: Tensor) -> Triples:
    """Roles, coefficients and residuals of given triples, near-dependent or not.

    The target is the row opposite the pair with the least |cosine|, which is the one with the
    least residual; of equal ones the largest row number. With c = c_ij:

        a     = (c_ik - c c_jk) / (1 - c^2)
        b     = (c_jk - c c_ik) / (1 - c^2)
        r_k^2 = det(G) / (1 - c^2)
        s_k^2 = min(1 - c_ik^2, 1 - c_jk^2)

    Args:
        units: the rows.
        sets: ``[m, 3]`` int64, three different row numbers each.

    Returns:
        m triples in the order given; every number is rounded to 9 significant digits.
    """
    return _described(units, _fits(units, sets))


class _Fits(NamedTuple):
    """Triples in their roles, as far as their three cosines tell."""

    features: Tensor
    """As of `Triples`."""
    a: Tensor
    """``[m]`` float64."""
    b: Tensor
    """``[m]`` float64."""
    single: Tensor
    """``[m]`` float64, rounded."""
    cosines: Tensor
    """``[m, 3]`` float64, rounded."""
    square: Tensor
    """``[m]`` float64: ``1 - c_ij^2``."""
    determinant: Tensor
    """``[m]`` float64: ``det(G)``, the squared residual times `square`; within 1e-13."""


def _fits(units: UnitRows, sets: Tensor) -> _Fits:
    sets = sets.sort(dim=1).values
    corners = ((1, 2), (0, 2), (0, 1))  # the pair opposite each row
    pairs = torch.cat([sets[:, corner] for corner in corners])
    key, back = torch.unique(pairs[:, 0] * units.count + pairs[:, 1], return_inverse=True)
    exact = units.cosines(torch.div(key, units.count, rounding_mode="floor"), key % units.count)
    opposite = exact[back].view(3, -1).T
    size = round9(opposite.abs())
    target = torch.where(size[:, 1] <= size[:, 0], 1, 0)
    best = size.gather(1, target[:, None]).squeeze(1)
    target = torch.where(size[:, 2] <= best, 2, target)
    first, second = (target == 0).long(), 2 - (target == 2).long()
    c_ij = _at(opposite, target)
    c_ik, c_jk = _at(opposite, second), _at(opposite, first)
    square = 1 - c_ij * c_ij
    a, b = (c_ik - c_ij * c_jk) / square, (c_jk - c_ij * c_ik) / square
    determinant = square - c_ik * c_ik - c_jk * c_jk + 2 * c_ij * c_ik * c_jk
    swap = round9(a.abs()) > round9(b.abs())
    first, second = torch.where(swap, second, first), torch.where(swap, first, second)
    a, b = torch.where(swap, b, a), torch.where(swap, a, b)
    c_ik, c_jk = torch.where(swap, c_jk, c_ik), torch.where(swap, c_ik, c_jk)
    return _Fits(
        torch.stack([_at(sets, first), _at(sets, second), _at(sets, target)], 1),
        a,
        b,
        round9(torch.minimum(1 - c_ik * c_ik, 1 - c_jk * c_jk).clamp(min=0).sqrt()),
        round9(torch.stack([c_ij, c_ik, c_jk], 1)),
        square,
        determinant,
    )


def _described(units: UnitRows, fits: _Fits) -> Triples:
    residual = round9(_residual(units, fits.features, fits.a, fits.b))
    return Triples(
        fits.features, round9(fits.a), round9(fits.b), residual, fits.single, fits.cosines
    )


def _at(table: Tensor, column: Tensor) -> Tensor:
    return table.gather(1, column[:, None]).squeeze(1)


def _residual(units: UnitRows, features: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``|u_3 - a u_1 - b u_2|``, from the rows themselves: exact where the triple is."""
    out = torch.empty(len(features), dtype=torch.float64, device=units.device)
    step = max(1, units.budget.exact_rows(units.width, units.device) // 4)
    for start, stop in spans(len(features), step):
        u1, u2, u3 = (
            units.raw(index) / units.norms[index, None] for index in features[start:stop].T
        )
        rest = u3 - a[start:stop, None] * u1 - b[start:stop, None] * u2
        out[start:stop] = fold(rest * rest).sqrt()
    return out
