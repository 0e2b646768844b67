"""Rows of which some swap is too close to a limit for estimates, set aside and decided together.

Of each step's rows these are few. What they take is made for many steps at once: closed forms in
float64 of their float32 estimates, and single inner products in float64.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.estimates import Columns, Estimates
from saeaudit.core.codes.signed import Undecided


class Totals(NamedTuple):
    """What is counted of rows of tokens, each ``[m, T]`` float32 but the last two ``[m]`` bool."""

    nonnegative: Tensor
    """Swaps with codes >= 0."""
    unsigned: Tensor
    """Swaps with codes of either sign."""
    as_now: Tensor
    """Whether adding the row to the support's code leaves its features as they are."""
    unsure: Tensor
    """Whether that is open."""


class Few(NamedTuple):
    """What is to be decided of rows set aside: their numbers, limits and places, ``[m]`` int64."""

    n: Tensor
    t: Tensor
    i: Tensor


class Decisions(NamedTuple):
    """What is to be decided."""

    unsigned: Few
    """Swaps with codes of either sign near limits."""
    nonnegative: Few
    """Swaps with codes >= 0 near limits."""
    signs: Few
    """Slopes close to zero, of features that can go, whatever the limit."""


@dataclass
class Aside:
    """Rows set aside, and what is to be decided of them."""

    columns: list[Columns] = field(default_factory=list)
    totals: list[Totals] = field(default_factory=list)
    unsigned: list[Few] = field(default_factory=list)
    nonnegative: list[Few] = field(default_factory=list)
    signs: list[Few] = field(default_factory=list)
    """What is to be decided of them, as in `Decisions`."""
    held: int = 0
    """Rows."""

    def add(self, rows: Estimates, chosen: Tensor, totals: Totals) -> Tensor:
        """Set rows ``chosen [B, c]`` bool aside.

        Args:
            rows: all of one step.
            chosen: which.
            totals: of all of them, ``[B, T, c]`` and ``[B, c]``.

        Returns:
            Their numbers ``[B, c]``, -1 where a row is not chosen.
        """
        b, c = chosen.nonzero().unbind(1)
        number = torch.full_like(chosen, -1, dtype=torch.int64)
        number[b, c] = torch.arange(self.held, self.held + len(b), device=b.device)
        self.columns.append(rows.columns(b, c))
        by_limit = (counts[b, :, c] for counts in totals[:2])
        self.totals.append(Totals(*by_limit, *(flags[b, c] for flags in totals[2:])))
        self.held += len(b)
        return number

    @staticmethod
    def note(few: list[Few], number: Tensor, undecided: Undecided) -> None:
        """Note what is to be decided of rows that have numbers."""
        b, t, i, c = undecided
        n = number[b, c]
        at = (n >= 0).nonzero().squeeze(1)
        few.append(Few(n[at], t[at], i[at]))

    def take(self) -> tuple[Columns, Totals, Decisions]:
        """All, by token, and what is to be decided of them."""
        columns = Columns.join(self.columns)
        order = columns.token.argsort(stable=True)
        number = torch.empty_like(order)
        number[order] = torch.arange(len(order), device=order.device)
        totals = Totals(*(torch.cat(parts)[order] for parts in zip(*self.totals, strict=True)))
        decisions = []
        for parts in (self.unsigned, self.nonnegative, self.signs):
            n, t, i = (torch.cat(fields) for fields in zip(*parts, strict=True))
            decisions.append(Few(number[n], t, i))
        return columns.at(order), totals, Decisions(*decisions)
