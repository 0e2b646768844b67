"""What a device takes for the parts of a scan, measured once on a few hundred random rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial

import torch
from torch import Tensor

from saeaudit.core.budget import Budget
from saeaudit.core.cosines.products import least_seconds, product, sampled_products, timed_width
from saeaudit.core.cosines.screen import make_screen
from saeaudit.core.rows import UnitRows, row_norms
from saeaudit.vocabulary import ScreenName

NAMES: tuple[ScreenName, ...] = ("fp32", "bf16", "int8")
"""Kinds of product; the first is there on every device."""
HOPELESS = 8
"""Times as slow as float32 on a few rows that a kind of product is not timed on more of them."""
PROBED_ROWS = (128, 1024)
"""Rows that are multiplied with one another on a CPU, for each thread and one more, and at most: a
product that takes a millisecond is seldom interrupted where others are at work."""
FEW = 32
"""Rows that tell whether a kind is hopeless."""
ON_ACCELERATOR = (4096, 2304)
"""Rows and width on an accelerator."""
PACK_SECONDS: dict[ScreenName, float] = {"fp32": 2.5e-9, "bf16": 2.6e-9, "int8": 5.5e-9}
"""An entry of a row made ready on one core, reading and writing memory: few rows would not tell."""
MOST_CORES = 4
"""Cores that make it that many times as fast, at most."""
TIMES_AS_FAST = 50
"""An accelerator, at that."""
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
    return _measured(timed_width(width), device)


@cache
def _measured(width: int, device: torch.device) -> Costs:
    """Measure; takes some 30 ms on a CPU."""
    few, most = PROBED_ROWS
    size = (min(most, few * (1 + torch.get_num_threads())), width)
    if device.type != "cpu":
        size = ON_ACCELERATOR
    generator = torch.Generator(device).manual_seed(0)
    rows = torch.randn(size, generator=generator, device=device)
    count, entries = len(rows), rows.numel()
    order = torch.arange(count, device=device)
    units = UnitRows(rows, order, row_norms(rows), Budget())
    packed: dict[ScreenName, Tensor] = {}
    for name in NAMES:
        try:
            made = make_screen(units, name, device).block(0, count)
            product(made[:FEW], made[:FEW])
        except RuntimeError:  # this build or device has no such product
            continue
        packed[name] = made
    little = dict(zip(packed, _products([made[:FEW] for made in packed.values()]), strict=True))
    slow = {name for name in packed if little[name] > HOPELESS * little["fp32"]}
    fast = {name: made for name, made in packed.items() if name not in slow}
    apart, step = order.flip(0), units.budget.paired_rows
    works = (
        partial(sampled_products, packed["fp32"], order, apart, step),
        partial(units.cosines, order, apart),
    )
    *products, pair, exact = _products(list(fast.values()), works)
    seconds = {name: little[name] * (count / FEW) ** 2 for name in slow}
    seconds |= dict(zip(fast, products, strict=True))
    faster = min(torch.get_num_threads(), MOST_CORES) if device.type == "cpu" else TIMES_AS_FAST
    packs = {name: taken / faster for name, taken in PACK_SECONDS.items()}
    each = {name: seconds[name] / (count * entries) for name in packed}
    return Costs(each, packs, pair / entries, exact / entries)


def _products(packed: list[Tensor], others: Sequence[Callable[[], object]] = ()) -> list[float]:
    """Seconds of the products of rows ``[n, d]`` with themselves, and of others beside them."""
    return least_seconds(
        [*(partial(product, rows, rows) for rows in packed), *others], packed[0].device
    )
