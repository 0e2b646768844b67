"""Every genuine dependent triple of unit rows, without a cubic search.

The largest of a triple's three |cosines| is above `strong_cosine`: its *strong edge* is among the
edges that a sweep lists. The second largest is at least `second_cosine`: its third row is a
neighbour of one of that edge's ends (see `saeaudit.core.cosines.genuine`). Where the strong edge is
a nearly parallel pair, that bound is low: below what is listed, or where lists would be longer than
a product takes, third rows are looked for among all rows (see `saeaudit.core.cosines.parallel`).
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.budget import Budget
from saeaudit.core.cosines.edges import Edges, TooDenseError, sort_keys
from saeaudit.core.cosines.genuine import (
    CandidateSets,
    Triples,
    genuine,
    rows_of_sets,
    set_keys,
    strong_cosine,
    strong_floor,
    useful_cosines,
)
from saeaudit.core.cosines.parallel import sets_beside
from saeaudit.core.cosines.screen import Screens, estimates, pair_estimates
from saeaudit.core.rows import MARGIN, spans

LISTED_FROM = 0.25
"""Least |cosine| of a listed edge: few pairs lie above it at widths of 1000 and more."""
COMBINATION = 4096
"""Multiply-adds that take as long as one strong edge with one neighbour of an end."""
DEVIATIONS = 4
"""Standard deviations of a random cosine, 1 / sqrt(d), from which on edges are few."""


def edge_floor(width: int, rho: float, gamma: float) -> float:
    """Where edges are listed from; below it third rows are looked up in whole rows of cosines.

    Some standard deviations of a random cosine, but `LISTED_FROM` at least and the strong floor at
    most.
    """
    return min(strong_cosine(rho, gamma), max(LISTED_FROM, DEVIATIONS / math.sqrt(width)))


def find_triples(screens: Screens, edges: Edges, rho: float, gamma: float) -> Triples:
    """Find all genuine triples.

    Args:
        screens: the rows; `edges` came from the quick one, whole rows of cosines come from the
            fine one.
        edges: all pairs with |cosine| >= ``edges.floor``, itself at most the strong floor.
        rho: largest residual.
        gamma: least ratio of the single residual to the residual, >= 1.

    Returns:
        The triples sorted by their three row numbers in ascending order, each set of rows once.

    Raises:
        TooDenseError: more candidates or findings than can be held.
    """
    units = screens.units
    usual = max(edges.floor, edge_floor(units.width, rho, gamma))
    strong, (i, j) = _strong_edges(screens, edges, rho, gamma)
    low = strong.second < LISTED_FROM
    if bool(low.any()) and not _lists_pay(screens, edges, strong, low, usual):
        i, j = torch.cat([i, strong.i[low]]), torch.cat([j, strong.j[low]])
        strong = strong.pick(~low)
    sets = CandidateSets(units)
    sets.add_keys(sets_beside(screens.fine, i, j, rho, gamma))
    if len(strong.i):
        neighbours = _neighbours(screens, edges, strong, usual)
        _add_candidates(sets, units.budget, neighbours, strong)
    candidates = rows_of_sets(sets.finish(), units.count)
    parts = [
        genuine(units, candidates[start:stop], rho, gamma)
        for start, stop in spans(max(len(candidates), 1), units.budget.decided)
    ]
    merged = Triples(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    order = torch.argsort(set_keys(merged.features.sort(dim=1).values, units.count))
    return Triples(*(column[order] for column in merged))


class _Strong(NamedTuple):
    """Edges that can be the largest cosine of a genuine triple, but for nearly parallel pairs."""

    i: Tensor
    j: Tensor
    cosine: Tensor
    """float64 estimates."""
    second: Tensor
    """Least |second largest cosine| of a triple with this edge, float64, loosened."""
    residual: Tensor
    """Largest squared residual of such a triple, float64, loosened."""
    slack: float
    """Bound on the error of `cosine`."""

    def pick(self, keep: Tensor) -> _Strong:
        """Those where `keep` ``[m]`` bool is true."""
        i, j, cosine, second, residual, slack = self
        return _Strong(i[keep], j[keep], cosine[keep], second[keep], residual[keep], slack)


def _lists_pay(screens: Screens, edges: Edges, strong: _Strong, low: Tensor, usual: float) -> bool:
    """Whether third rows of the `low` ones among strong edges are better looked for in lists.

    Else the rows that they end in are multiplied with all rows, as nearly parallel pairs.
    """
    units = screens.units
    degree = torch.zeros(units.count, dtype=torch.int64, device=units.device)
    for row, _, _ in _listed(screens, edges, _row_floors(strong, usual, units.count)):
        degree += torch.bincount(row, minlength=units.count)
    combinations = degree[strong.i] + degree[strong.j]
    product = (
        len(torch.unique(torch.cat([strong.i[low], strong.j[low]]))) * units.count * units.width
    )
    return (
        int(combinations[low].sum()) <= product // COMBINATION
        and int(combinations.sum()) <= units.budget.combinations
    )


def _row_floors(strong: _Strong, usual: float, count: int) -> Tensor:
    """Least |cosine| that each row's neighbours are asked for from, ``[count]`` float32.

    Infinite where no strong edge ends; at most `usual` elsewhere.
    """
    floor = torch.full((count,), math.inf, device=strong.i.device)
    second = strong.second.to(torch.float32).mul_(1 - MARGIN).clamp_(max=usual)
    for ends in (strong.i, strong.j):
        floor.scatter_reduce_(0, ends, second, "amin")
    return floor


def _listed(
    screens: Screens, edges: Edges, floor: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Listed entries that may reach their row's floor: rows, partners and estimates."""
    most = edges.cosine.abs() + (screens.quick.slack + MARGIN)
    for row, partner in ((edges.i, edges.j), (edges.j, edges.i)):
        at = (most >= floor[row]).nonzero().squeeze(1)
        yield row[at], partner[at], edges.cosine[at]


