from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from saeaudit.core.rows import fold, round9


@given(st.lists(st.floats(-1e6, 1e6), max_size=40))
def test_fold_sums(values: list[float]) -> None:
    got = float(fold(torch.tensor(values, dtype=torch.float64)))
    assert got == pytest.approx(math.fsum(values), abs=1e-8)


def test_fold_has_one_order() -> None:
    assert fold(torch.tensor([1e16, 1.0, -1e16, 1.0])).tolist() == 0.0 + (1.0 + 1.0)


@given(st.floats(-1e8, 1e8))
def test_round9_is_what_nine_digits_print(value: float) -> None:
    got = float(round9(torch.tensor([value], dtype=torch.float64)))
    if abs(value) > 1e-13:
        assert got == pytest.approx(float(f"{value:.9g}"), rel=1.01e-9)
        assert float(f"{got:.9g}") == got
    else:
        assert abs(got - value) < 1e-21


def test_round9_is_exact_where_thresholds_are() -> None:
    grid = torch.tensor([0.9, 0.99, 0.5, 1.0, 0.1, 0.001, 0.2, 0.3], dtype=torch.float64)
    assert torch.equal(round9(grid * (1 + 1e-12)), grid)
    assert torch.equal(round9(grid * (1 - 1e-12)), grid)
