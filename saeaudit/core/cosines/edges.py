"""The edges that triples are made of, from a sweep's hits, within a budget, and row by row.

Where a dictionary holds a huge cluster of near-duplicates, the list drops what no triple can use.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.screen import Screen
from saeaudit.core.cosines.sweep import Hits, select
from saeaudit.core.rows import MARGIN

RANK_BITS = 16
"""Bits of an estimate that is ranked: beside two row numbers of 23 bits they fit in 62."""
RANK_LEVELS = (1 << RANK_BITS) - 1
RANK_ERROR = 2.0**-RANK_BITS
"""What ranking costs an estimate."""
SORTED_APART = 1 << 23
"""Keys on a CPU that are sorted by their digits, four times as fast, with copies of 64 bytes each
at most; more of them are sorted in place."""


class TooDenseError(Exception):
    """More strongly correlated pairs or triples than the search can hold."""


class Edges(NamedTuple):
    """Pairs of rows with their estimated cosines."""

    i: Tensor
    """``[m]`` int32."""
    j: Tensor
    """``[m]`` int32, i < j."""
    cosine: Tensor
    """``[m]`` float32 estimates."""
    floor: float
    """Every pair with |cosine| >= floor is here, but for those of two crowded rows."""
    crowded: Tensor
    """``[n]`` bool: rows some of whose closest pairs were dropped."""


class EdgeStore:
    """Collects edges within a budget.

    When the budget is passed, pairs too close to +-1 for a triple go first; then the floor
    rises, up to the strong floor: weak edges can be had again from whole rows, strong ones cannot.
    """

    def __init__(
        self, screen: Screen, floor: float, *, useful: tuple[float, float], strong: float
    ) -> None:
        """Collect edges with |cosine| >= `floor`.

        Args:
            screen: what the hits come from.
            floor: threshold to begin with.
            useful: least and largest cosine of a pair that is of use to a triple.
            strong: threshold that the floor may rise to.
        """
        units = screen.units
        self._floor, self._slack = floor, screen.slack + MARGIN
        self._least, self._most = useful[0] - self._slack, useful[1] + self._slack
        self._strong = strong
        self._budget = units.budget.edges
        self._parts: list[Hits] = []
        self._total = 0
        self._without_close = False
        self._crowded = torch.zeros(units.count, dtype=torch.bool, device=units.device)

    def add(self, hits: Hits) -> None:
        """Take the hits of one tile.

        Raises:
            TooDenseError: more strong edges than the budget.
        """
        hits = self._admit(Hits(hits.i.to(torch.int32), hits.j.to(torch.int32), hits.cosine))
        self._parts.append(hits)
        self._total += len(hits.i)
        if self._total > self._budget:
            self._shrink()

    def finish(self) -> Edges:
        """Return what was collected, in no useful order."""
        merged = self._merged()
        self._parts = []
        return Edges(merged.i, merged.j, merged.cosine, self._floor, self._crowded)

    def _merged(self) -> Hits:
        if not self._parts:
            empty = torch.empty(0, dtype=torch.int32, device=self._crowded.device)
            return Hits(empty, empty, empty.to(torch.float32))
        return Hits(*(torch.cat([part[axis] for part in self._parts]) for axis in (0, 1, 2)))

    def _admit(self, hits: Hits) -> Hits:
        magnitude = hits.cosine.abs()
        keep = magnitude >= self._floor - self._slack
        if self._without_close:
            close = (hits.cosine < self._least) | (hits.cosine > self._most)
            self._crowded[hits.i[close].long()] = True
            self._crowded[hits.j[close].long()] = True
            keep &= ~close
        return select(hits, keep)

    def _shrink(self) -> None:
        self._without_close = True
        hits = self._admit(self._merged())
        if len(hits.i) > self._budget // 2:
            magnitude = hits.cosine.abs()
            affordable = float(magnitude.kthvalue(len(magnitude) - self._budget // 2).values)
            self._floor = min(max(self._floor, affordable + self._slack), self._strong)
            hits = self._admit(hits)
        if len(hits.i) > self._budget:
            raise TooDenseError(f"more than {self._budget} strongly correlated pairs")
        self._parts, self._total = [hits], len(hits.i)


class Ranked(NamedTuple):
    """The listed entries of every row, largest |cosine| first."""

    row: Tensor
    """``[m]`` int32, ascending."""
    partner: Tensor
    """``[m]`` int32."""
    magnitude: Tensor
    """``[m]`` float32 estimates of |cosine| within `RANK_ERROR`, descending within a row."""
    rank: Tensor
    """``[m]`` int32: position within the row, from 0."""
    sizes: Tensor
    """``[n]`` int64: entries of each row."""
    floor: float
    """As of the edges."""
    crowded: Tensor
    """As of the edges."""


def rank_entries(edges: Edges, count: int) -> Ranked:
    """List the edges row by row (each edge in both its rows), largest first."""
    level = RANK_LEVELS - (edges.cosine.abs().clamp(max=1.0) * RANK_LEVELS).round_().to(torch.int32)
    apart = edges.i.device.type != "cpu" or 2 * len(edges.i) <= SORTED_APART
    sort = _sorted if apart else _sorted_in_place
    row, level, partner = sort(((edges.i, edges.j), (edges.j, edges.i)), level, count)
    magnitude = (RANK_LEVELS - level).to(torch.float32) / RANK_LEVELS
    sizes = torch.bincount(row, minlength=count)
    rank = torch.arange(len(row), dtype=torch.int32, device=row.device)
    rank -= torch.repeat_interleave((sizes.cumsum(0) - sizes).to(torch.int32), sizes)
    return Ranked(row, partner, magnitude, rank, sizes, edges.floor, edges.crowded)


_Ends = tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
"""Both ends of some edges, either first."""


def _sorted(ends: _Ends, level: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, levels and partners ``[2 m]`` int32 of m edges, by row and level.

    Keys take half the bytes where that is enough.
    """
    kind = torch.int32 if count.bit_length() + RANK_BITS < 32 else torch.int64
    keys = torch.cat([(row.to(kind) << RANK_BITS) + level for row, _ in ends])
    keys, order = keys.sort()
    partner = torch.cat([partner for _, partner in ends])[order]
    return (keys >> RANK_BITS).to(torch.int32), (keys & RANK_LEVELS).to(torch.int32), partner