def _strong_edges(
    screens: Screens, edges: Edges, rho: float, gamma: float
) -> tuple[_Strong, tuple[Tensor, Tensor]]:
    """Strong edges, and apart from them nearly parallel pairs ``([m] int64, [m] int64)``."""
    low = strong_floor(rho, gamma)
    least, most = useful_cosines(rho)
    rho, gamma = rho * (1 + MARGIN), gamma * (1 - MARGIN)

    def useful(cosine: Tensor, slack: float) -> Tensor:
        inside = (cosine >= least - MARGIN - slack) & (cosine <= most + MARGIN + slack)
        return inside & (cosine.abs() >= low - slack)

    slack = screens.quick.slack
    keep = useful(edges.cosine, slack)
    i, j, cosine = edges.i[keep].long(), edges.j[keep].long(), edges.cosine[keep]
    if screens.refines:  # a wide slack lets many weak edges through
        slack, cosine = screens.fine.slack, pair_estimates(screens.fine, i, j)
        keep = useful(cosine, slack)
        i, j, cosine = i[keep], j[keep], cosine[keep]
    magnitude = cosine.abs().double()
    # The bound falls as the largest cosine rises: take the largest that the estimate allows.
    largest = (magnitude + slack).clamp(max=1.0)
    square = 1 - largest * largest
    tight = (square / gamma**2).clamp(max=rho * rho)
    second = ((square - tight).clamp_(min=0) / (2 * (1 + largest) - tight)).sqrt() - MARGIN
    # The residual may be the larger, the smaller that cosine is.
    square = 1 - (magnitude - slack).clamp(min=0.0) ** 2
    residual = (square / gamma**2).clamp(max=rho * rho)
    parallel = (second < min(edges.floor, LISTED_FROM)) | (cosine < -(most + MARGIN + slack))
    apart = i[parallel], j[parallel]
    return _Strong(i, j, cosine.double(), second, residual, slack).pick(~parallel), apart


class _Neighbours(NamedTuple):
    """Rows of cosines as sorted sparse lists."""

    rows: int
    start: Tensor
    """``[n + 1]`` int64 offsets."""
    partner: Tensor
    """int32, ascending within a row."""
    cosine: Tensor
    """float32 estimates."""
    slack: float
    floor: Tensor
    """``[n]`` float32: every partner with |cosine| >= this is listed."""
    keys: Tensor
    """int64: ``row * n + partner`` of every entry, ascending."""


def _neighbours(screens: Screens, edges: Edges, strong: _Strong, usual: float) -> _Neighbours:
    """Neighbour lists of the ends of strong edges: from what is listed, or whole rows.

    They go down to `usual`, and further where a strong edge needs it.
    """
    units, fine = screens.units, screens.fine
    count, budget = units.count, units.budget
    floor = _row_floors(strong, usual, count)
    pack = _Packing(count)
    packed = [pack(*entries) for entries in _listed(screens, edges, floor)]
    deep = (floor < edges.floor).nonzero().squeeze(1)
    total = 0
    for begin, end in spans(len(deep), budget.deep_rows):
        rows = deep[begin:end]
        least = (floor[rows] - fine.slack)[:, None]
        for start, values in estimates(fine, rows):
            at, column = (values.abs() >= least).nonzero().unbind(1)
            total += len(at)
            if total > budget.neighbours:
                raise TooDenseError("too many rows with hundreds of correlated neighbours")
            packed.append(pack(rows[at], column + start, values[at, column]))
    keys = torch.cat(packed)
    packed.clear()
    keys = sort_keys(keys)
    cosine = pack.cosine(keys)
    keys >>= pack.bits
    # A pair that was listed twice keeps one estimate: both are within the slack.
    if len(deep):
        first = torch.ones_like(keys, dtype=torch.bool)
        first[1:] = keys[1:] != keys[:-1]
        keys, cosine = keys[first], cosine[first]
    rows = torch.arange(count + 1, device=keys.device) * count
    slack = max(screens.quick.slack, fine.slack) + MARGIN + pack.error
    partner = (keys % count).to(torch.int32)
    return _Neighbours(count, torch.searchsorted(keys, rows), partner, cosine, slack, floor, keys)


