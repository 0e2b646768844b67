"""Every genuine dependent triple of unit rows, without a cubic search.

A triple is near-dependent when one row lies within `rho` of the span of the other two, and genuine
when no single row explains it already: with r the residual of the pair and s that of the better
single row, ``r <= rho``, ``s > rho`` and ``s >= gamma r``. Its largest |cosine| hi and its second
largest mid then satisfy (docs/mathematics.md)

    mid^2 >= (1 - hi^2 - rho'^2) / (2 (1 + hi) - rho'^2),     rho' = min(rho, sqrt(1 - hi^2)/gamma)

so every triple has a strong edge, and its third row is a neighbour of one of that edge's ends.
"""

from __future__ import annotations

import functools
import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.budget import Budget
from saeaudit.core.cosines.edges import Edges, TooDenseError, sorted_in_place
from saeaudit.core.cosines.screen import Screens, estimates, pair_estimates
from saeaudit.core.rows import MARGIN, UnitRows, fold, round9, spans

LISTED_FROM = 0.25
"""Least |cosine| of a listed edge: few pairs lie above it at widths of 1000 and more."""
DEVIATIONS = 4
"""Standard deviations of a random cosine, 1 / sqrt(d), from which on edges are few."""


class Triples(NamedTuple):
    """Triples in the roles of u_k = a u_i + b u_j + residual, |b| >= |a|, k the best target."""

    features: Tensor
    """``[m, 3]`` int64 row numbers (f1, f2, f3) = (i, j, k)."""
    a: Tensor
    """``[m]`` float64; NaN where f1 and f2 are parallel."""
    b: Tensor
    """``[m]`` float64."""
    residual: Tensor
    """``[m]`` float64: distance of u_k from the span of u_i and u_j."""
    single: Tensor
    """``[m]`` float64: distance of u_k from the nearer of the two lines."""
    cosines: Tensor
    """``[m, 3]`` float64: c12, c13, c23."""


def second_cosine(hi: float, rho: float, gamma: float) -> float:
    """Least |second largest cosine| of a genuine triple whose largest is `hi` (0 if unbounded).

    mid of equation (*) in docs/mathematics.md.
    """
    tight = min(rho, math.sqrt(max(1 - hi * hi, 0.0)) / gamma)
    numerator = 1 - hi * hi - tight * tight
    return math.sqrt(max(numerator, 0.0) / (2 * (1 + hi) - tight * tight))


def strong_cosine(rho: float, gamma: float) -> float:
    """Least possible largest |cosine| of a genuine triple: 0.5 as rho goes to 0, 0.493 at 0.2."""
    low, high = 0.0, 1.0
    for _ in range(60):  # halvings, past the digits of float64
        middle = (low + high) / 2
        if second_cosine(middle, rho, gamma) <= middle:
            high = middle
        else:
            low = middle
    return high


def strong_floor(rho: float, gamma: float) -> float:
    """Where edges must be listed from whatever the budget: `strong_cosine`, loosened."""
    return strong_cosine(rho * (1 + MARGIN), gamma * (1 - MARGIN)) - MARGIN


