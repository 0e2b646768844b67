"""What a device takes for the parts of a scan, measured once on a few hundred random rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial

import torch

from saeaudit.core.budget import Budget
from saeaudit.core.cosines.products import sampled_products, time_product
from saeaudit.core.cosines.screen import make_screen
from saeaudit.core.rows import UnitRows, row_norms
from saeaudit.vocabulary import ScreenName

NAMES: tuple[ScreenName, ...] = ("fp32", "bf16", "int8")
"""Kinds of product; the first is there on every device."""
HOPELESS = 8
"""Times as slow as float32 on a few rows that a kind of product is not timed on more of them."""
PROBED_ROWS = (512, 4096)
"""Rows that are multiplied with one another: on a CPU, and on an accelerator."""
WIDEST = 1024
"""Width up to which costs depend on it."""
EDGE_SECONDS = 5e-7
"""An edge kept, sorted into both its rows and looked through for triples."""


@dataclass(frozen=True)
class Costs:
    """Seconds that a device takes for the parts of a scan."""

    product: Mapping[ScreenName, float]
    """One multiply-add of a large product; kinds that the device has not got are left out."""
    pack: Mapping[ScreenName, float]
    """One entry of a row made ready for a product."""
    pair: float
    """One multiply-add of pairs of rows looked at alone, in float32."""
    exact: float
    """One multiply-add of exact cosines."""
    edge: float = EDGE_SECONDS
    """One edge."""


def costs_on(width: int, device: torch.device) -> Costs:
    """Costs of rows of a width on a device; each width is measured once in a process."""
    return _measured(min(max(width, 64), WIDEST), device)


@cache
def _measured(width: int, device: torch.device) -> Costs:
    """Measure; takes some 30 ms on a CPU, a third of a second where it has slow kinds only."""
    on_cpu = device.type == "cpu"
    count = PROBED_ROWS[0 if on_cpu else 1]
    generator = torch.Generator(device).manual_seed(0)
    size = (count, width if on_cpu else 2304)
    rows = torch.randn(size, generator=generator, device=device)
    units = UnitRows(rows, torch.arange(count, device=device), row_norms(rows), Budget())
    products: dict[ScreenName, float] = {}
    packs: dict[ScreenName, float] = {}
    entries, few = rows.numel(), 0.0
    for name in NAMES:
        make = partial(make_screen, units, name, device)
        try:
            pack = _seconds(make, device) / entries
            packed = make().block(0, count)
            first = time_product(packed[:64])
            few = few or first
            slow = first > HOPELESS * few
            seconds = first * (count / 64) ** 2 if slow else time_product(packed)
        except RuntimeError:  # this build or device has no such product
            continue
        packs[name], products[name] = pack, seconds / (count * entries)
    order = torch.arange(count, device=device)
    apart, step = order.flip(0), units.budget.paired_rows
    single = make_screen(units, "fp32", device).block(0, count)
    pair = _seconds(partial(sampled_products, single, order, apart, step), device)
    exact = _seconds(partial(units.cosines, order, apart), device)
    return Costs(products, packs, pair / entries, exact / entries)


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """The lesser time of two."""
    times = []
    for _ in range(2):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)
