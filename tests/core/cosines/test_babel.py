"""The Babel function: exact, and without whole rows where the list tells."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saeaudit.core.cosines import babel as module
from saeaudit.core.cosines.babel import babel, first_bounds
from saeaudit.core.cosines.edges import EdgeStore, Ranked, rank_entries
from saeaudit.core.cosines.maxima import row_maxima
from saeaudit.core.cosines.screen import Screens, make_screens
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
    screens, ranked, best = prepared(rows, screen, per_row)
    with Entries() as entries:
        sums = [babel(screens, ranked, best, k) for k in (1, 8, 32)]
    for k, value in zip((1, 8, 32), sums, strict=True):
        wanted = oracle.babel(rows.double().numpy(), k, include_collapsed=True)
        assert value == pytest.approx(wanted, rel=1e-8)
    assert entries.made <= 40 * count


def prepared(rows: torch.Tensor, screen: str, per_row: int) -> tuple[Screens, Ranked, torch.Tensor]:
    """The rows made ready, a list of so many entries a row, and the row maxima."""
    cosines = torch.nn.functional.normalize(rows) @ torch.nn.functional.normalize(rows).T
    above = cosines.abs().flatten().sort(descending=True).values[len(rows) * (1 + per_row)]
    return listed_from(rows, screen, float(above))


def listed_from(
    rows: torch.Tensor, screen: str, floor: float
) -> tuple[Screens, Ranked, torch.Tensor]:
    """The rows made ready, a list of the entries from a floor on, and the row maxima."""
    count = len(rows)
    made = UnitRows(rows, torch.arange(count), row_norms(rows))
    screens = make_screens(made, screen, torch.device("cpu"))
    store = EdgeStore(screens.quick, floor, useful=(-0.95, 0.95), strong=0.9)
    estimate = torch.zeros(count)
    for hits in sweep(screens.quick, floor, estimate):
        store.add(hits)
    edges = store.finish()
    ranked = rank_entries(edges, count)
    return screens, ranked, row_maxima(screens, edges, ranked, estimate)


def test_entries_that_are_not_listed_count_in_the_bounds(screen: str) -> None:
    """The largest sum is of a row with nothing listed, and others with larger bounds come first."""
    width, beside = 61, 40
    rows = torch.eye(width)[: 1 + beside + 20]
    rows[1 : 1 + beside] *= (1 - 0.3**2) ** 0.5
    rows[1 : 1 + beside, 0] = 0.3
    rows[1 + beside :: 2] = (
        0.9 * rows[2 + beside :: 2] + (1 - 0.9**2) ** 0.5 * rows[1 + beside :: 2]
    )
    screens, ranked, best = listed_from(rows, screen, 0.5)
    assert ranked.sizes[0] == 0 and int((ranked.sizes == 1).sum()) == 20
    for k in (8, 32):
        assert babel(screens, ranked, best, k) == pytest.approx(0.3 * k, rel=1e-6)


def test_few_pairs_are_looked_at_closer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row's k / 2 largest entries rule most rows out, and each has its own bound."""
    rows = torch.randn(1024, 2048, generator=torch.Generator().manual_seed(9))
    screens, ranked, best = prepared(rows, "bf16", 100)
    pairs, look = 0, module.pair_estimates

    def counted(*arguments: Any) -> torch.Tensor:
        nonlocal pairs
        pairs += len(arguments[1])
        return look(*arguments)

    monkeypatch.setattr(module, "pair_estimates", counted)
    for k in (8, 32):
        babel(screens, ranked, best, k)
    assert 0 < pairs < len(ranked.row) / 30


def test_sums_are_bounded_by_what_every_entry_may_be(screen: str) -> None:
    """Rows whose rounding is exact among others: a smaller entry may be the larger one."""
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(256, 256, generator=generator)
    rows[::2] = rows[::2].sign()
    screens, ranked, best = prepared(rows, screen, 60)
    row, partner = ranked.row.long(), ranked.partner.long()
    most = ranked.magnitude + screens.quick.off_by(row, partner, ranked.magnitude)
    table = torch.zeros(256, 256).index_put_((row, partner), most)
    table = table.double().maximum(best.clamp(max=ranked.floor)[:, None]).minimum(best[:, None])
    exact = screens.units.cosines(row, partner).abs()
    listed = torch.zeros(256, 256, dtype=torch.float64).index_put_((row, partner), exact)
    for k in (2, 8, 32):
        bound, least = first_bounds(screens.quick, ranked, best, k)
        assert bool((bound >= table.topk(k).values.sum(1) - 1e-12).all())
        assert bool((least <= listed.topk(k).values[:, -1] + 1e-12).all())
