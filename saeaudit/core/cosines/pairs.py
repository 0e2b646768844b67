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
    """Collects the pairs with |cosine| >= tau from a sweep's hits."""

    def __init__(self, screen: Screen, tau: float) -> None:
        self._units, self._tau = screen.units, tau
        self._slack = screen.slack + MARGIN
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
        self._total += len(hits.i)
        self._listed.append(hits)
        if self._total > self._units.budget.pairs:
            self._overflow = True
            for part in self._listed:
                self._count(part)
            self._listed = []

    def finish(self) -> Pairs:
        """Refine what was listed, and return the pairs."""
        empty = torch.empty(0, dtype=torch.int64, device=self._units.device)
        i, j, cosine = empty, empty, empty.to(torch.float64)
        if not self._overflow and self._listed:
            i, j = (torch.cat([part[axis] for part in self._listed]) for axis in (0, 1))
            i, j, cosine = self._exact(i, j)
            order = torch.argsort(i * self._units.count + j)
            i, j, cosine = i[order], j[order], cosine[order]
            self._enter(i, j, cosine > 0)
        else:
            for part in self._listed:
                self._count(part)
        return Pairs(
            i, j, cosine, self._duplicates, self._antipodal, self._member, self._component,
            not self._overflow,
        )  # fmt: skip

    def _exact(self, i: Tensor, j: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        cosine = round9(self._units.cosines(i, j))
        hit = cosine.abs() >= self._tau
        return i[hit], j[hit], cosine[hit]

    def _count(self, hits: Hits) -> None:
        """Count pairs without listing them: only those within the slack of tau are refined."""
        certain = hits.cosine.abs() >= self._tau + self._slack
        sure, unsure = select(hits, certain), select(hits, ~certain)
        i, j, cosine = self._exact(unsure.i, unsure.j)
        self._enter(
            torch.cat([sure.i, i]), torch.cat([sure.j, j]), torch.cat([sure.cosine > 0, cosine > 0])
        )

    def _enter(self, i: Tensor, j: Tensor, same: Tensor) -> None:
        self._duplicates += int(same.sum())
        self._antipodal += int((~same).sum())
        self._member[i] = True
        self._member[j] = True
        join(self._component, i[same], j[same])


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
