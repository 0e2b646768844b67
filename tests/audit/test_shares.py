"""Intervals of shares: whole documents are taken anew, and too little data has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saeaudit.audit.score.shares import LEAST_UNITS, LEAST_VALUES, Shares, mean_interval


def test_documents_and_not_tokens_are_what_an_interval_is_of() -> None:
    """Tokens of one document all say the same: there are as many data as documents."""
    rng = np.random.default_rng(0)
    documents = torch.arange(40).repeat_interleave(25)
    said = torch.from_numpy(rng.random(40) < 0.3).double()
    values = said[documents]
    whole = mean_interval(values, documents)
    alone = mean_interval(values, torch.arange(1000))
    assert whole is not None and alone is not None
    share = float(values.mean())
    spread = math.sqrt(share * (1 - share) / 40)
    assert (whole.high - whole.low) / (2 * 1.96 * spread) == pytest.approx(1, abs=0.15)
    assert (alone.high - alone.low) / (2 * 1.96 * spread) == pytest.approx(1 / 5, abs=0.05)
    assert whole.low < share < whole.high


def test_too_little_has_no_interval() -> None:
    shares = Shares(torch.arange(100) // 5)
    for token in range(LEAST_VALUES):
        shares.add(token, one=token % 2, other=None)
    assert shares.mean("one") == 0.5 and shares.count("other") == 0
    assert LEAST_VALUES / 5 < LEAST_UNITS and shares.interval("one") is None
    assert shares.estimate("one") is shares.mean("other") is None
    for token in range(LEAST_VALUES, 60):
        shares.add(token, one=token % 2)
    estimate = shares.estimate("one")
    assert estimate is not None and estimate.low < estimate.value == 0.5 < estimate.high
    examples = Shares(None)
    for _ in range(LEAST_VALUES):
        examples.add(None, one=True)
    assert examples.interval("one") is not None  # each is a unit of its own
