"""The pass over all pairs: what it costs beside its products."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saeaudit.core.budget import Budget
from saeaudit.core.cosines.screen import make_screen
from saeaudit.core.cosines.sweep import sweep
from saeaudit.core.rows import UnitRows, row_norms

CPU = torch.device("cpu")
LOOKS = {"abs", "amax", "amin", "copy_", "_to_copy", "triu_", "ge", "nonzero", "mul", "maximum"}
"""What reads entries of a product; the bool of each is looked at by NumPy."""


class Looks(TorchDispatchMode):
    """Counts the entries of products, and those that are read once these are made."""

    def __init__(self) -> None:
        super().__init__()
        self.products = self.read = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "_int_mm"):
            self.products += out.numel()
        elif name in LOOKS:
            self.read += args[0].numel()
        return out


def test_a_tile_is_looked_at_once(screen: str) -> None:
    rows = torch.randn(1024, 32, generator=torch.Generator().manual_seed(2))
    made = UnitRows(rows, torch.arange(1024), row_norms(rows), Budget(tile=256))
    ready = make_screen(made, screen, CPU)
    with Looks() as looks:
        hits = sum(len(hits.i) for hits in sweep(ready, 0.7, torch.zeros(1024)))
    assert looks.products >= 1024 * 1024 // 2 and 0 < hits < 10_000
    assert looks.read <= 1.1 * looks.products + 60 * hits


def test_the_largest_estimates_are_of_the_pairs_proposed(screen: str) -> None:
    rows = torch.randn(300, 40, generator=torch.Generator().manual_seed(4))
    made = UnitRows(rows, torch.arange(300), row_norms(rows), Budget(tile=64))
    largest, wanted = torch.zeros(300), torch.zeros(300)
    for hits in sweep(make_screen(made, screen, CPU), 0.5, largest):
        for ends in (hits.i, hits.j):
            wanted.scatter_reduce_(0, ends, hits.cosine.abs(), "amax")
    assert torch.allclose(largest, wanted, atol=1e-6)
    assert 0 < int((wanted > 0).sum()) < 300
