from __future__ import annotations

import math

import numpy as np
import pytest

from saeaudit.core.cosines.chance import random_row_max, welch_bound
from saeaudit.core.cosines.maxima import unique_below


def test_welch_bound_and_uniqueness() -> None:
    assert welch_bound(100, 100) == 0.0
    mu = welch_bound(16384, 2304)
    assert mu == pytest.approx(math.sqrt((16384 - 2304) / (2304 * 16383)))
    assert math.floor(unique_below(mu)) == 26
    assert math.floor(unique_below(welch_bound(65536, 2304))) == 24
    assert unique_below(0.0) is None


@pytest.mark.parametrize(("count", "width"), ((50, 3), (400, 20), (1000, 100)))
def test_random_control_agrees_with_random_rows(count: int, width: int) -> None:
    rng = np.random.default_rng(0)
    maxima = []
    for _ in range(20):
        rows = rng.normal(size=(count, width))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        cosines = np.abs(rows @ rows.T)
        np.fill_diagonal(cosines, 0)
        maxima.append(cosines.max(1))
    for q in (0.05, 0.5, 0.95):
        drawn = float(np.mean([np.quantile(m, q) for m in maxima]))
        assert random_row_max(count, width, q) == pytest.approx(drawn, abs=0.012)
    assert random_row_max(16384, 2304, 0.5) == pytest.approx(0.0874, abs=0.004)
    assert random_row_max(1, 5, 0.5) == 0.0
    assert random_row_max(5, 1, 0.5) == 1.0
