"""Which of several codes each way of choosing takes, by how many bits, and how surely."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.candidates import (
    MEASURES,
    Candidates,
    cheapest_codes,
    closest_codes,
    measures,
)
from saeaudit.core.codes.cheapest import GAIN, LISTED, SOLVED, Measure, Search
from saeaudit.core.codes.codelength import Prices
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.lengths import Lengths
from saeaudit.core.codes.norms import Norms, Squares, Sums
from saeaudit.core.codes.resamples import Resampled
from saeaudit.core.codes.sparse import Signatures
from saeaudit.core.codes.swaps import one_swaps
from saeaudit.core.rows import UnitRows
from saeaudit.vocabulary import NEAR, Choice

SURE = 0.95
"""Least share of the resamples in which a choice that is resolved comes out."""


class Group(NamedTuple):
    """Tokens with their reference codes."""

    rows: Tensor
    """``[B, k]`` int64 live rows, -1 at empty places."""
    codes: Tensor
    """``[B, k]`` float64 unit-row codes."""
    error: Tensor
    """``[B]`` squared errors."""


class Proof(NamedTuple):
    """What is known of the codes that were not solved for."""

    solved: list[int]
    """Rows that enter of which the shortest code was solved for, for each token."""
    gap: list[float]
    """What rows that were not solved for could still save, in bits."""


class Alternatives(NamedTuple):
    """One-swap alternatives of a group of tokens."""

    counts: Tensor
    """``[B]`` int64: how many there are."""
    best: Tensor
    """``[B, k]`` int64: the row that replaces each feature of the support with the least error;
    -1 where none can."""
    candidates: Candidates
    """The cheapest of them, and of the supports' own codes."""
    proof: Proof


class Compared(NamedTuple):
    """A measure of three kinds of codes; None where it has no finite value."""

    reference: float | None
    support: float | None
    """Least with no feature on but the reference's."""
    alternative: float | None
    """Least with another."""


class Decision(NamedTuple):
    """One token's choice; candidates are numbered, the reference is -1."""

    compared: tuple[dict[str, Compared], ...]
    """At each width: by each of `MEASURES`."""
    picks: dict[str, int]
    """What each way of choosing takes: "bits", "l1", "l2", "error". Without "bits" where the
    reference has no price."""
    chosen: Choice | None
    """What description length takes."""
    support: int | None
    """The shortest code of the reference's features or fewer; None where none has a price."""
    shortest: int | None
    """The shortest with another feature; None where none has a price."""
    margin: float | None
    """Bits by which the shortest code leads all of other features; None where there is no other."""
    wins: float | None
    """Least share, over the widths, of resamples in which its features are the shortest."""
    resolved: bool | None
    """Whether they are at every width, lead by more than the margin, and win surely."""


