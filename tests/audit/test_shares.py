"""Intervals of shares: whole documents are taken anew, and too little data has none."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from saeaudit import MediatorInputs, MediatorOptions, mediators
from saeaudit import open as open_sae
from saeaudit.audit.score.shares import Shares, mean_interval
from saeaudit.core.calibration import LEAST_UNITS, LEAST_VALUES, mean_intervals
from saeaudit.records import MediatorsSummary, TokenRecord
from tests.support.sample import SAMPLE


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


def test_intervals_of_mediators_take_documents_anew() -> None:
    """Against a plain bootstrap over the token records, by other draws."""
    documents = torch.arange(600) // 4
    inputs = MediatorInputs(SAMPLE[:600], documents=documents)
    options = MediatorOptions(max_tokens=40, max_alternatives=0, epsilons=(0.0,))
    *records, summary = mediators(open_sae("sample"), inputs, options)
    assert isinstance(summary, MediatorsSummary)
    tokens = [record for record in records if isinstance(record, TokenRecord)]
    row, refit = summary.non_unique[0], [token.alternatives[0] for token in tokens]
    document = documents[[token.token for token in tokens]].numpy()
    units = np.unique(document)
    assert len(units) >= LEAST_UNITS
    rng = np.random.default_rng(1)
    drawn = [rng.choice(units, len(units)) for _ in range(4000)]
    places = [np.concatenate([np.flatnonzero(document == unit) for unit in d]) for d in drawn]
    changing = next(share for share in row.by_change if share.change == 0.2)
    for mean, interval, values in (
        (row.mean_alternatives, row.alternatives_interval, [a.count for a in refit]),
        (row.attainable_fraction, row.attainable_interval, [a.attainable for a in refit]),
        (changing.fraction, changing.interval, [(a.change or 0.0) >= 0.2 for a in refit]),
    ):
        of_tokens = np.array(values, dtype=float)
        assert mean == pytest.approx(of_tokens.mean()) and interval is not None
        low, high = np.quantile([of_tokens[place].mean() for place in places], [0.025, 0.975])
        assert [interval.low, interval.high] == pytest.approx([low, high], abs=0.1 * (high - low))
    assert mean_intervals(torch.ones(9, 1).double(), 100 * torch.ones(9).double()) is None
