"""Claims about named features: how nearly f3 is beta (f2 - alpha f1), and what code that gives.

All of it is in terms of unit rows, computed from the rows themselves, not from their cosines: where
f1 and f2 nearly point the same way, cosines have lost the digits that tell them apart.
"""

from __future__ import annotations

import math
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
    z = torch.ones(1, len(index), dtype=torch.float64)
    z[0, -1] = 0.0
    others = nearest_others(_unit_rows(units, index)[None], z)
    error = float(others.error)
    return Example(
        tuple(z[0].tolist()), tuple((others.codes[0] + 0.0).tolist()), int(others.leaving),
        None if math.isnan(error) else error,
    )  # fmt: skip


class Others(NamedTuple):
    """For each of some codes on all but one of its rows, the nearest with that one on."""

    codes: Tensor
    """``[n, m]`` float64 >= 0, rounded to 9 significant digits: least squares on the row that
    enters and those that stay."""
    leaving: Tensor
    """``[n]`` int64: position of the row that leaves, whose absence does the least harm; of two
    that do as much the later one."""
    error: Tensor
    """``[n]`` float64: norm of the difference of what the two decode to, over that of what the
    given code does; NaN where that decodes to zero."""


def nearest_others(rows: Tensor, z: Tensor) -> Others:
    """Codes in which the row that is off may be on in place of another.

    Args:
        rows: ``[n, m, d]`` float64 unit rows, two or three for each code.
        z: ``[n, m]`` float64 codes > 0 but for one in each that is 0.
    """
    every = torch.arange(len(z))
    entering = (z == 0).long().argmax(1)
    target = (z[:, :, None] * rows).sum(1)
    size = _norms(target)
    positions = torch.arange(z.shape[1]).flip(0).expand(len(z), -1)
    leavings = positions[positions != entering[:, None]].view(len(z), z.shape[1] - 1)
    codes, leaving = torch.zeros_like(z), leavings[:, 0]
    least = torch.full_like(size, torch.inf)
    for option in range(leavings.shape[1]):
        staying = torch.cat([leavings[:, :option], leavings[:, option + 1 :]], dim=1)
        support = torch.cat([staying, entering[:, None]], dim=1)
        taken = rows[every[:, None], support]
        values = _nonnegative(taken, target)
        error = _norms(target - (values[:, :, None] * taken).sum(1))
        better = torch.round(error, decimals=EQUAL) < torch.round(least, decimals=EQUAL)
        option_codes = torch.zeros_like(z).scatter_(1, support, round9(values))
        codes = torch.where(better[:, None], option_codes, codes)
        leaving = torch.where(better, leavings[:, option], leaving)
        least = torch.where(better, error, least)
    return Others(codes, leaving, torch.where(size > PARALLEL, round9(least / size), torch.nan))


def _unit_rows(units: UnitRows, index: Tensor) -> Tensor:
    """``[m, d]`` float64 on the CPU."""
    return (units.raw(index) / units.norms[index, None]).cpu()


def _across(x: Tensor, unit: Tensor) -> Tensor:
    """What is left of ``x [..., d]`` across unit rows; twice, since it may be nearly parallel."""
    for _ in range(2):
        x = x - _dots(x, unit)[..., None] * unit
    return x


def _nonnegative(rows: Tensor, target: Tensor) -> Tensor:
    """Least squares of ``target [n, d]`` with coefficients >= 0 on ``[n, 1 or 2, d]`` unit rows."""
    single = _dots(rows, target[:, None]).clamp(min=0)
    if rows.shape[1] == 1:
        return single
    first, second = rows.unbind(1)
    across = _across(second, first)
    height = _norms(across)
    b = _dots(target, across) / height**2
    a = _dots(target - b[:, None] * second, first)
    both = (height > PARALLEL) & (a >= 0) & (b >= 0)
    keep = torch.stack([single[:, 0] >= single[:, 1], single[:, 0] < single[:, 1]], dim=1)
    return torch.where(both[:, None], torch.stack([a, b], dim=1), single * keep)


def _dots(x: Tensor, y: Tensor) -> Tensor:
    """Inner products along the last axis."""
    return fold(x * y)


def _norms(x: Tensor) -> Tensor:
    return fold(x * x).sqrt()


def _dot(x: Tensor, y: Tensor) -> float:
    return float(_dots(x, y))


def _norm(x: Tensor) -> float:
    return float(_norms(x))


def rounded(value: float) -> float:
    """A number rounded to 9 significant digits; see `saeaudit.core.rows.round9`."""
    return float(round9(torch.tensor(value, dtype=torch.float64))) + 0.0
