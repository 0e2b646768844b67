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


def exhaustive_nonnegative(rows: np.ndarray, target: np.ndarray) -> float:
    """Least squared error with codes >= 0: the best feasible least-squares fit of any subset."""
    best = float((target**2).sum())
    for size in range(1, len(rows) + 1):
        for subset in itertools.combinations(range(len(rows)), size):
            codes, error = least_squares(rows[list(subset)], target)
            if (codes >= -1e-10).all():
                best = min(best, error)
    return best


def units_of(rows: np.ndarray, cells: int = 1 << 18) -> UnitRows:
    decoder = torch.from_numpy(rows)
    budget = Budget(swap_cells=Size(cells, cells))
    return UnitRows(decoder, torch.arange(len(rows)), row_norms(decoder), budget)
