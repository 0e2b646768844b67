"""The Babel function: exact, and without whole rows where the list tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saeaudit.core.cosines.babel import babel
from saeaudit.core.cosines.edges import EdgeStore, rank_entries
from saeaudit.core.cosines.maxima import row_maxima
from saeaudit.core.cosines.screen import make_screens
from saeaudit.core.cosines.sweep import sweep
from saeaudit.core.rows import UnitRows, row_norms
from tests.support import oracle


class Entries(TorchDispatchMode):
    """Counts the entries of products of matrices."""

    made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__ in ("mm", "matmul"):  # the latter in inference mode
            self.made += out.numel()
        return out


@pytest.mark.parametrize("per_row", [16, 120])
@pytest.mark.parametrize("copies", [0, 30])
def test_rows_whose_sums_are_close(per_row: int, copies: int, screen: str) -> None:
    """Random rows all have nearly the largest sum; few are looked at whole."""
    count, width = 1024, 2048
    rows = torch.randn(count, width, generator=torch.Generator().manual_seed(9))
    rows[:copies] = rows[count - copies :] + 0.2 * rows[:copies]
    made = UnitRows(rows, torch.arange(count), row_norms(rows))
    screens = make_screens(made, screen, torch.device("cpu"))
    cosines = torch.nn.functional.normalize(rows) @ torch.nn.functional.normalize(rows).T
    above = cosines.abs().flatten().sort(descending=True).values[count + per_row * count]
    store = EdgeStore(screens.quick, float(above), useful=(-0.95, 0.95), strong=0.9)
    estimate = torch.zeros(count)
    for hits in sweep(screens.quick, float(above), estimate):
        store.add(hits)
    edges = store.finish()
    ranked = rank_entries(edges, count)
    best = row_maxima(screens, edges, ranked, estimate)
    with Entries() as entries:
        sums = [babel(screens, ranked, best, k) for k in (1, 8, 32)]
    for k, value in zip((1, 8, 32), sums, strict=True):
        wanted = oracle.babel(rows.double().numpy(), k, include_collapsed=True)
        assert value == pytest.approx(wanted, rel=1e-8)
    assert entries.made <= 40 * count
