"""Row maxima: exact whichever products they come from, and at the cost of a product."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saeaudit.core.budget import DEFAULT, Budget, Size
from saeaudit.core.cosines import maxima as module
from saeaudit.core.cosines.edges import RANK_LEVELS, Edges, EdgeStore, Ranked, rank_entries
from saeaudit.core.cosines.maxima import closest_pair, row_maxima
from saeaudit.core.cosines.screen import Screen, Screens, make_screen, make_screens, second_screen
from saeaudit.core.cosines.sweep import sweep
from saeaudit.core.rows import MARGIN, UnitRows, row_norms
from tests.support import oracle

CPU = torch.device("cpu")
SMALL = Budget(
    columns=Size(64, 64), whole_entries=1, second_rows=Size(40, 40), half_bytes=Size(0, 0)
)
CROWDED = Budget(edges=400, entries=128)
SECONDS = (torch.float32, torch.bfloat16, torch.float16)


def units(rows: torch.Tensor, budget: Budget = DEFAULT) -> UnitRows:
    return UnitRows(rows, torch.arange(len(rows)), row_norms(rows), budget)


def screens(made: UnitRows, name: str, second: torch.dtype) -> Screens:
    quick, fine = make_screen(made, name, CPU), make_screen(made, "fp32", CPU)
    return Screens(quick, second_screen(made, CPU, second), fine)


def swept(quick: Screen, floor: float) -> tuple[Edges, Ranked, torch.Tensor]:
    """The edges above a floor, and each row's largest estimate."""
    estimate = torch.zeros(quick.units.count)
    store = EdgeStore(quick, floor, useful=(-0.95, 0.95), strong=0.9)
    for hits in sweep(quick, floor, estimate):
        store.add(hits)
    edges = store.finish()
    return edges, rank_entries(edges, quick.units.count), estimate


