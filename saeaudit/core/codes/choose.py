"""Which of several codes each way of choosing takes, and by how many bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.candidates import MEASURES, Candidates, Ranking, measures, removals, solve
from saeaudit.core.codes.codelength import Prices
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.sparse import Signatures
from saeaudit.core.codes.swaps import one_swaps
from saeaudit.core.rows import UnitRows

CANDIDATES = 64
"""Alternatives of a token that are solved and priced, of those that an estimate puts first."""
STEPS = 100
"""Most exchanges and removals when looking for the canonical code."""
ENOUGH = 1e-6
"""Bits by which a code must be shorter to replace another."""


class Group(NamedTuple):
    """Tokens with their reference codes."""

    rows: Tensor
    """``[B, k]`` int64 live rows, -1 at empty places."""
    codes: Tensor
    """``[B, k]`` float64 unit-row codes."""
    error: Tensor
    """``[B]`` squared errors."""


class Alternatives(NamedTuple):
    """One-swap alternatives of a group of tokens."""

    counts: Tensor
    """``[B]`` int64: how many there are."""
    best: Tensor
    """``[B, k]`` int64: the row that replaces each feature of the support with the least error;
    -1 where none can."""
    candidates: Candidates
    """Those that were solved."""


class CanonicalCodes(NamedTuple):
    """What exchanging on made of a group of codes, ``[B]`` each."""

    bits_before: Tensor
    """Bits of the reference; infinite where it has no price."""
    bits: Tensor
    """Bits of the shortest code reached."""
    l0: Tensor
    """Its active features."""
    steps: Tensor
    """Exchanges and removals that led to it."""


class Compared(NamedTuple):
    """A measure of two codes; None where it has no finite value."""

    reference: float | None
    alternative: float | None


class Decision(NamedTuple):
    """One token's choice."""

    compared: tuple[dict[str, Compared], ...]
    """At each width: the reference and the least alternative by each of `MEASURES`."""
    chosen: dict[str, int]
    """Candidate that each way of choosing takes, -1 for the reference; "bits", "l1", "l2",
    "error". Without "bits" where the reference has no price."""
    shortest: int
    """Candidate of fewest bits; -1 where none has a price."""
    margin: float | None
    """Bits by which the shortest code leads all others; None where there is no other."""
    resolved: bool
    """Whether it is the same at every width, and leads by more than the margin asked for."""


class _Codes(NamedTuple):
    """One token's codes by every measure, the reference's first in each list."""

    widths: list[list[list[float]]]
    """At each width of the bins, for each of `MEASURES`."""
    errors: list[float]
    signatures: list[int]
    """Equal where the same features are active."""


