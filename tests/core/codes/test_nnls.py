from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeaudit.core.codes.nnls import nnls
from tests.support.enumeration import exhaustive_nonnegative


@given(st.integers(0, 10_000), st.integers(1, 7), st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_nnls_equals_enumeration(seed: int, k: int, width: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(4, k, width))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    if k > 2:
        rows[0, 1] = rows[0, 0]
    targets = rng.normal(size=(4, width))
    gram = torch.from_numpy(rows @ rows.transpose(0, 2, 1))
    moment = torch.from_numpy(np.einsum("mkd,md->mk", rows, targets))
    codes = nnls(gram, moment, torch.from_numpy(rng.random((4, k)) < 0.5)).numpy()
    assert (codes >= 0).all()
    for m in range(4):
        error = ((targets[m] - codes[m] @ rows[m]) ** 2).sum()
        assert error == pytest.approx(exhaustive_nonnegative(rows[m], targets[m]), abs=1e-9)