def _sorted_in_place(ends: _Ends, level: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same of many, an entry packed in one integer, row above level above partner."""
    side = max(count.bit_length(), 1)
    shifted, above = level.long() << side, side + RANK_BITS
    keys = torch.cat([(row.long() << above) + shifted + partner for row, partner in ends])
    del shifted
    keys = sort_keys(keys)
    partner = (keys & ((1 << side) - 1)).to(torch.int32)
    keys >>= side
    level = (keys & RANK_LEVELS).to(torch.int32)
    keys >>= RANK_BITS
    return keys.to(torch.int32), level, partner


def sort_keys(keys: Tensor) -> Tensor:
    """Sort int64 ascending, many of them in place, where that is possible."""
    if keys.device.type != "cpu" or len(keys) <= SORTED_APART:
        return keys.sort().values
    keys.numpy().sort()
    return keys


def entries_of(ranked: Ranked, rows: Tensor) -> Tensor:
    """Positions ``[e]`` int64 of the listed entries of some rows ``[m]`` int64, row by row."""
    sizes = ranked.sizes[rows]
    ends = ranked.sizes.cumsum(0)[rows]
    # The last entry of each row is as far from its place here as all others of it.
    shift = torch.repeat_interleave(ends - sizes.cumsum(0), sizes)
    return torch.arange(len(shift), device=rows.device) + shift


def ends_of(ranked: Ranked, at: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and partners of the listed entries at ``[e]`` positions, int64."""
    return ranked.row[at].long(), ranked.partner[at].long()


def errors_of(ranked: Ranked, at: Tensor, quick: Screen) -> Tensor:
    """Bounds on the errors of the listed entries at ``[e]`` positions, each its own.

    Args:
        ranked: the list.
        at: int64.
        quick: the screen that the list came from.
    """
    return quick.off_by(*ends_of(ranked, at), ranked.magnitude[at]) + RANK_ERROR
