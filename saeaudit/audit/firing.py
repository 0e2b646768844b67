"""How the features of a scan's findings fire on the activations that a run looks at anyway."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import Active
from saeaudit.core.claim import nearest_others
from saeaudit.core.codes.codelength import Prices
from saeaudit.core.firing import LARGEST, Firing, Share
from saeaudit.core.rows import UnitRows, spans
from saeaudit.records import (
    ClaimRecord,
    Code,
    FiringRecord,
    Interval,
    Magnitudes,
    PairRecord,
    Record,
    TripleRecord,
    Typical,
)
from saeaudit.vocabulary import Parts

CELLS = 1 << 21
"""Entries of decoder rows that exchanges are computed on at once."""

Labels = tuple[str | None, ...] | None
"""What is said of each feature of a set."""


class Exchanges(NamedTuple):
    """For each of s sets a code of all but one of its features, and the nearest with that one."""

    tokens: Tensor
    """``[s]`` int64: tokens that have these features on, and not the other; 0 where there is no
    such exchange."""
    codes: Tensor
    """``[2, s, 3]`` float64: unit-row codes z and z', 0 beyond a set's last feature."""
    difference: Tensor
    """``[s]`` float64: as in a `Typical` record; NaN where it is not defined."""


def watched_sets(
    records: Iterable[Record], others: Iterable[tuple[int, ...]] = ()
) -> dict[tuple[int, ...], Labels]:
    """Features of pairs, triples and claims, with their labels: what is watched.

    Args:
        records: a scan's, checked; a group has no exchange of its own, and its pairs are listed.
        others: further sets of features.
    """
    sets: dict[tuple[int, ...], Labels] = {
        record.features: record.labels
        for record in records
        if isinstance(record, (PairRecord, TripleRecord, ClaimRecord))
        and len(record.features) in (2, LARGEST)
    }
    for features in others:
        if len(features) in (2, LARGEST):
            sets.setdefault(features, None)
    return dict(sorted(sets.items(), key=lambda item: (len(item[0]), item[0])))


class FiringTally:
    """Counts codes, and makes a record of each set of features."""

    def __init__(
        self, sae: str, units: UnitRows, sets: Mapping[tuple[int, ...], Labels], part: Tensor,
        drawn_by: Parts,
    ) -> None:  # fmt: skip
        """Begin.

        Args:
            sae: the SAE's id.
            units: its live rows.
            sets: two or three live features each, with their labels.
            part: ``[N]`` int64: the document or block of each activation.
            drawn_by: which of the two.
        """
        self._sae, self._units, self._sets, self._drawn_by = sae, units, sets, drawn_by
        live = units.live.cpu()
        rows = [tuple(torch.searchsorted(live, torch.tensor(f)).tolist()) for f in sets]
        self._norms = units.norms.cpu()
        self._firing = Firing(rows, units.count, part)

    def add(self, tokens: Tensor, active: Active) -> None:
        """Count tokens ``[B]`` int64, each once, and what is active on them."""
        if self._sets:
            place, row, code = (column.cpu() for column in active)
            self._firing.add(tokens, place, row, code / self._norms[row])

    def tables(self) -> dict[tuple[int, ...], Tensor]:
        """Features → tokens so far by their on/off pattern, ``[2^m]`` float64, p-th for bit p."""
        counted = self._firing.counted().double()
        return {f: table[: 2 ** len(f)] for f, table in zip(self._sets, counted, strict=True)}

    def records(self, prices: Prices | None = None) -> Iterator[FiringRecord]:
        """A record of each set; none where no token was counted.

        Args:
            prices: what codes cost in bits; None where that is not known.
        """
        if not self._firing.tokens:
            return
        rates, counts = self._firing.rates(), self._firing.histograms.counts
        widths = self._firing.histograms.widths.tolist()
        together, chance, ratio = self._firing.together()
        patterns = self._firing.counted().tolist()
        exchanges = self._exchanges()
        bits = self._bits(exchanges, prices)
        for number, (features, labels) in enumerate(self._sets.items()):
            columns = self._firing.columns[number, : len(features)].tolist()
            fired = [int(counts[column].sum()) > 0 for column in columns]
            yield FiringRecord(
                sae=self._sae,
                features=features,
                tokens=self._firing.tokens,
                drawn_by=self._drawn_by,
                rates=tuple(float(rates.value[column]) for column in columns),
                rate_intervals=tuple(_interval(rates, column) for column in columns),
                patterns=tuple(patterns[number][: 2 ** len(features)]),
                together=float(together.value[number]),
                together_interval=_interval(together, number),
                together_chance=float(chance[number]),
                ratio=float(ratio.value[number]) if all(fired) else None,
                ratio_interval=_interval(ratio, number),
                magnitudes=tuple(
                    Magnitudes(widths[column], tuple(counts[column].tolist())) if fires
                    else Magnitudes(None, ())
                    for column, fires in zip(columns, fired, strict=True)
                ),
                typical=self._typical(number, exchanges, bits),
                labels=labels,
            )  # fmt: skip

    def _exchanges(self) -> Exchanges:
        """Of each set the exchange that most tokens might make."""
        count = len(self._sets)
        exchanges = Exchanges(
            torch.zeros(count, dtype=torch.int64),
            torch.zeros(2, count, LARGEST, dtype=torch.float64),
            torch.full((count,), torch.nan, dtype=torch.float64),
        )
        sizes = torch.tensor([len(features) for features in self._sets])
        for size in (2, LARGEST):
            of_size = (sizes == size).nonzero().squeeze(1)
            step = max(1, CELLS // (size * self._units.width))
            for start, stop in spans(len(of_size), step):
                self._fill(exchanges, of_size[start:stop], size)
        return exchanges

    def _fill(self, exchanges: Exchanges, sets: Tensor, size: int) -> None:
        """Find the exchanges of sets ``[n]`` of one size, by how many tokens might make them."""
        rows = torch.tensor([self._firing.sets[number] for number in sets.tolist()])
        norms = self._norms[rows]
        raw = self._units.raw(rows.view(-1).to(self._units.device)).cpu()
        unit_rows = raw.view(len(sets), size, -1) / norms[:, :, None]
        patterns = 2**size - 1 - 2 ** torch.arange(size)
        counts = self._firing.patterns[sets][:, patterns]
        for pattern in patterns[counts.argsort(dim=1, descending=True, stable=True)].unbind(1):
            tokens = self._firing.patterns[sets, pattern]
            waiting = ((exchanges.tokens[sets] == 0) & (tokens > 0)).nonzero().squeeze(1)
            mean = self._firing.sums[sets, pattern][waiting, :size] / tokens[waiting, None]
            z = mean * norms[waiting]
            scale = z.amax(1, keepdim=True)
            others = nearest_others(unit_rows[waiting], z / scale)
            enters = ((others.codes > 0) & (z == 0)).any(1)
            at = sets[waiting[enters]]
            exchanges.tokens[at] = tokens[waiting[enters]]
            exchanges.codes[0, at, :size] = z[enters]
            exchanges.codes[1, at, :size] = (others.codes * scale)[enters]
            exchanges.difference[at] = others.error[enters]

    def _bits(self, exchanges: Exchanges, prices: Prices | None) -> Tensor:
        """``[2, s]``: bits of both codes beyond those of silence; NaN where one has no price."""
        bits = torch.full(exchanges.codes.shape[:2], torch.nan, dtype=torch.float64)
        if prices is None:
            return bits
        rows = torch.zeros_like(exchanges.codes, dtype=torch.int64)
        for number, of in enumerate(self._firing.sets):
            rows[:, number, : len(of)] = torch.tensor(of)
        rows, codes = (x.to(prices.samples.device) for x in (rows, exchanges.codes))
        known = (prices.observed[rows] | (codes <= 0)).all(2).cpu()
        priced = prices.codes(rows.view(-1, LARGEST), codes.view(-1, LARGEST)) - prices.silence
        return torch.where(known, priced.view_as(known).cpu(), bits)

    def _typical(self, number: int, exchanges: Exchanges, bits: Tensor) -> Typical | None:
        tokens = int(exchanges.tokens[number])
        if not tokens:
            return None
        rows = list(self._firing.sets[number])
        features, norms = self._units.live[rows].tolist(), self._norms[rows].tolist()
        z, z_prime = (
            tuple(
                Code(feature, code / norm)
                for feature, norm, code in sorted(zip(features, norms, codes, strict=False))
                if code > 0
            )
            for codes in exchanges.codes[:, number].tolist()
        )
        return Typical(
            tokens, z, z_prime, _defined(exchanges.difference[number]),
            _defined(bits[0, number]), _defined(bits[1, number]),
        )  # fmt: skip


def _interval(share: Share, place: int) -> Interval | None:
    low, high = float(share.low[place]), float(share.high[place])
    return None if math.isnan(low) else Interval(low, high)


def _defined(value: Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number