class _Codes(NamedTuple):
    """One token's codes, the reference first in each list."""

    widths: list[list[list[float]]]
    """At each width of the bins, for each of `MEASURES`."""
    errors: list[float]
    signatures: list[int]
    """Equal where the same features are active."""
    others: list[bool]
    """Whether a feature is on that is not the reference's."""
    priced: list[bool]
    resampled: list[Tensor]
    """``[c, R]`` bits at each width; empty where nothing can be resampled."""


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
    >>> on_first = Candidates(row, row, row[None], value, error, row == 0)
    >>> (decision,) = Chooser(units, prices, margin=1.0).decide(on_second, on_first)
    >>> decision.chosen, round(decision.margin, 2), decision.resolved
    ('other', 3.58, None)
    """

    def __init__(
        self, units: UnitRows, prices: tuple[Prices, Prices, Prices], margin: float,
        resampled: Sequence[Resampled] = (),
    ) -> None:  # fmt: skip
        """Take prices at the common width of bins, at half and at a quarter of it.

        Args:
            units: live rows.
            prices: of codes in these rows.
            margin: bits by which the shortest code must lead to be resolved.
            resampled: the same by resamples of what they were fitted on, or none: then nothing is
                resolved.
        """
        self.units, self.prices, self.margin = units, prices, margin
        self.window = max(NEAR, margin)
        self._resampled = resampled
        self._signatures = Signatures(units.count, units.device)

    @cached_property
    def lengths(self) -> Lengths:
        """Bits at the common width, to search by."""
        return Lengths(self.prices[0])

    def alternatives(
        self, fit: Fit, group: Group, enter: Tensor, *, norms: bool = True
    ) -> Alternatives:
        """One-swap alternatives no less accurate than the reference.

        Args:
            fit: targets on the reference's supports.
            group: the reference codes.
            enter: ``[n]`` bool: rows that may enter.
            norms: whether to search for the codes of least L1 and L2 too.
        """
        reference = group.codes, group.error
        wanted: list[Measure] = [self.lengths]
        if norms:
            wanted += [Norms(self.lengths.floor, cost) for cost in (Sums, Squares)]
        searches = [Search(fit, reference, measure) for measure in wanted]
        (swaps,) = one_swaps([fit], [group.error[:, None]], enter, searches=searches)
        shortest = searches[0].result(window=self.window, most=SOLVED)
        parts = [cheapest_codes(shortest, LISTED, priced=True), closest_codes(fit, swaps)]
        least_norms = (search.result(most=SOLVED) for search in searches[1:])
        parts += [cheapest_codes(least, 1, priced=False) for least in least_norms]
        return Alternatives(
            swaps.count[:, 0],
            torch.where(swaps.passing[:, 0], swaps.feature, -1),
            Candidates.joined(parts),
            Proof(shortest.solved.tolist(), shortest.gap.tolist()),
        )

    def decide(
        self, group: Group, candidates: Candidates, *, norms: bool = True,
        window: float = math.inf,
    ) -> Iterator[Decision]:  # fmt: skip
        """Choose for each token of a group, in order, between its reference and its candidates.

        Args:
            group: the reference codes.
            candidates: of these.
            norms: whether those of least L1 and L2 are among them.
            window: bits from the shortest within which they are all there is.
        """
        references = [_columns(measures(p, group.rows, group.codes)) for p in self.prices]
        others = [_columns(measures(p, candidates.rows, candidates.codes)) for p in self.prices]
        again = [
            (r.codes(group.rows, group.codes), r.codes(candidates.rows, candidates.codes))
            for r in self._resampled
        ]
        errors, other_errors = group.error.tolist(), candidates.error.tolist()
        signatures = self._signatures.of(group.rows, group.codes > 0).tolist()
        other_signatures = self._signatures.of(candidates.rows, candidates.codes > 0).tolist()
        new, priced = (candidates.row >= 0).tolist(), candidates.priced.tolist()
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
                [False, *new[of_token]],
                [True, *priced[of_token]],
                [torch.cat([first[n, None], more[of_token]]) for first, more in again],
            )
            yield self._decide(codes, norms, window)

    def _decide(self, codes: _Codes, norms: bool, window: float) -> Decision:
        bits, l1, l2 = codes.widths[0]
        competing = [n for n, priced in enumerate(codes.priced) if priced]
        signatures = [codes.signatures[n] for n in competing]
        lengths = [[columns[0][n] for n in competing] for columns in codes.widths]
        winners, leads = zip(*(_winner(signatures, column) for column in lengths), strict=True)
        picks = {"error": _least(codes.errors)}
        if norms:
            picks |= {"l1": _least(l1), "l2": _least(l2)}
        known = math.isfinite(bits[0])
        chosen: Choice | None = None
        if known:
            picks["bits"] = best = _least([bits[n] if codes.priced[n] else math.inf
                                           for n in range(len(bits))])  # fmt: skip
            chosen = "encoder" if best < 0 else "other" if codes.others[best + 1] else "support"
        wins = None
        if codes.resampled and known and len(competing) > 1:
            wins = min(
                _share(signatures, table[competing], winners[0]) for table in codes.resampled
            )
        lead = min(leads[0], window)
        return Decision(
            compared=tuple(_compared(columns, codes, norms) for columns in codes.widths),
            picks=picks,
            chosen=chosen,
            support=_shortest(bits, codes, other=False),
            shortest=_shortest(bits, codes, other=True),
            margin=lead if len(set(signatures)) > 1 and math.isfinite(lead) else None,
            wins=wins,
            resolved=None if wins is None else wins >= SURE and len(set(winners)) == 1
            and all(self.margin < ahead < math.inf for ahead in leads),
        )  # fmt: skip


def _columns(measured: tuple[Tensor, ...]) -> list[list[float]]:
    return [column.tolist() for column in measured]


def _compared(columns: list[list[float]], codes: _Codes, norms: bool) -> dict[str, Compared]:
    """The reference, its support and others by each measure at one width.

    Codes searched for by description length say nothing of the least L1 and L2.
    """
    out = {}
    for name, column in zip(MEASURES, columns, strict=True):
        kinds = {False: math.inf, True: math.inf}
        for n in range(1, len(column)):
            if codes.priced[n] if name == "bits" else norms:
                kinds[codes.others[n]] = min(kinds[codes.others[n]], column[n])
        out[name] = Compared(_finite(column[0]), _finite(kinds[False]), _finite(kinds[True]))
    return out


def _shortest(bits: list[float], codes: _Codes, *, other: bool) -> int | None:
    """The candidate of fewest bits with another feature on, or with none."""
    of_kind = [n for n in range(1, len(bits))
               if codes.priced[n] and codes.others[n] == other and bits[n] < math.inf]  # fmt: skip
    return min(of_kind, key=bits.__getitem__) - 1 if of_kind else None


def _winner(signatures: Sequence[int], lengths: Sequence[float]) -> tuple[int, float]:
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


def _share(signatures: Sequence[int], bits: Tensor, winner: int) -> float:
    """Share of resamples ``[c, R]`` in which a code with the winner's features is the shortest."""
    same = torch.tensor([signature == winner for signature in signatures], device=bits.device)
    return float(same[bits.argmin(0)].double().mean())


def _least(column: list[float]) -> int:
    """-1 for the reference, which stands first and wins ties, or the least other's number."""
    least = min(range(len(column)), key=column.__getitem__)
    return -1 if column[0] - column[least] <= GAIN * column[0] else least - 1


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
