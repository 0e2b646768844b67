"""Pursuits, beside those that tests/audit/test_mediators.py compares with a plain loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saeaudit.core.codes.pursuit import pursue
from saeaudit.core.rows import UnitRows, row_norms


@pytest.mark.parametrize("nonnegative", [False, True])
def test_a_pursuit_ends_where_rounding_is_all_that_is_not_explained(nonnegative: bool) -> None:
    rows = torch.from_numpy(np.linalg.qr(np.random.default_rng(0).normal(size=(9, 9)))[0])
    units = UnitRows(rows, torch.arange(9), row_norms(rows))
    target = torch.stack([2 * rows[0] + 1e-3 * rows[4], rows[7], 0 * rows[0]])
    sizes, enter = torch.full((3,), 6), torch.ones(9, dtype=torch.bool)
    taken, codes = pursue(units, target, sizes, enter, nonnegative=nonnegative)
    assert taken.tolist() == [[0, 4, -1, -1, -1, -1], [7] + 5 * [-1], 6 * [-1]]
    assert codes[:2, :2].numpy() == pytest.approx(np.array([[2, 1e-3], [1, 0]]), abs=1e-11)
