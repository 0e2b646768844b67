"""Which kind of product a scan of given rows takes least time with, all that follows included.

Some rows are computed whole, once: they tell how many edges each kind would list, how many rivals
its margins would leave each row's largest cosine, and how many rows it would have to compute whole.
Nothing that is found depends on it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.costs import NAMES, Costs
from saeaudit.core.cosines.maxima import ENTRIES_A_PAIR
from saeaudit.core.cosines.products import entries_above, second_dtype
from saeaudit.core.cosines.screen import Screen, estimates, make_screen, second_screen
from saeaudit.core.cosines.sweep import PANEL, diagonal_side
from saeaudit.core.rows import MARGIN, UnitRows, spans
from saeaudit.vocabulary import ScreenName

SAMPLED = 64
"""Rows that are computed whole."""
LISTED = 64
"""Entries listed a row on average: enough to cover the largest cosines of nearly every row, and to
bound the Babel function closely."""
LEVELS = 8192
"""Steps of |cosine| that entries are counted by."""
BABEL_SIZES = (8, 32)
"""Sizes of sums that the forecast is made for; the row maxima are the sums of one."""


class Sample(NamedTuple):
    """Whole rows of a few rows."""

    rows: Tensor
    """``[m]`` int64 row numbers."""
    values: Tensor
    """``[m, n]`` float32: estimates of |cosine|, zero where a row meets itself."""
    usual: float
    """As many entries a row lie above it as can be listed."""


@dataclass(frozen=True)
class Goals:
    """What edges are listed for."""

    edge_floor: float
    """Least |cosine| of an edge of a triple."""
    strong: float
    """Least |cosine| of the largest one."""


@dataclass(frozen=True)
class Forecast:
    """What a scan by one kind of product is expected to take."""

    seconds: float
    """All in all, reading the file apart."""
    edges: float
    """Edges listed."""
    whole: float
    """Rows looked at whole, for their largest cosine."""
    pairs: float
    """Pairs of rows looked at alone, in float32."""


def sample_rows(screen: Screen) -> Sample:
    """Compute some rows whole, drawn at random, always the same ones."""
    units = screen.units
    drawn = torch.randperm(units.count, generator=torch.Generator().manual_seed(0))
    rows = drawn[:SAMPLED].sort().values.to(units.device)
    # Rounded to 16 bits a product of copies may pass 1.
    values = torch.cat([value.abs() for _, value in estimates(screen, rows)], 1).clamp_(max=1)
    # Fewer a row in a million rows.
    listed = len(rows) * min(LISTED, units.budget.edges // units.count)
    most = max(1, min(values.numel() - 1, listed))
    level = (values * LEVELS).to(torch.int32).flatten()
    above = torch.bincount(level, minlength=LEVELS + 1).flip(0).cumsum(0)
    return Sample(rows, values, 1.0 - (int((above <= most).sum()) - 1) / LEVELS)


def listing_floor(sample: Sample, screen: Screen, edge_floor: float) -> float:
    """Threshold from which a sweep's hits are kept, so that they cover nearly every row's maximum.

    A guess that only affects speed: rows that it fails are computed whole.

    Args:
        sample: some whole rows.
        screen: what sweeps. By int8 each pair has a margin of its own, so that the widest of all
            would leave most rows with too few.
        edge_floor: what it is at most.
    """
    return min(max(sample.usual + screen.usual_slack, 2 * screen.slack), edge_floor)


def forecasts(
    fine: Screen, sample: Sample, goals: Goals, costs: Costs
) -> Mapping[ScreenName, Forecast]:
    """Forecast a scan by each kind of product that the device has got and the rows allow.

    Args:
        fine: the rows in float32.
        sample: some whole rows.
        goals: what edges are listed for.
        costs: what the device takes.

    Returns:
        By name of the kind; float32 is always among them.
    """
    made = {}
    largest = min(BABEL_SIZES[-1], sample.values.shape[1])
    tops = sample.values.topk(largest, dim=1).values
    for name in NAMES:
        if name in costs.product:
            plan = _plan(fine, sample, tops, name)
            if plan.quick.name == name:
                made[name] = _forecast(plan, goals, costs)
    return made


class _Plan(NamedTuple):
    """A kind of product, tried on the sampled rows."""

    units: UnitRows
    sample: Sample
    tops: Tensor
    """``[m, k]`` the largest values of each sampled row, descending."""
    quick: Screen
    """The sampled rows, in this kind."""
    second: Screen
    """In the kind that whole rows are looked at in."""
    fine: Screen
    """All rows."""


def _plan(fine: Screen, sample: Sample, tops: Tensor, name: ScreenName) -> _Plan:
    units, device, rows = fine.units, fine.device, sample.rows
    few = UnitRows(units.rows, units.live[rows], units.norms[rows], units.budget)
    quick = make_screen(few, name, device)
    second = quick
    if name == "int8":
        second = second_screen(few, device, second_dtype(units.width, device))
    return _Plan(units, sample, tops, quick, second, fine)


class _Work(NamedTuple):
    """What some of the sampled rows take, in numbers that are summed over them."""

    edges: float
    whole: float
    """Rows looked at whole for their largest cosine."""
    pairs: float
    exact: float


def _forecast(plan: _Plan, goals: Goals, costs: Costs) -> Forecast:
    units, name = plan.units, plan.quick.name
    assert name != "fp16"
    count, entries = units.count, units.count * units.width
    floor = listing_floor(plan.sample, plan.quick, goals.edge_floor)
    step = max(1, units.budget.whole_entries // count)
    parts = [_rows_work(plan, span, floor, goals) for span in spans(len(plan.sample.rows), step)]
    mean = [sum(column) * count / len(plan.sample.rows) for column in zip(*parts, strict=True)]
    edges, whole, pairs, exact = mean
    close, sums = _sums_work(plan, floor)
    pairs += close * count
    second = "bf16" if plan.second.name == "fp16" else plan.second.name
    whole_seconds = (
        whole * entries * costs.product[second] + sums * count * entries * (costs.product["fp32"])
    )
    # Of a square on the diagonal all is multiplied, half is new.
    swept = (count + diagonal_side(units.budget, plan.fine.device, count)) / 2 * entries
    seconds = (
        _packing(plan, name, whole, costs)
        + min(swept, count * entries) * costs.product[name]
        + whole_seconds
        + (pairs * costs.pair + exact * costs.exact) * units.width
        + edges * costs.edge
    )
    return Forecast(seconds, edges, whole, pairs)


def _packing(plan: _Plan, name: ScreenName, whole: float, costs: Costs) -> float:
    """Seconds of making rows ready, of those not held as often as they are."""
    units, budget = plan.units, plan.units.budget
    entries = units.count * units.width
    times = dict.fromkeys(costs.pack, 0.0)
    times[name] += 1
    held = 4 * entries <= budget.float32_bytes.on(plan.fine.device)
    if name != "fp32":
        times["fp32"] += held and not plan.fine.as_stored
    elif not held:
        times["fp32"] += units.count / (2 * PANEL * budget.tile_side(plan.fine.device))
    if name == "int8" and plan.second.name != "fp32":
        again = whole / budget.second_rows.on(plan.fine.device)
        kept = 2 * entries <= budget.half_bytes.on(plan.fine.device)
        times["bf16"] += 1 + (0 if kept else again)
    return entries * sum(times[kind] * costs.pack[kind] for kind in times)


def _margins(screen: Screen, error: Tensor, values: Tensor) -> Tensor:
    """Bounds on the errors of estimates of rows with this `error`, with typical partners."""
    other = float(screen.error.mean())
    return error + other + error * other + (screen.rest + MARGIN) + screen.rounding * values


def _rows_work(plan: _Plan, span: tuple[int, int], floor: float, goals: Goals) -> _Work:
    """What the lists, the largest cosines and the triples of some rows take."""
    quick, rows = plan.quick, slice(*span)
    refines = quick.name != "fp32"
    error, finer, top = quick.error[rows], plan.second.error[rows], plan.tops[rows, 0]
    # What lies below does not count for anything.
    least = (top - 2 * _margins(plan.second, finer, top)).clamp(min=0, max=floor - quick.slack)
    row, _, value = entries_above(plan.sample.values[rows], least.double())
    margin = _margins(quick, error[row], value)
    listed = value + (quick.slack if quick.margin is None else margin) >= floor
    rivals = _count(row[listed & (value + margin >= top[row])], len(top))
    affordable = max(1, plan.units.count // ENTRIES_A_PAIR[plan.second.dtype])
    whole = ((top < floor) | (rivals > affordable)) & (top < 1)
    second = _margins(plan.second, finer[row], value)
    near = _count(row[value + 2 * second >= top[row]], len(top))
    rivals = torch.where(whole, near, (rivals - 1).clamp(min=0))  # the first is known exactly
    close = _count(row[value >= top[row] - 2 * plan.fine.slack], len(top))
    strong = float((value >= goals.strong - quick.slack).sum()) / 2 if refines else 0.0
    pairs = float(rivals.sum()) + strong if refines else 0.0
    exact = float(torch.minimum(close, 1 + rivals).sum())
    return _Work(float(listed.sum()) / 2, float(whole.sum()), pairs, exact)


def _count(rows: Tensor, count: int) -> Tensor:
    return torch.bincount(rows, minlength=count)


def _sums_work(plan: _Plan, floor: float) -> tuple[float, float]:
    """What the Babel function takes a row: pairs looked at closer, and looks at it whole."""
    quick, values, fine = plan.quick, plan.sample.values, plan.fine
    close = whole = 0.0
    for k in BABEL_SIZES:
        if k >= values.shape[1]:
            continue
        top = plan.tops[:, :k]
        margin = _margins(quick, quick.error[:, None], top)
        sums = top.sum(1)
        largest = _likely_largest(sums, values.shape[1])
        asked = sums + margin.sum(1) > largest
        least = top[:, -1] - margin[:, -1]
        covered = least >= floor
        tight = top.clamp(min=floor).sum(1) + k * fine.slack > largest
        others = asked & (sums < largest)
        if quick.name != "fp32":
            first, last = top[:, : k // 2], top[:, k // 2 :] + margin[:, k // 2 :]
            close += first.shape[1] * float(others.sum()) / len(values)
            left = others & (first.sum(1) + k * fine.slack + last.sum(1) > largest)
            need = least.clamp(min=floor) - margin[:, -1]
            contenders = entries_above(values[left], need[left].clamp(min=0).double())[0]
            close += len(contenders) / len(values)
            others &= tight
        whole += float((others & ~covered).sum()) / len(values)
    return close, whole


def _likely_largest(sample: Tensor, count: int) -> float:
    """Largest of `count` values of which ``[m]`` are known, their tail taken to be a normal one.

    The mean of a normal distribution's upper eighth lies half a standard deviation above its least.
    """
    tail = sample.topk(max(1, len(sample) // 8)).values
    deviation = 2 * float(tail.mean() - tail[-1])
    beyond = math.sqrt(2 * math.log(count)) - math.sqrt(2 * math.log(len(sample)))
    return float(tail[0]) + deviation * beyond
