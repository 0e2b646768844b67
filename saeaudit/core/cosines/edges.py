"""The edges that triples are made of, from a sweep's hits, within a budget, and row by row.

Where a dictionary holds a huge cluster of near-duplicates, the list drops what no triple can use.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.sweep import Hits, select
from saeaudit.core.rows import UnitRows

RANK_ERROR = 2.0**-16
"""What ranking costs an estimate: it is kept as one of 65,536 levels."""


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
    """``[n]`` bool: rows some of whose near-duplicates were dropped."""


class EdgeStore:
    """Collects edges within a budget.

    When the budget is passed, near-duplicates go first (no genuine triple has one); then the floor
    rises, up to the strong floor: weak edges can be had again from whole rows, strong ones cannot.
    """

    def __init__(
        self,
        units: UnitRows,
        floor: float,
        slack: float,
        *,
        near: float,
        strong: float,
    ) -> None:
        self._floor, self._slack = floor, slack
        self._near, self._strong, self._budget = near + slack, strong, units.budget.edges
        self._parts: list[Hits] = []
        self._total = 0
        self._dropping = False
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
            none = torch.empty(0, dtype=torch.int32, device=self._crowded.device)
            return Hits(none, none, none.to(torch.float32))
        return Hits(*(torch.cat([part[axis] for part in self._parts]) for axis in (0, 1, 2)))

    def _admit(self, hits: Hits) -> Hits:
        magnitude = hits.cosine.abs()
        keep = magnitude >= self._floor - self._slack - 1e-6
        if self._dropping:
            near = magnitude > self._near
            self._crowded[hits.i[near].long()] = True
            self._crowded[hits.j[near].long()] = True
            keep &= ~near
        return select(hits, keep)

    def _shrink(self) -> None:
        self._dropping = True
        hits = self._admit(self._merged())
        if len(hits.i) > self._budget // 2:
            magnitude = hits.cosine.abs()
            wanted = float(magnitude.kthvalue(len(magnitude) - self._budget // 2).values)
            self._floor = min(max(self._floor, wanted + self._slack), self._strong)
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
    """List the edges row by row (each edge in both its rows), largest first.

    An entry is packed in one integer, row above level above partner, so that one sort in place
    orders them.
    """
    side = max(count.bit_length(), 1)
    level = 65535 - (edges.cosine.abs().clamp(max=1.0) * 65535).round_().long()
    level <<= side
    ends = ((edges.i, edges.j), (edges.j, edges.i))
    keys = torch.cat([(row.long() << (side + 16)) + level + partner for row, partner in ends])
    keys = sorted_in_place(keys)
    partner = (keys & ((1 << side) - 1)).to(torch.int32)
    keys >>= side
    magnitude = (65535 - (keys & 65535)).to(torch.float32) / 65535
    keys >>= 16
    row = keys.to(torch.int32)
    del keys
    sizes = torch.bincount(row, minlength=count)
    rank = torch.arange(len(row), dtype=torch.int32, device=row.device)
    rank -= torch.repeat_interleave((sizes.cumsum(0) - sizes).to(torch.int32), sizes)
    return Ranked(row, partner, magnitude, rank, sizes, edges.floor, edges.crowded)


def sorted_in_place(keys: Tensor) -> Tensor:
    """Sort int64 ascending, without a second copy where that is possible."""
    if keys.device.type != "cpu":
        return keys.sort().values
    keys.numpy().sort()
    return keys
