"""Claims about named features: how nearly f3 is beta (f2 - alpha f1), and what code that gives.

All of it is in terms of unit rows, computed from the rows themselves, not from their cosines: where
f1 and f2 nearly point the same way, cosines have lost the digits that tell them apart.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.rows import UnitRows, fold, round9

PARALLEL = 1e-12
"""Distance of a unit row from another's line, at most, where the two span no plane."""
EQUAL = 12
"""Decimals to which errors of codes must differ for one to be the better."""


class Fit(NamedTuple):
    """The best of what a claim says, every number rounded to 9 significant digits."""

    alpha: float | None
    """Of a triple: ``-a / b`` in ``u3 = a u1 + b u2``; None where f1 and f2 span no plane, or
    b = 0."""
    beta: float | None
    """b; of a pair the cosine. None where f1 and f2 span no plane."""
    residual: float
    """Norm of what is left of the last unit row."""
    without_f1: float | None
    """The same where only f2 is used; None for a pair."""
    cosines: tuple[float, ...]
    """c12, or c12, c13, c23."""


class Example(NamedTuple):
    """A code with 1 on each feature but the last, in unit rows, and another with the last on."""

    z: tuple[float, ...]
    z_prime: tuple[float, ...]
    """The least-squares code >= 0 on the last feature and what stays."""
    leaving: int
    """Position of the feature that leaves."""
    error: float | None
    """Norm of the difference of what they decode to, over that of what z does; None where z decodes
    to zero."""


def fit(units: UnitRows, index: Tensor) -> Fit:
    """Best alpha and beta of a claim in the roles given, by least squares with either sign.

    Example: for ``u1 = e1, u2 = e2, u3 = (e2 - e1) / sqrt(2)`` alpha is 1 and beta 0.707106781.

    Args:
        units: the rows.
        index: ``[2]`` or ``[3]`` int64 row numbers of f1, f2 (and f3), each another.
    """
    pairs = torch.triu_indices(len(index), len(index), 1)
    exact = units.cosines(index[pairs[0]], index[pairs[1]])
    cosines = tuple(rounded(c) for c in exact.tolist())
    rows = _unit_rows(units, index)
    if len(rows) == 2:
        return Fit(None, cosines[0], rounded(_norm(_across(rows[1], rows[0]))), None, cosines)
    u1, u2, u3 = rows
    rest, across = _across(u3, u2), _across(u1, u2)
    height, without_f1 = _norm(across), rounded(_norm(rest))
    if height <= PARALLEL:
        return Fit(None, None, without_f1, without_f1, cosines)
    a = _dot(rest, across) / height**2
    b = _dot(u3 - a * u1, u2)
    alpha = rounded(-a / b) if rounded(b) else None
    return Fit(alpha, rounded(b), rounded(_norm(rest - a * across)), without_f1, cosines)


def example(units: UnitRows, index: Tensor) -> Example:
    """The code of a claim in the post, 1 on each feature but the last, and the nearest other.

    Of a triple's f2 and f1 the one leaves whose absence does less harm; f2 where that is equal.

    Args:
        units: the rows.
        index: ``[2]`` or ``[3]`` int64 row numbers, each another.
    """
    rows = _unit_rows(units, index)
    last = len(rows) - 1
    target = rows[:last].sum(0)
    size = _norm(target)
    options = []
    for leaving in reversed(range(last)):
        staying = [p for p in range(last) if p != leaving]
        codes = _nonnegative(rows[[*staying, last]], target)
        error = _norm(target - (codes[:, None] * rows[[*staying, last]]).sum(0))
        values = dict(zip((*staying, last), map(rounded, codes.tolist()), strict=True))
        options.append((error, leaving, tuple(values.get(p, 0.0) for p in range(len(rows)))))
    error, leaving, z_prime = min(options, key=lambda option: round(option[0], EQUAL))
    z = (1.0,) * last + (0.0,)
    return Example(z, z_prime, leaving, rounded(error / size) if size > PARALLEL else None)


def _unit_rows(units: UnitRows, index: Tensor) -> Tensor:
    """``[m, d]`` float64 on the CPU."""
    return (units.raw(index) / units.norms[index, None]).cpu()


def _across(x: Tensor, unit: Tensor) -> Tensor:
    """What is left of `x` across a unit row; twice, since it may be nearly parallel to it."""
    x = x - _dot(x, unit) * unit
    return x - _dot(x, unit) * unit


def _nonnegative(rows: Tensor, target: Tensor) -> Tensor:
    """Least squares with coefficients >= 0 on one or two unit rows, ``[m]``."""
    single = torch.tensor([max(_dot(row, target), 0.0) for row in rows], dtype=torch.float64)
    if len(rows) == 1:
        return single
    first, second = rows
    across = _across(second, first)
    height = _norm(across)
    if height > PARALLEL:
        b = _dot(target, across) / height**2
        a = _dot(target - b * second, first)
        if a >= 0 and b >= 0:
            return torch.tensor([a, b], dtype=torch.float64)
    keep = 0 if single[0] >= single[1] else 1
    single[1 - keep] = 0.0
    return single


def _dot(x: Tensor, y: Tensor) -> float:
    return float(fold(x * y))


def _norm(x: Tensor) -> float:
    return float(fold(x * x).sqrt())


def rounded(value: float) -> float:
    """A number rounded to 9 significant digits; see `saeaudit.core.rows.round9`."""
    return float(round9(torch.tensor(value, dtype=torch.float64))) + 0.0
