"""Which of several codes each way of choosing takes, and by how many bits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.candidates import MEASURES, Candidates, Ranking, measures, removals, solve
from saeaudit.core.codes.codelength import Prices
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.sparse import Signatures
from saeaudit.core.codes.swaps import one_swaps
from saeaudit.core.rows import UnitRows
from saeaudit.records import Compare

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


class Decision(NamedTuple):
    """One token's choice."""

    compared: tuple[dict[str, Compare], ...]
    """At each width: the reference and the least alternative by each of `MEASURES`."""
    chosen: dict[str, int]
    """Candidate that each way of choosing takes, -1 for the reference; "bits", "l1", "l2",
    "error". Without "bits" where the reference has no price."""
    shortest: int
    """Candidate of fewest bits; -1 where none has a price."""
    margin: float | None
    resolved: bool


class Chooser:
    """Prices, and how decisions are made from them."""

    def __init__(self, units: UnitRows, prices: tuple[Prices, Prices, Prices], margin: float):
        self.units, self.prices, self.margin = units, prices, margin
        self.ranking = Ranking(prices[0])
        self.floor = prices[0].grid.anchor
        self._signatures = Signatures(units.count, units.device)

    def alternatives(
        self, fit: Fit, limit: Tensor, enter: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Candidates]:
        """One-swap alternatives within a limit, ``[B]``.

        Returns:
            How many there are ``[B]``; for each feature of the support that can be exchanged, the
            best row by error ``[B, k]`` (-1 where it cannot); ``[B, k]`` these errors; and the
            alternatives that were solved.
        """
        (swaps,) = one_swaps([fit], [limit[:, None]], enter)
        best = torch.where(swaps.passing[:, 0], swaps.feature, -1)
        place, row = self.ranking.rank(fit, limit, enter, CANDIDATES)
        own = torch.arange(best.shape[1], device=best.device).expand_as(best)
        place = torch.cat([place, torch.where(best >= 0, own, -1)], 1)
        return (
            swaps.count[:, 0],
            best,
            swaps.error,
            solve(fit, place, torch.cat([row, best], 1), limit, self.floor),
        )

    def decide(self, group: Group, found: Candidates) -> Iterator[Decision]:
        """One decision a token, in order."""
        reference = [measures(p, group.rows, group.codes) for p in self.prices]
        others = [measures(p, found.rows, found.codes) for p in self.prices]
        counts = torch.bincount(found.token, minlength=len(group.rows)).tolist()
        mine = self._signatures.of(group.rows, group.codes > 0).tolist()
        theirs = self._signatures.of(found.rows, found.codes > 0).tolist()
        flat = [[column.tolist() for column in width] for width in reference]
        wide = [[column.tolist() for column in width] for width in others]
        own_error, error = group.error.tolist(), found.error.tolist()
        start = 0
        for b, count in enumerate(counts):
            span = slice(start, start + count)
            yield _decision(
                [[column[b] for column in width] for width in flat],
                [[column[span] for column in width] for width in wide],
                own_error[b], error[span], mine[b], theirs[span], self.margin,
            )  # fmt: skip
            start += count

    def canonical(
        self, fit: Fit, group: Group, enter: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Go on exchanging and removing features while codes get shorter at no more error.

        Args:
            fit: targets on the reference's supports.
            group: the reference codes.
            enter: ``[n]`` bool: rows that may enter.

        Returns:
            ``[B]`` each: bits of the reference, bits of the code found, its number of active
            features, and the steps it took. Tokens whose reference has no price come out with it
            infinite.
        """
        prices = self.prices[0]
        first, _, _ = measures(prices, group.rows, group.codes)
        bits = first.clone()
        l0 = (group.codes > 0).sum(1)
        steps = torch.zeros_like(l0)
        left = torch.arange(len(first), device=first.device)
        rows, target, limit = group.rows, fit.target, group.error
        for _ in range(STEPS if rows.shape[1] else 0):
            here = Fit(Supports(self.units, rows[left]), target[left])
            place, row = self.ranking.rank(here, limit[left], enter, CANDIDATES // 4)
            both = [
                solve(here, place, row, limit[left], self.floor),
                removals(here, limit[left], self.floor),
            ]
            found = Candidates(*(torch.cat(pair) for pair in zip(*both, strict=True)))
            cost, _, _ = measures(prices, found.rows, found.codes)
            least = torch.full((len(left),), math.inf, dtype=cost.dtype, device=cost.device)
            least.scatter_reduce_(0, found.token, cost, "amin")
            better = least < bits[left] - ENOUGH
            winner = ((cost == least[found.token]) & better[found.token]).nonzero().squeeze(1)
            token = found.token[winner]
            rows = rows.clone()
            # Of equally short codes the last one written stands; which one does not matter.
            rows[left[token]] = torch.where(found.codes[winner] > 0, found.rows[winner], -1)
            bits[left[better]] = least[better]
            l0[left[better]] = (rows[left[better]] >= 0).sum(1)
            steps[left[better]] += 1
            left = left[better]
            if not len(left):
                break
        return first, bits, l0, steps


def _decision(
    reference: list[list[float]], others: list[list[list[float]]], own_error: float,
    error: list[float], mine: int, theirs: list[int], margin: float,
) -> Decision:  # fmt: skip
    compared, winners, margins = [], [], []
    for ref, columns in zip(reference, others, strict=True):
        compared.append(
            {
                name: Compare(_finite(ref[n]), _finite(min(columns[n], default=math.inf)))
                for n, name in enumerate(MEASURES)
            }
        )
        lengths: dict[int, float] = {}
        for signature, bits in zip((mine, *theirs), (ref[0], *columns[0]), strict=True):
            lengths[signature] = min(bits, lengths.get(signature, math.inf))
        ordered = sorted(lengths.items(), key=lambda item: item[1])
        winners.append(ordered[0][0])
        second = ordered[1][1] if len(ordered) > 1 else math.inf
        margins.append(second - ordered[0][1] if ordered[0][1] < math.inf else math.nan)
    priced = math.isfinite(reference[0][0])
    chosen = {
        "l1": _least(reference[0][1], others[0][1]),
        "l2": _least(reference[0][2], others[0][2]),
        "error": _least(own_error, error),
    }
    if priced:
        chosen["bits"] = _least(reference[0][0], others[0][0])
    alone = not any(math.isfinite(bits) for bits in others[0][0])
    return Decision(
        compared=tuple(compared),
        chosen=chosen,
        shortest=-1 if alone else min(range(len(theirs)), key=others[0][0].__getitem__),
        margin=margins[0] if math.isfinite(margins[0]) and theirs else None,
        resolved=priced and bool(theirs) and len(set(winners)) == 1
        and all(margin < m < math.inf for m in margins),
    )  # fmt: skip


def _least(reference: float, others: list[float]) -> int:
    """-1 for the reference, which wins ties, or the first of the least others."""
    best = min(range(len(others)), key=others.__getitem__, default=-1)
    return best if best >= 0 and others[best] < reference else -1


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