def near_cosine(rho: float) -> float:
    """Cosine from which on one row alone explains another to within `rho`."""
    return math.sqrt(max(1 - rho * rho, 0.0))


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
    edges = _useful(edges, edge_floor(units.width, rho, gamma), screens.quick.slack)
    strong = _strong_edges(screens, edges, rho, gamma)
    if not len(strong.i):
        return _empty(units.device)
    neighbours = _neighbours(screens, edges, strong)
    candidates = _candidates(neighbours, strong, rho, units.budget)
    parts = [
        _genuine(units, candidates[start:stop], rho, gamma)
        for start, stop in spans(max(len(candidates), 1), units.budget.decided)
    ]
    merged = Triples(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    order = torch.argsort(_key(merged.features.sort(dim=1).values, units.count))
    return Triples(*(column[order] for column in merged))


def _useful(edges: Edges, floor: float, slack: float) -> Edges:
    """Drop edges certainly below `floor`: other figures need them, triples do not."""
    if edges.floor >= floor:
        return edges
    keep = edges.cosine.abs() >= floor - slack
    i, j, cosine = edges.i[keep], edges.j[keep], edges.cosine[keep]
    return Edges(i, j, cosine, floor, edges.crowded)


class _Strong(NamedTuple):
    """Edges that can be the largest cosine of a genuine triple."""

    i: Tensor
    j: Tensor
    cosine: Tensor
    """float64 estimates."""
    second: Tensor
    """Least |second largest cosine| of a triple with this edge, float64, loosened."""
    slack: float
    """Bound on the error of `cosine`."""


def _strong_edges(screens: Screens, edges: Edges, rho: float, gamma: float) -> _Strong:
    low = strong_floor(rho, gamma)
    rho, gamma = rho * (1 + MARGIN), gamma * (1 - MARGIN)
    high = near_cosine(rho) + MARGIN
    slack, magnitude = screens.quick.slack, edges.cosine.abs()
    keep = (magnitude >= low - slack) & (magnitude <= high + slack)
    i, j, cosine = edges.i[keep].long(), edges.j[keep].long(), edges.cosine[keep]
    if screens.refines:  # a wide slack lets many weak edges through
        slack, cosine = screens.fine.slack, pair_estimates(screens.fine, i, j)
        keep = (cosine.abs() >= low - slack) & (cosine.abs() <= high + slack)
        i, j, cosine = i[keep], j[keep], cosine[keep]
    cosine = cosine.double()
    # The bound falls as the largest cosine rises: take the largest that the estimate allows.
    largest = (cosine.abs() + slack).clamp(max=1.0)
    square = 1 - largest * largest
    tight = (square / gamma**2).clamp(max=rho * rho)
    second = ((square - tight).clamp_(min=0) / (2 * (1 + largest) - tight)).sqrt() - MARGIN
    return _Strong(i, j, cosine, second, slack)


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


def _neighbours(screens: Screens, edges: Edges, strong: _Strong) -> _Neighbours:
    """Neighbour lists: the edges both ways, and whole rows where a strong edge needs more."""
    units, fine = screens.units, screens.fine
    count, budget = units.count, units.budget
    floor = torch.full((count,), edges.floor, dtype=torch.float32, device=units.device)
    for ends in (strong.i, strong.j):
        floor.scatter_reduce_(0, ends, strong.second.to(torch.float32) * (1 - MARGIN), "amin")
    pack = _Packing(count)
    packed = [pack(edges.i, edges.j, edges.cosine), pack(edges.j, edges.i, edges.cosine)]
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
    keys = sorted_in_place(keys)
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


def _candidates(near: _Neighbours, strong: _Strong, rho: float, budget: Budget) -> Tensor:
    """Sets of three rows that interval arithmetic on the estimates cannot rule out.

    Returns:
        ``[m, 3]`` int64, ascending within a row, distinct.
    """
    end = torch.cat([strong.i, strong.j])
    other = torch.cat([strong.j, strong.i])
    hi = strong.cosine.repeat(2)
    least = strong.second.repeat(2) - near.slack
    degree = near.start[end + 1] - near.start[end]
    total = int(degree.sum())
    if total > budget.combinations:
        raise TooDenseError(f"{total} combinations of strong edges and neighbours")
    sets = torch.empty(0, dtype=torch.int64, device=degree.device)
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
        keep = (
            _least_gram((hi[edge], strong.slack), (side, near.slack), (back, spread))
            <= (rho + MARGIN) ** 2
        )
        edge, third = edge[keep], third[keep]
        triple = torch.stack([end[edge], other[edge], third], 1).sort(dim=1).values
        sets = torch.unique(torch.cat([sets, _key(triple, near.rows)]))
        if len(sets) > budget.candidates:
            raise TooDenseError(f"more than {budget.candidates} candidate triples")
    pair, c = torch.div(sets, near.rows, rounding_mode="floor"), sets % near.rows
    return torch.stack([torch.div(pair, near.rows, rounding_mode="floor"), pair % near.rows, c], 1)


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


def _key(triple: Tensor, count: int) -> Tensor:
    return (triple[:, 0] * count + triple[:, 1]) * count + triple[:, 2]


def _genuine(units: UnitRows, sets: Tensor, rho: float, gamma: float) -> Triples:
    triples = describe(units, sets)
    keep = (triples.residual <= rho) & (triples.single > rho)
    keep &= triples.single >= round9(gamma * triples.residual)
    return Triples(*(column[keep] for column in triples))


def describe(units: UnitRows, sets: Tensor) -> Triples:
    """Roles, coefficients and residuals of given triples, near-dependent or not.

    The target is the row opposite the pair with the least |cosine|, which is the one with the
    least residual; of equal ones the largest row number. With c = c_ij:

        a     = (c_ik - c c_jk) / (1 - c^2)
        b     = (c_jk - c c_ik) / (1 - c^2)
        r_k^2 = det(G) / (1 - c^2)
        s_k^2 = min(1 - c_ik^2, 1 - c_jk^2)

    Args:
        units: the rows.
        sets: ``[m, 3]`` int64, three different row numbers each.

    Returns:
        m triples in the order given; every number is rounded to 9 significant digits.
    """
    sets = sets.sort(dim=1).values
    corners = ((1, 2), (0, 2), (0, 1))  # the pair opposite each row
    pairs = torch.cat([sets[:, corner] for corner in corners])
    key, back = torch.unique(pairs[:, 0] * units.count + pairs[:, 1], return_inverse=True)
    exact = units.cosines(torch.div(key, units.count, rounding_mode="floor"), key % units.count)
    opposite = exact[back].view(3, -1).T
    size = round9(opposite.abs())
    target = torch.where(size[:, 1] <= size[:, 0], 1, 0)
    best = size.gather(1, target[:, None]).squeeze(1)
    target = torch.where(size[:, 2] <= best, 2, target)
    first, second = (target == 0).long(), 2 - (target == 2).long()
    c_ij = _at(opposite, target)
    c_ik, c_jk = _at(opposite, second), _at(opposite, first)
    square = 1 - c_ij * c_ij
    a, b = (c_ik - c_ij * c_jk) / square, (c_jk - c_ij * c_ik) / square
    swap = round9(a.abs()) > round9(b.abs())
    first, second = torch.where(swap, second, first), torch.where(swap, first, second)
    a, b = torch.where(swap, b, a), torch.where(swap, a, b)
    c_ik, c_jk = torch.where(swap, c_jk, c_ik), torch.where(swap, c_ik, c_jk)
    features = torch.stack([_at(sets, first), _at(sets, second), _at(sets, target)], 1)
    return Triples(
        features,
        round9(a),
        round9(b),
        round9(_residual(units, features, a, b)),
        round9(torch.minimum(1 - c_ik * c_ik, 1 - c_jk * c_jk).clamp(min=0).sqrt()),
        round9(torch.stack([c_ij, c_ik, c_jk], 1)),
    )


def _at(table: Tensor, column: Tensor) -> Tensor:
    return table.gather(1, column[:, None]).squeeze(1)


def _residual(units: UnitRows, features: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """``|u_3 - a u_1 - b u_2|``, from the rows themselves: exact where the triple is."""
    out = torch.empty(len(features), dtype=torch.float64, device=units.device)
    step = max(1, units.budget.exact_rows(units.width, units.device) // 4)
    for start, stop in spans(len(features), step):
        u1, u2, u3 = (
            units.raw(index) / units.norms[index, None] for index in features[start:stop].T
        )
        rest = u3 - a[start:stop, None] * u1 - b[start:stop, None] * u2
        out[start:stop] = fold(rest * rest).sqrt()
    return out


def _empty(device: torch.device) -> Triples:
    features = torch.empty((0, 3), dtype=torch.int64, device=device)
    none = features[:, 0].to(torch.float64)
    return Triples(features, none, none, none, none, features.to(torch.float64))
