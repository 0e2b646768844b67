"""How many kernels a scan launches on a GPU: few large ones, whatever the number of rows.

A scan of 131,072 x 2304 is counted at a 64th of its rows with budgets of a 64th, so that every loop
makes as many steps as it does there:

    steps = rows / rows a step,    launches = sum over loops of steps x kernels a step
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from saeaudit.audit.observer import Observer
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.search import search
from saeaudit.core.budget import DEFAULT, Budget, Size
from saeaudit.core.cosines import kernels
from saeaudit.core.rows import UnitRows, row_norms
from tests.support.pretend import PretendCuda, pretend_cuda

FULL, COUNT, WIDTH = 131_072, 2048, 2304
LOOPS = (
    "exact_bytes", "stored_bytes", "packed_rows", "paired_rows", "hits", "most_hits", "strip_rows",
    "edges", "entries", "columns", "deep_rows", "second_rows", "whole_entries",
)  # fmt: skip
"""Sizes of steps; those that a whole decoder is held by are as they are."""


def scaled(factor: int) -> Budget:
    def part(size: Size | int) -> Size | int:
        if isinstance(size, Size):
            return Size(size.cpu, max(1, size.accelerator // factor))
        return max(1, size // factor)

    assert set(LOOPS) <= {field.name for field in fields(Budget)}
    return replace(DEFAULT, **{name: part(getattr(DEFAULT, name)) for name in LOOPS})


def launch(config: Any, arguments: Any, buffer: Any, first: int, last: int) -> int:
    """What the fused kernel does, by a plain product."""
    with torch._C.DisableTorchFunction():
        packed, margin, need, best = arguments
        product = torch._int_mm(packed[first:last].contiguous(), packed.T.contiguous())
        above = torch.arange(len(packed)) > torch.arange(first, last)[:, None]
        magnitude = product.abs() * above
        best[first:last] = best[first:last].maximum(magnitude.amax(1))
        best.copy_(best.maximum(magnitude.amax(0)))
        passing = above & (magnitude + margin[first:last, None] + margin >= need)
        i, j = passing.nonzero().unbind(1)
        if len(i) <= buffer.capacity:
            buffer.hits[:, : len(i)] = torch.stack([i + first, j, product[i, j]])
        return len(i)


class AtRefining(Observer):
    """Remembers how many kernels were launched before what follows the pass."""

    kernels = 0

    def step(self, name: str, share: float, tokens: int | None = None) -> None:
        if name == "refining":
            self.kernels = PretendCuda.kernels


@pytest.mark.skipif(not kernels.interpreted(), reason="a CUDA device is at hand")
def test_fewer_than_2000_launches_follow_the_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(COUNT, WIDTH, generator=generator)
    centres = torch.randn(COUNT // 16, WIDTH, generator=generator)
    shared = torch.randint(0, len(centres), (COUNT,), generator=generator)
    rows += 1.2 * torch.rand(COUNT, 1, generator=generator) * centres[shared]
    rows[:2], rows[2] = rows[2:4] + 0.2 * rows[:2], rows[4] - 0.7 * rows[5]
    monkeypatch.setattr(kernels, "_launch", launch)
    options = ScanOptions(device="cuda:0", budget=scaled(FULL // COUNT))
    with pretend_cuda(monkeypatch):
        units = UnitRows(rows, torch.arange(COUNT), row_norms(rows))
        watched = AtRefining()
        result = search("rows", units, options, "int8", watched)
    assert len(result.triples.features) and result.pairs.duplicates
    assert PretendCuda.launches == FULL // DEFAULT.strip_rows
    assert 100 < watched.kernels < 600
    assert 500 < PretendCuda.kernels - watched.kernels < 2000
