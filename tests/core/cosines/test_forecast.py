"""The forecast of what each kind of product would take, held against what it does take."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import partial
from time import sleep
from typing import Any
from weakref import ref

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from saeaudit.audit.scan import run as scan_run
from saeaudit.audit.scan import search as scan_search
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.core.budget import Budget, Size
from saeaudit.core.cosines import babel, forecast, maxima
from saeaudit.core.cosines import screen as screens
from saeaudit.core.cosines.costs import Costs, costs_on
from saeaudit.core.cosines.forecast import (
    LISTED,
    SAMPLED,
    Forecast,
    Goals,
    forecasts,
    listing_floor,
    sample_rows,
)
from saeaudit.core.cosines.products import least_seconds
from saeaudit.core.cosines.screen import make_screen
from saeaudit.core.cosines.sweep import sweep
from saeaudit.core.rows import UnitRows, row_norms
from saeaudit.vocabulary import ScreenName

CPU = torch.device("cpu")
PACK: dict[ScreenName, float] = {"fp32": 2e-11, "bf16": 2e-11, "int8": 4e-11}
FAST = Costs({"fp32": 8e-12, "bf16": 2e-12, "int8": 1e-12}, PACK, 1e-10, 5e-10, edge=1e-8)
"""A processor that has the instructions: bfloat16 four, int8 eight times as fast as float32."""
PLAIN = Costs({"fp32": 8e-12, "bf16": 8e-11, "int8": 4e-10}, PACK, 1e-10, 5e-10, edge=1e-8)
"""One that has not."""
COUNT, WIDTH = 2048, 1024


class Looks(TorchDispatchMode):
    """Counts operations that read or write every entry of the sampled rows."""

    made = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [x for x in (*args, out) if isinstance(x, torch.Tensor)]
        self.made += any(x.shape == (SAMPLED, COUNT) for x in tensors)
        return out


def dictionary(kind: str) -> UnitRows:
    generator = torch.Generator().manual_seed(8)
    rows = torch.randn(COUNT, WIDTH, generator=generator)
    if kind != "random":
        rows[1::2] = rows[::2] + 0.6 * rows[1::2]  # each row has one partner far above the bulk
    if kind == "separated":  # and some have many: no sum of the others comes near theirs
        rows[::16] += 2 * torch.randn(1, WIDTH, generator=generator)
    if kind == "copies":
        rows[-COUNT // 10 :] = rows[: COUNT // 10 + 1] * 3
    return UnitRows(rows, torch.arange(COUNT), row_norms(rows))


def predicted(units: UnitRows, costs: Costs) -> dict[ScreenName, Forecast]:
    fine = make_screen(units, "fp32", CPU)
    return dict(forecasts(fine, sample_rows(fine), Goals(0.25, 0.5), costs))


def best(units: UnitRows, costs: Costs) -> ScreenName:
    made = predicted(units, costs)
    return min(made, key=lambda name: made[name].seconds)


@pytest.mark.parametrize(
    ("kind", "fast"), [("separated", "int8"), ("random", "bf16"), ("close sums", "bf16")]
)
def test_the_least_total_is_taken(kind: str, fast: str) -> None:
    """int8 loses its lead where its margins leave too much to look at again."""
    units = dictionary(kind)
    assert best(units, FAST) == fast
    assert best(units, PLAIN) == "fp32"


def test_kinds_that_are_missing_are_not_taken() -> None:
    units = dictionary("separated")
    without = Costs({"fp32": 8e-12, "bf16": 2e-12}, PACK, 1e-10, 5e-10)
    assert set(predicted(units, without)) == {"fp32", "bf16"}
    coarse = UnitRows(torch.eye(64)[:, :40] + 1e-3, torch.arange(64), torch.ones(64).double())
    assert "fp32" in predicted(coarse, FAST)


@pytest.mark.parametrize("kind", ["separated", "random", "copies"])
def test_forecasts_count_what_is_done(
    kind: str, screen: ScreenName, monkeypatch: pytest.MonkeyPatch
) -> None:
    units, done = dictionary(kind), Counter[str]()
    expected = predicted(units, FAST)[screen]

    def counted(module: Any, name: str) -> None:
        function = getattr(module, name)

        def count(*arguments: Any) -> Any:
            result = function(*arguments)
            done[name] += len(arguments[1]) if name == "whole_rivals" else len(result)
            return result

        monkeypatch.setattr(module, name, count)

    counted(maxima, "whole_rivals")
    counted(maxima, "pair_estimates")
    counted(babel, "pair_estimates")
    scan_search.search("rows", units, ScanOptions(), screen)
    whole, pairs = done["whole_rivals"], done["pair_estimates"]
    assert expected.whole / 3 - COUNT / 20 <= whole <= 3 * expected.whole + COUNT / 20
    # One sampled row whose sums may be the largest stands for a thousand pairs.
    assert expected.pairs / 4 - 2 * COUNT <= pairs <= 4 * expected.pairs + COUNT


def test_a_scan_takes_the_screen_that_is_forecast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan_search, "costs_on", lambda width, device: FAST)
    for kind, fast in (("separated", "int8"), ("random", "bf16")):
        units = dictionary(kind)
        result = scan_search.search("rows", units, ScanOptions())
        named = scan_search.search("rows", units, ScanOptions(), "fp32")
        assert result.cost.screen == fast and result.cost.predicted
        assert getattr(result.cost.predicted, fast) <= result.cost.predicted.fp32
        assert named.cost.screen == "fp32" and named.cost.predicted is None
        assert torch.equal(result.row_max, named.row_max) and result.babel == named.babel


def test_costs_are_measured_once() -> None:
    state = torch.get_rng_state()
    costs = costs_on(100, CPU)
    assert costs is costs_on(100, CPU)
    assert torch.equal(torch.get_rng_state(), state)
    assert {"fp32"} <= set(costs.product) <= set(costs.pack)
    assert all(0 < value < 1e-6 for value in (*costs.product.values(), costs.pair, costs.exact))


def test_as_many_entries_are_listed_as_are_meant_to_be(screen: ScreenName) -> None:
    """By int8 too, where no pair but one has the widest margin of all."""
    quick = make_screen(dictionary("random"), screen, CPU)
    floor = listing_floor(sample_rows(quick), quick, 1.0)
    listed = sum(len(hits.i) for hits in sweep(quick, floor, torch.zeros(COUNT)))
    assert 0.85 * LISTED <= 2 * listed / COUNT <= 1.5 * LISTED


def test_kinds_take_turns_when_they_are_timed() -> None:
    """What slows a machine for a moment is to slow no kind alone."""
    order: list[str] = []
    works = [partial(order.append, name) for name in "abc"]
    assert all(0 < seconds < 1 for seconds in least_seconds(works, CPU))
    assert order == list("aabbcc") * 3
    order.clear()
    slow = [*works, partial(sleep, 0.12)]  # longer than is enough
    assert least_seconds(slow, CPU)[-1] >= 0.12
    assert len(order) == 3 * 2


def test_the_copy_that_rows_are_sampled_by_is_the_one_that_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    half, packed = screens._half, Counter[int]()

    def counted(units: UnitRows, *arguments: Any, **options: Any) -> Any:
        packed[units.count] += 1
        return half(units, *arguments, **options)

    monkeypatch.setattr(screens, "_half", counted)
    monkeypatch.setattr(screens, "second_dtype", lambda width, device: torch.bfloat16)
    monkeypatch.setattr(forecast, "second_dtype", lambda width, device: torch.bfloat16)
    monkeypatch.setattr(scan_search, "costs_on", lambda width, device: FAST)
    for kind, fast in (("separated", "int8"), ("random", "bf16")):
        packed.clear()
        result = scan_search.search("rows", dictionary(kind), ScanOptions())
        assert (result.cost.screen, packed[COUNT]) == (fast, 1)
    without = scan_search.search("rows", tight(dictionary("random")), ScanOptions())
    assert packed[COUNT] == 2 and torch.equal(without.row_max, result.row_max)


@pytest.mark.parametrize(
    ("dtype", "best"),
    [(torch.bfloat16, "fp32"), (torch.float16, "fp32"), (torch.float16, "bf16")],
)
def test_a_sampled_copy_of_no_use_is_given_back_before_another_is_made(
    dtype: torch.dtype, best: ScreenName, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Any] = []
    alive: list[bool] = []

    def watched(fine: Any) -> Any:
        half = screens.second_screen(fine.units, fine.device, dtype)
        copies.append(ref(half.packed))
        return half

    def added(*arguments: Any) -> Any:
        alive.append(copies[0]() is not None)
        return screens.add_quick(*arguments)

    monkeypatch.setattr(scan_search, "half_screen", watched)
    monkeypatch.setattr(scan_search, "add_quick", added)
    monkeypatch.setattr(scan_search, "costs_on", lambda width, device: FAST)
    made = {kind: Forecast(2.0 - (kind == best), 0.0, 0.0, 0.0) for kind in ("fp32", best)}
    monkeypatch.setattr(scan_search, "forecasts", lambda *arguments: made)
    assert scan_search.search("rows", dictionary("random"), ScanOptions()).cost.screen == best
    assert alive == [False]


def tight(units: UnitRows) -> UnitRows:
    """The same rows where a copy of 16 bits is not held beside another."""
    return replace(units, budget=Budget(half_bytes=Size(0, 0)))


def test_small_dictionaries_take_bfloat16_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing is measured on their rows: that would take as long as it could save."""
    shapes = {
        (1024, 192): ("fp32", "fp32"),
        (4096, 384): ("bf16", "fp32"),
        (4096, 2304): ("bf16", None),
        (8192, 2304): (None, None),
    }
    for place, dtype in enumerate((torch.bfloat16, torch.float32)):
        monkeypatch.setattr(scan_run, "second_dtype", lambda width, device, dtype=dtype: dtype)
        for shape, wanted in shapes.items():
            taken = scan_run.choose_screen(ScanOptions(device="cpu"), torch.empty(shape))
            assert taken == wanted[place]


@pytest.mark.parametrize("kind", ["random", "copies"])
def test_entries_of_sampled_rows_are_looked_at_a_few_times(kind: str) -> None:
    """By every margin only those that may count."""
    units = dictionary(kind)
    fine = make_screen(units, "fp32", CPU)
    sample = sample_rows(fine)
    with Looks() as looks:
        forecasts(fine, sample, Goals(0.25, 0.5), FAST)
    assert looks.made < 40