class _Packing:
    """An entry of a sparse row of cosines as one integer, which sorts by row and partner."""

    def __init__(self, count: int) -> None:
        self._count = count
        self.bits = min(62 - (count * count).bit_length(), 30)
        self._steps = (1 << (self.bits - 1)) - 1
        self.error = 1.0 / self._steps

    def __call__(self, row: Tensor, partner: Tensor, cosine: Tensor) -> Tensor:
        """Pack ``[m]`` rows, partners and cosines; the cosine loses at most `error`."""
        level = (cosine.double().clamp(-1, 1) + 1).mul_(self._steps).round_().long()
        key = (row.long() * self._count).add_(partner)
        return key.bitwise_left_shift_(self.bits).add_(level)

    def cosine(self, packed: Tensor) -> Tensor:
        """Unpack the cosines, float32."""
        level = packed & ((1 << self.bits) - 1)
        return (level.to(torch.float64) / self._steps - 1).to(torch.float32)


def _add_candidates(
    sets: CandidateSets, budget: Budget, near: _Neighbours, strong: _Strong
) -> None:
    """Add the sets of three rows that interval arithmetic on the estimates cannot rule out."""
    end = torch.cat([strong.i, strong.j])
    other = torch.cat([strong.j, strong.i])
    hi = strong.cosine.repeat(2)
    least = strong.second.repeat(2) - near.slack
    residual = strong.residual.repeat(2)
    degree = near.start[end + 1] - near.start[end]
    total = int(degree.sum())
    if total > budget.combinations:
        raise TooDenseError(f"{total} combinations of strong edges and neighbours")
    for start, stop in _batches(degree, budget.entries):
        edge = torch.arange(start, stop, device=degree.device)
        edge = torch.repeat_interleave(edge, degree[start:stop])
        first = near.start[end[edge]]
        within = torch.arange(len(edge), device=edge.device) - _run_starts(degree[start:stop])
        third = near.partner[first + within].long()
        side = near.cosine[first + within].double()
        keep = (side.abs() >= least[edge]) & (
            side.abs() <= hi[edge].abs() + near.slack + strong.slack
        )
        keep &= third != other[edge]
        edge, third, side = edge[keep], third[keep], side[keep]
        back, spread = _lookup(near, other[edge], third)
        lo = torch.minimum(side.abs() - near.slack, back.abs() - spread).clamp_(min=0)
        gram = _least_gram((hi[edge], strong.slack), (side, near.slack), (back, spread))
        keep = gram <= residual[edge] * (1 - lo * lo) + MARGIN**2
        edge, third = edge[keep], third[keep]
        sets.add(torch.stack([end[edge], other[edge], third], 1))


def _lookup(near: _Neighbours, row: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Estimated cosine (zero where not listed) and the bound on its error, float64 ``[m]``."""
    wanted = row * near.rows + partner
    at = torch.searchsorted(near.keys, wanted).clamp_(max=len(near.keys) - 1)
    listed = near.keys[at] == wanted
    value = torch.where(listed, near.cosine[at].double(), 0.0)
    return value, torch.where(listed, near.slack, near.floor[row].double())


Interval = tuple[Tensor, Tensor | float]
"""An estimate and the bound on its error."""


def _least_gram(x: Interval, y: Interval, z: Interval) -> Tensor:
    """Least determinant of the 3 x 3 Gram matrix over the box of possible cosines.

    The determinant ``1 + 2xyz - x^2 - y^2 - z^2`` is concave in each cosine, so a corner has it.
    """
    ends = (((v - e).clamp(min=-1), (v + e).clamp(max=1)) for v, e in (x, y, z))
    corners = (1 + 2 * a * b * c - a * a - b * b - c * c for a, b, c in itertools.product(*ends))
    return functools.reduce(torch.minimum, corners)


def _batches(sizes: Tensor, limit: int) -> list[tuple[int, int]]:
    """Split ``range(len(sizes))`` so that each part's sizes sum to about `limit` at most."""
    part = torch.div(sizes.cumsum(0), limit, rounding_mode="floor")
    _, lengths = torch.unique_consecutive(part, return_counts=True)
    ends = lengths.cumsum(0).tolist()
    return list(zip([0, *ends[:-1]], ends, strict=True))


def _run_starts(sizes: Tensor) -> Tensor:
    """Position at which each run starts, once per element of the run."""
    return torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