def dictionary(kind: str, count: int, width: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    rows = torch.randn(count, width, generator=generator)
    if kind == "scales":  # one row's error is no other's
        rows *= torch.logspace(-3, 3, width)
    if kind == "clustered":
        centres = torch.randn(8, width, generator=generator)
        rows = centres[torch.arange(count) % 8] + 0.02 * rows
    if kind == "copies":
        rows[count // 2 :] = rows[: count - count // 2]
    return rows


@pytest.mark.parametrize("kind", ["random", "scales", "clustered", "copies"])
@pytest.mark.parametrize("second", SECONDS)
def test_maxima_are_exact(kind: str, second: torch.dtype, screen: str) -> None:
    rows = dictionary(kind, 150, 96)
    wanted = torch.from_numpy(oracle.row_maxima(rows.double().numpy(), include_collapsed=True))
    for floor in (0.2, 0.7):  # most rows settled by the list, or hardly any
        for budget in (DEFAULT, SMALL, CROWDED):
            ready = screens(units(rows, budget), screen, second)
            maxima = row_maxima(ready, *swept(ready.quick, floor))
            assert torch.allclose(maxima, wanted, rtol=0, atol=2e-9)


@pytest.mark.parametrize("kind", ["random", "scales", "clustered", "copies"])
def test_the_closest_pair_is_looked_for_in_the_list_if_it_is_there(
    kind: str, screen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dictionary(kind, 150, 96)
    decoder = rows.double().numpy()
    cosines = oracle.gram(decoder, np.arange(len(decoder)))
    looked = []
    whole = module.whole_rivals
    monkeypatch.setattr(module, "whole_rivals", lambda *a: (looked.append(a[1]), whole(*a))[1])
    for floor in (0.2, 0.9999):
        for budget in (DEFAULT, CROWDED):
            ready = screens(units(rows, budget), screen, torch.float32)
            edges, ranked, estimate = swept(ready.quick, floor)
            best = row_maxima(ready, edges, ranked, estimate)
            looked.clear()
            first, second = (int(row) for row in closest_pair(ready, ranked, best, estimate))
            settled = best.max() >= edges.floor and not edges.crowded[first]
            assert len(looked) == (0 if settled else 1)
            assert (first, second) == closest_of(cosines)


def test_the_closest_pair_may_be_listed_lower_than_it_is() -> None:
    """Ranking takes up to half a level off an estimate, more than float32 products are off by."""
    for share in (-0.49, -0.3, 0.3, 0.49):
        cosine = (45_000 + share) / RANK_LEVELS
        rows = torch.tensor([[1.0, 0.0], [cosine, (1 - cosine**2) ** 0.5]], dtype=torch.float64)
        ready = screens(units(rows, DEFAULT), "fp32", torch.float32)
        edges, ranked, estimate = swept(ready.quick, 0.2)
        best = row_maxima(ready, edges, ranked, estimate)
        pair = closest_pair(ready, ranked, best, estimate)
        assert tuple(int(row) for row in pair) == (0, 1)


def test_of_partners_that_tie_the_lowest_is_taken(screen: str) -> None:
    rows = torch.randn(40, 96, generator=torch.Generator().manual_seed(6))
    rows[[11, 19, 38]] = rows[4] * torch.tensor([[2.0], [-1.0], [4.0]])
    for budget in (DEFAULT, CROWDED):
        ready = screens(units(rows, budget), screen, torch.float32)
        edges, ranked, estimate = swept(ready.quick, 0.2)
        best = row_maxima(ready, edges, ranked, estimate)
        pair = closest_pair(ready, ranked, best, estimate)
        assert tuple(int(row) for row in pair) == (4, 11)


def closest_of(cosines: np.ndarray) -> tuple[int, int]:
    """The first pair of those whose |cosine| is the largest, to 9 digits."""
    magnitude = np.abs(cosines) * (1 - np.eye(len(cosines)))
    top = float(f"{magnitude.max():.9g}")
    rows, partners = np.nonzero(magnitude >= top * (1 - 1e-9))
    return int(rows[0]), int(partners[0])


@pytest.mark.parametrize("kind", ["random", "scales", "clustered", "copies"])
def test_every_pair_has_a_bound_of_its_own(kind: str, screen: str) -> None:
    made = units(dictionary(kind, 200, 96))
    ready = make_screen(made, screen, CPU)
    i, j = torch.triu_indices(200, 200, 1)
    value = torch.zeros(200, 200)
    for hits in sweep(ready, 0.0, torch.zeros(200)):
        value[hits.i, hits.j] = hits.cosine
    bound = ready.off_by(i, j, value[i, j])
    assert bool(((value[i, j] - made.cosines(i, j)).abs() <= bound).all())
    assert float(bound.max()) <= ready.slack * 1.01 + MARGIN


class Work(TorchDispatchMode):
    """Counts multiply-adds of whole products, and pairs of rows that are multiplied alone."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width, self.entries, self.pairs, self.exact = width, 0, 0, 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("mm", "matmul"):  # the latter in inference mode
            self.entries += out.numel()
        if name == "sparse_sampled_addmm":
            self.pairs += out._nnz()
        if name == "index_select" and out.ndim == 2 and out.shape[1] == self.width:
            self.exact += len(out)
        return out


@pytest.mark.parametrize("second", SECONDS[:2])
@pytest.mark.parametrize("kind", ["random", "separated"])
def test_cost_is_that_of_a_product(kind: str, second: torch.dtype) -> None:
    """Rows in the bulk have hundreds of rivals within int8's slack; hardly any is looked at."""
    count, width = 2048, 768
    rows = dictionary("random", count, width)
    if kind == "separated":  # each row has one partner far above the bulk
        rows[1::2] = rows[::2] + 0.5 * rows[1::2]
    ready = screens(units(rows), "int8", second)
    prepared = swept(ready.quick, 0.5)
    with Work(width) as work:
        row_maxima(ready, *prepared)
    assert work.entries <= (0 if kind == "separated" else count * count)
    assert work.pairs <= (4 if kind == "separated" else 8 if second is SECONDS[0] else 60) * count
    assert work.exact <= 8 * count


def test_second_screen_is_the_first_where_that_is_as_fine() -> None:
    made = units(dictionary("random", 64, 32))
    for name in ("bf16", "fp32"):
        ready = make_screens(made, name, CPU)
        assert ready.second is ready.quick


def test_the_first_of_a_list_is_computed_once(screen: str) -> None:
    """What is known exactly is no rival of itself."""
    rows = dictionary("random", 512, 768)
    rows[1::2] = rows[::2] + 0.5 * rows[1::2]
    ready = screens(units(rows), screen, torch.float32)
    prepared = swept(ready.quick, 0.5)
    with Work(768) as work:
        row_maxima(ready, *prepared)
    assert work.pairs == 0 and work.exact <= 2 * 256 + 8
