from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saeaudit.core.codes.nnls import nnls
from saeaudit.core.codes.tolerances import NNLS_RIDGE
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


@given(st.integers(0, 10_000), st.sampled_from([2.0**-60, 2.0**60]))
@settings(max_examples=30, deadline=None)
def test_nnls_scales_with_its_target(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(4, 6, 8))
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    gram = torch.from_numpy(rows @ rows.transpose(0, 2, 1))
    moment = torch.from_numpy(rng.normal(size=(4, 6)))
    start = torch.ones(4, 6, dtype=torch.bool)
    assert torch.equal(nnls(gram, scale * moment, start), scale * nnls(gram, moment, start))


def test_rows_that_depend_on_each_other_are_solved_too() -> None:
    """23 rows of rank 11, but for their rounding in float32: pivots of these can cycle.

    At the least squared error, and the ridge, a step along any row brings nothing, and one along a
    row that is used costs nothing.
    """
    rng = np.random.default_rng(161)
    rows = (rng.normal(size=(60, 23, 11)) @ rng.normal(size=(11, 24))).astype(np.float32)
    rows = rows.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=2, keepdims=True)
    targets = np.einsum("mk,mkd->md", rng.exponential(size=(60, 23)), rows)
    targets += 0.3 * rng.normal(size=targets.shape)
    gram = torch.from_numpy(rows @ rows.transpose(0, 2, 1))
    moment = torch.from_numpy(np.einsum("mkd,md->mk", rows, targets))
    codes = nnls(gram, moment, torch.ones(60, 23, dtype=torch.bool))
    slope = moment - NNLS_RIDGE * codes - (gram @ codes[:, :, None]).squeeze(2)
    size = np.linalg.norm(targets, axis=1)
    assert (slope.amax(1).numpy() <= 1e-9 * size).all()
    assert ((slope * codes).abs().amax(1).numpy() <= 1e-7 * size**2).all()
