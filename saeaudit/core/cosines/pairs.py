"""Duplicate and antipodal pairs from a sweep's hits.

Where a dictionary holds a huge cluster of near-duplicates, the pairs are counted exactly without
being listed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.screen import Screen
from saeaudit.core.cosines.sweep import Hits, select
from saeaudit.core.rows import MARGIN, round9


class Pairs(NamedTuple):
    """All pairs of rows with |cosine| >= tau."""

    i: Tensor
    """``[m]`` int64; empty where the pairs were only counted."""
    j: Tensor
    """``[m]`` int64, i < j; sorted by (i, j)."""
    cosine: Tensor
    """``[m]`` float64, exact, rounded to 9 significant digits."""
    duplicates: int
    """Number of pairs with cosine >= tau, listed or not."""
    antipodal: int
    """Number of pairs with cosine <= -tau, listed or not."""
    member: Tensor
    """``[n]`` bool: rows in some pair."""
    component: Tensor
    """``[n]`` int64: the least row number reachable through duplicates."""
    listed: bool
    """Whether i, j and cosine hold every pair."""

    def cpu(self) -> Pairs:
        """The same on the CPU."""
        tensors = (self.i.cpu(), self.j.cpu(), self.cosine.cpu())
        rows = (self.member.cpu(), self.component.cpu())
        return Pairs(*tensors, self.duplicates, self.antipodal, *rows, self.listed)


class PairFinder:
    """Collects the pairs with |cosine| >= tau from a sweep's hits.

    Whether they are listed depends on how many pairs there are, not on how many hits.
    """

    def __init__(self, screen: Screen, tau: float) -> None:
        self._units, self._tau = screen.units, tau
        self._slack = screen.slack + MARGIN
        self._fresh: list[Hits] = []
        self._waiting = 0
        self._listed: list[Hits] = []
        self._total = 0
        self._overflow = False
        self._duplicates = 0
        self._antipodal = 0
        count, device = self._units.count, self._units.device
        self._member = torch.zeros(count, dtype=torch.bool, device=device)
        self._component = torch.arange(count, device=device)

    def add(self, hits: Hits) -> None:
        """Take the hits of one tile; those certainly below tau are passed over."""
        hits = select(hits, hits.cosine.abs() >= self._tau - self._slack)
        if not len(hits.i):
            return
        if self._overflow:
            self._enter(self._pairs_of(hits))
            return
        self._fresh.append(hits)
        self._waiting += len(hits.i)
        if self._total + self._waiting > self._units.budget.pairs:
            self._decide()

    def _decide(self) -> None:
        """Leave out fresh hits that are no pairs; where too many are, count them all instead."""
        for hits in self._fresh:
            pairs = self._pairs_of(hits)
            self._listed.append(pairs)
            self._total += len(pairs.i)
        self._fresh, self._waiting = [], 0
        if self._total > self._units.budget.pairs:
            self._overflow = True
            for pairs in self._listed:
                self._enter(pairs)
            self._listed = []

    def finish(self) -> Pairs:
        """Refine what was listed, and return the pairs."""
        parts = self._listed + self._fresh
        empty = torch.empty(0, dtype=torch.int64, device=self._units.device)
        i, j, cosine = empty, empty, empty.to(torch.float64)
        if parts:
            i, j = (torch.cat([part[axis] for part in parts]) for axis in (0, 1))
            i, j, cosine = self._exact(i, j)
            order = torch.argsort(i * self._units.count + j)
            i, j, cosine = i[order], j[order], cosine[order]
            self._enter(Hits(i, j, cosine))
        return Pairs(
            i, j, cosine, self._duplicates, self._antipodal, self._member, self._component,
            not self._overflow,
        )  # fmt: skip

    def _exact(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cosine = round9(self._units.cosines(i, j))
        hit = cosine.abs() >= self._tau
        return i[hit], j[hit], cosine[hit]

    def _pairs_of(self, hits: Hits) -> Hits:
        """The hits that are pairs: only those within the slack of tau are refined."""
        certain = hits.cosine.abs() >= self._tau + self._slack
        sure, unsure = select(hits, certain), select(hits, ~certain)
        refined = self._exact(unsure.i, unsure.j)
        return Hits(*(torch.cat(columns) for columns in zip(sure, refined, strict=True)))

    def _enter(self, pairs: Hits) -> None:
        """Count pairs, by the signs of their cosines."""
        same = pairs.cosine > 0
        self._duplicates += int(same.sum())
        self._antipodal += int((~same).sum())
        self._member[pairs.i] = True
        self._member[pairs.j] = True
        join(self._component, pairs.i[same], pairs.j[same])


def join(component: Tensor, i: Tensor, j: Tensor) -> None:
    """Merge components in place so that every label is the least member's number.

    Args:
        component: ``[n]`` int64 labels, each pointing at a member that points at itself.
        i, j: ``[m]`` int64 members to be joined.
    """
    while True:
        a, b = component[i], component[j]
        apart = a != b
        if not bool(apart.any()):
            return
        i, j, a, b = i[apart], j[apart], a[apart], b[apart]
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        component.scatter_reduce_(0, high, low, "amin")
        while True:
            jumped = component[component]
            if torch.equal(jumped, component):
                break
            component.copy_(jumped)
