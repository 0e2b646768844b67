"""Codes by enumeration: what closed forms and pivoting must agree with."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from saeaudit.core.budget import Budget, Size
from saeaudit.core.rows import UnitRows, row_norms


def least_squares(rows: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    codes = np.linalg.lstsq(rows.T, target, rcond=1e-6)[0] if len(rows) else np.zeros(0)
    return codes, float(((target - rows.T @ codes) ** 2).sum())


def nonnegative(rows: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes >= 0 of least squared error, and it: the best feasible fit of any subset."""
    best, out = float((target**2).sum()), np.zeros(len(rows))
    for size in range(1, len(rows) + 1):
        for subset in itertools.combinations(range(len(rows)), size):
            codes, error = least_squares(rows[list(subset)], target)
            if (codes >= -1e-10).all() and error < best:
                best, out = error, np.zeros(len(rows))
                out[list(subset)] = codes.clip(min=0)
    return out, best


def exhaustive_nonnegative(rows: np.ndarray, target: np.ndarray) -> float:
    """Least squared error with codes >= 0."""
    return nonnegative(rows, target)[1]


def lawson_hanson(rows: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Codes >= 0 of least squared error, and it: one feature at a time, for larger supports.

    The active-set method of Lawson and Hanson (1974), chapter 23.
    """
    gram, moment = rows @ rows.T, rows @ target
    positive = np.zeros(len(rows), dtype=bool)
    codes = np.zeros(len(rows))
    small = 1e-12 * np.linalg.norm(target)
    while True:
        slope = np.where(positive, -np.inf, moment - gram @ codes)
        if not len(rows) or slope.max() <= small:
            return codes, float(((target - codes @ rows) ** 2).sum())
        positive[slope.argmax()] = True
        while True:
            aim = np.zeros(len(rows))
            inside = np.ix_(positive, positive)
            aim[positive] = np.linalg.solve(gram[inside], moment[positive])
            if (aim[positive] > 0).all():
                break
            falling = positive & (aim <= 0)
            step = (codes[falling] / (codes[falling] - aim[falling])).min()
            codes = codes + step * (aim - codes)
            positive &= codes > 1e-15
            codes[~positive] = 0
        codes = aim


def units_of(rows: np.ndarray, cells: int = 1 << 18) -> UnitRows:
    decoder = torch.from_numpy(rows)
    budget = Budget(swap_cells=Size(cells, cells))
    return UnitRows(decoder, torch.arange(len(rows)), row_norms(decoder), budget)