class Chooser:
    """Prices, and how decisions are made from them.

    Two orthogonal rows; the first fires ten times as often as the second. The same value is shorter
    to say on the first:

    >>> from saeaudit.core.codes.codelength import Counts
    >>> from saeaudit.core.codes.quantise import Grid
    >>> ones = torch.ones(2, dtype=torch.float64)
    >>> units = UnitRows(torch.eye(2), torch.arange(2), ones)
    >>> counts = Counts(Grid(0.5, 0 * ones))
    >>> counts.add(torch.tensor([0] * 50 + [1] * 5), torch.ones(55).double(), 200, half=0)
    >>> prices = Prices(counts, 4), Prices(counts, 2), Prices(counts, 1)
    >>> row, value, error = torch.tensor([0]), ones[:1, None], 0 * ones[:1]
    >>> on_second = Group(row[None] + 1, value, error)
    >>> on_first = Candidates(row, row, row, row[None], value, error)
    >>> (decision,) = Chooser(units, prices, margin=1.0).decide(on_second, on_first)
    >>> decision.chosen["bits"], decision.resolved, round(decision.margin, 2)
    (0, True, 3.58)
    """

    def __init__(self, units: UnitRows, prices: tuple[Prices, Prices, Prices], margin: float):
        """Take prices at the common width of bins, at half and at a quarter of it.

        Args:
            units: live rows.
            prices: of codes in these rows.
            margin: bits by which the shortest code must lead to be resolved.
        """
        self.units, self.prices, self.margin = units, prices, margin
        self.floor = prices[0].grid.anchor
        self._signatures = Signatures(units.count, units.device)

    @cached_property
    def _ranking(self) -> Ranking:
        return Ranking(self.prices[0])

    def alternatives(self, fit: Fit, limit: Tensor, enter: Tensor) -> Alternatives:
        """One-swap alternatives within limits on the squared error.

        Args:
            fit: targets on the reference's supports.
            limit: ``[B]`` largest squared errors.
            enter: ``[n]`` bool: rows that may enter.
        """
        (swaps,) = one_swaps([fit], [limit[:, None]], enter)
        best = torch.where(swaps.passing[:, 0], swaps.feature, -1)
        place, row = self._ranking.rank(fit, limit, enter, CANDIDATES)
        places = torch.arange(best.shape[1], device=best.device).expand_as(best)
        place = torch.cat([place, torch.where(best >= 0, places, -1)], 1)
        candidates = solve(fit, place, torch.cat([row, best], 1), limit, self.floor)
        return Alternatives(swaps.count[:, 0], best, candidates)

    def decide(self, group: Group, candidates: Candidates) -> Iterator[Decision]:
        """Choose for each token of a group, in order, between its reference and its candidates."""
        references = [_columns(measures(p, group.rows, group.codes)) for p in self.prices]
        others = [_columns(measures(p, candidates.rows, candidates.codes)) for p in self.prices]
        errors, other_errors = group.error.tolist(), candidates.error.tolist()
        signatures = self._signatures.of(group.rows, group.codes > 0).tolist()
        other_signatures = self._signatures.of(candidates.rows, candidates.codes > 0).tolist()
        start = 0
        counts = torch.bincount(candidates.token, minlength=len(group.rows)).tolist()
        for n, count in enumerate(counts):
            of_token = slice(start, start + count)
            start += count
            codes = _Codes(
                [
                    [[column[n], *more[of_token]] for column, more in zip(*columns, strict=True)]
                    for columns in zip(references, others, strict=True)
                ],
                [errors[n], *other_errors[of_token]],
                [signatures[n], *other_signatures[of_token]],
            )
            yield _decide(codes, self.margin)

    def canonical(self, fit: Fit, group: Group, enter: Tensor) -> CanonicalCodes:
        """Go on exchanging and removing features while codes get shorter at no more error.

        Args:
            fit: targets on the reference's supports.
            group: the reference codes.
            enter: ``[n]`` bool: rows that may enter.
        """
        prices = self.prices[0]
        before, _, _ = measures(prices, group.rows, group.codes)
        bits = before.clone()
        l0 = (group.codes > 0).sum(1)
        steps = torch.zeros_like(l0)
        rows, target, limit = group.rows, fit.target, group.error
        shrinking = torch.arange(len(before), device=before.device)
        for _ in range(STEPS if rows.shape[1] else 0):
            fits = Fit(Supports(self.units, rows[shrinking]), target[shrinking])
            candidates = self._next_codes(fits, limit[shrinking], enter)
            cost, _, _ = measures(prices, candidates.rows, candidates.codes)
            least = torch.full((len(shrinking),), math.inf, dtype=cost.dtype, device=cost.device)
            least.scatter_reduce_(0, candidates.token, cost, "amin")
            better = least < bits[shrinking] - ENOUGH
            winner = (cost == least[candidates.token]) & better[candidates.token]
            winner = winner.nonzero().squeeze(1)
            token = candidates.token[winner]
            rows = rows.clone()
            # Of equally short codes the last one written stands; which one does not matter.
            rows[shrinking[token]] = torch.where(
                candidates.codes[winner] > 0, candidates.rows[winner], -1
            )
            shrinking = shrinking[better]
            bits[shrinking] = least[better]
            l0[shrinking] = (rows[shrinking] >= 0).sum(1)
            steps[shrinking] += 1
            if not len(shrinking):
                break
        return CanonicalCodes(before, bits, l0, steps)

    def _next_codes(self, fit: Fit, limit: Tensor, enter: Tensor) -> Candidates:
        """Codes one exchange or one removal away."""
        place, row = self._ranking.rank(fit, limit, enter, CANDIDATES // 4)
        swapped = solve(fit, place, row, limit, self.floor)
        fewer = removals(fit, limit, self.floor)
        return Candidates(*(torch.cat(pair) for pair in zip(swapped, fewer, strict=True)))


def _columns(measured: tuple[Tensor, ...]) -> list[list[float]]:
    return [column.tolist() for column in measured]


def _decide(codes: _Codes, margin: float) -> Decision:
    leads, winners = [], []
    for lengths, *_ in codes.widths:
        winner, lead = _winner(codes.signatures, lengths)
        winners.append(winner)
        leads.append(lead)
    bits, l1, l2 = codes.widths[0]
    priced = math.isfinite(bits[0])
    others = bits[1:]
    chosen = {"l1": _least(l1), "l2": _least(l2), "error": _least(codes.errors)}
    if priced:
        chosen["bits"] = _least(bits)
    return Decision(
        compared=tuple(
            {
                name: Compared(_finite(column[0]), _finite(min(column[1:], default=math.inf)))
                for name, column in zip(MEASURES, columns, strict=True)
            }
            for columns in codes.widths
        ),
        chosen=chosen,
        shortest=min(range(len(others)), key=others.__getitem__)
        if any(map(math.isfinite, others)) else -1,
        margin=leads[0] if math.isfinite(leads[0]) and others else None,
        resolved=priced and bool(others) and len(set(winners)) == 1
        and all(margin < lead < math.inf for lead in leads),
    )  # fmt: skip


def _winner(signatures: list[int], lengths: list[float]) -> tuple[int, float]:
    """Signature of the shortest code, and the bits by which it leads codes of other features.

    The lead is infinite where there are none, NaN where no code has a length.
    """
    shortest: dict[int, float] = {}
    for signature, bits in zip(signatures, lengths, strict=True):
        shortest[signature] = min(bits, shortest.get(signature, math.inf))
    ordered = sorted(shortest.items(), key=lambda item: item[1])
    winner, least = ordered[0]
    second = ordered[1][1] if len(ordered) > 1 else math.inf
    return winner, second - least if least < math.inf else math.nan


def _least(column: list[float]) -> int:
    """-1 for the reference, which stands first and wins ties, or the least other's number."""
    return min(range(len(column)), key=column.__getitem__) - 1


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
