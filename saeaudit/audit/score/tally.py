"""Sums over tokens and choices, and the summary they make."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from saeaudit.audit.score.incoherence import Incoherence, IncoherenceTally
from saeaudit.audit.score.prices import Fitted
from saeaudit.audit.score.records import Batch, Exchanges, Setting
from saeaudit.audit.score.split import Split
from saeaudit.audit.score.window import PricedWindow
from saeaudit.core.codes.choose import CanonicalCodes
from saeaudit.core.codes.codelength import LOW_COVERAGE, bound
from saeaudit.records import (
    Agreement,
    Canonical,
    ChoiceRecord,
    DisagreementSummary,
    Interval,
    ScoreSummary,
)

RESAMPLES = 1000
"""Bootstrap samples."""


class ScoreTally:
    """Adds up tokens and choices."""

    def __init__(self, setting: Setting, fitted: Fitted) -> None:
        self._dictionary, self._explanations = setting.dictionary, setting.explanations
        self._fitted = fitted
        self._bits: list[Tensor] = []
        self._gate_bits = self._value_bits = 0.0
        self._l0 = self._tokens = 0
        self._error = self._quantised = self._squares = 0.0
        self._sum: Tensor | None = None
        self._choices = self._unique = self._unlisted = self._resolved = 0
        self._agree = {"l1": 0, "l2": 0, "error": 0, "encoder": 0}
        self._priced = self._encoder_known = 0
        self._disagreements: list[tuple[float, float]] = []
        self._incoherence = _incoherence_tally(setting, fitted)
        self._canonical: list[tuple[Tensor, ...]] = []

    def add_window(self, priced: PricedWindow) -> None:
        """Add tokens that are priced."""
        window = priced.window
        self._bits.append(priced.bits)
        self._gate_bits += priced.gate_bits
        self._value_bits += priced.value_bits
        self._l0 += int((window.codes > 0).sum())
        self._tokens += len(window.codes)
        self._error += float(window.errors.sum())
        self._quantised += priced.quantised
        x = window.x.to(torch.float64)
        self._squares += float(x.square().sum())
        self._sum = x.sum(0) if self._sum is None else self._sum + x.sum(0)

    def add_choices(self, batch: Batch, records: Iterable[ChoiceRecord]) -> Iterator[ChoiceRecord]:
        """Add a batch and its choices, and hand these on."""
        self.add_exchanges(len(batch.cases), batch.exchanges)
        for record in records:
            self._add_choice(record)
            yield record

    def _add_choice(self, record: ChoiceRecord) -> None:
        self._choices += 1
        if not record.alternative_count:
            self._unique += 1
            return
        self._resolved += record.resolved
        chosen = record.chosen
        if chosen.mdl is None:
            return
        self._priced += 1
        for way in ("l1", "l2", "error"):
            self._agree[way] += getattr(chosen, way) == chosen.mdl
        if chosen.encoder is not None:
            self._encoder_known += 1
            self._agree["encoder"] += chosen.encoder == chosen.mdl
        if record.disagreement is not None:
            self._disagreements.append((record.disagreement, record.moved or 0.0))

    def add_unwritten(self, unique: int, unlisted: int) -> None:
        """Add tokens of which there is no choice.

        Args:
            unique: those without alternatives.
            unlisted: those that have alternatives, none of which is known.
        """
        self._choices += unique + unlisted
        self._unique += unique
        self._unlisted += unlisted

    def add_exchanges(self, cases: int, exchanges: Exchanges) -> None:
        """Add the exchanges that some cases allow, to see which disagree."""
        if self._incoherence is not None:
            self._incoherence.add(cases, exchanges)

    def add_canonical(self, codes: CanonicalCodes) -> None:
        """Add canonical codes."""
        self._canonical.append(tuple(column.to("cpu", torch.float64) for column in codes))

    def _canonical_summary(self) -> Canonical | None:
        if not self._canonical:
            return None
        columns = [torch.cat(parts) for parts in zip(*self._canonical, strict=True)]
        priced = columns[0].isfinite()
        before, bits, l0, steps = (float(column[priced].mean()) for column in columns)
        return Canonical(int(priced.sum()), before, bits, before - bits, l0, steps)

    def _disagreement_summary(self) -> DisagreementSummary | None:
        explained = self._explanations
        if explained is None:
            return None
        values = sorted(disagreement for disagreement, _ in self._disagreements)
        weight = sum(moved for _, moved in self._disagreements)
        weighted = sum(disagreement * moved for disagreement, moved in self._disagreements)

        def quantile(share: float) -> float | None:
            return values[round(share * (len(values) - 1))] if values else None

        return DisagreementSummary(
            similarity_method=explained.method,
            explainer=explained.explanations.explainer,
            coverage=explained.coverage,
            dropped=explained.explanations.dropped,
            mean=weighted / weight if weight else None,
            p10=quantile(0.1),
            p50=quantile(0.5),
            p90=quantile(0.9),
            random_mean=_mean(explained.random),
            self_mean=_mean(explained.self_),
            self_pairs=len(explained.self_),
            separation=explained.separation,
            level=explained.level,
            calibrated_by=explained.calibrated_by,
        )

    def _agreement(self) -> Agreement | None:
        if not self._priced:
            return None
        known = self._encoder_known
        return Agreement(
            l1=self._agree["l1"] / self._priced,
            l2=self._agree["l2"] / self._priced,
            error=self._agree["error"] / self._priced,
            encoder=self._agree["encoder"] / known if known else None,
        )

    def summary(self, split: Split | None) -> ScoreSummary:
        """Return the summary of everything added.

        Args:
            split: how its activations were split, where there are any.
        """
        fitted, prices = self._fitted, self._fitted.prices[0]
        n = self._tokens
        interval = None
        if n:
            bits = torch.cat(self._bits).cpu()
            mean, interval = float(bits.mean()), bootstrap(bits)
            gates, values, l0 = self._gate_bits / n, self._value_bits / n, self._l0 / n
        else:
            gates, values = prices.entropy()
            mean, l0 = gates + values, float(prices.samples.sum()) / prices.tokens
        variance = self._squares
        if self._sum is not None:
            variance -= float(self._sum.square().sum()) / n
        range_bits = math.log2(fitted.range / fitted.width.value)
        ambiguous = self._choices - self._unique
        incoherence = Incoherence((), None)
        if self._incoherence is not None:
            incoherence = self._incoherence.figures(self._unique)
        every = incoherence.shares[0] if incoherence.shares else None
        decided = ambiguous - self._unlisted
        fired = prices.observed
        return ScoreSummary(
            sae=self._dictionary.sae,
            control=self._dictionary.control,
            fitted_on="activations" if n else "histograms",
            fitted_tokens=round(prices.tokens),
            tokens=n,
            drawn_by=split.drawn_by if split and n else None,
            skipped=split.skipped if split else (),
            bits_per_token=mean,
            bits_interval=interval,
            gate_bits=gates,
            value_bits=values,
            bound_bits_per_token=bound(l0, self._dictionary.d_sae, range_bits),
            value_range_bits=range_bits,
            bin_width=fitted.width.value,
            bin_width_by=fitted.width.by,
            added_error=self._quantised / self._error - 1 if self._error else None,
            tail="pareto" if prices.tail.kind == "pareto" else "geometric",
            never_observed=int((~fired).sum()),
            low_coverage=int((fired & (prices.samples < LOW_COVERAGE)).sum()),
            fvu=self._error / variance if n and variance > 0 else None,
            fvu_quantised=self._quantised / variance if n and variance > 0 else None,
            mean_l0=l0,
            choices=self._choices,
            non_unique_fraction=ambiguous / self._choices if self._choices else None,
            resolved_fraction=self._resolved / decided if decided else None,
            agreement=self._agreement(),
            canonical=self._canonical_summary(),
            disagreements=self._disagreement_summary(),
            incoherence=every.fraction if every else None,
            incoherence_chance=every.chance if every else None,
            incoherence_excess=every.excess if every else None,
            incoherence_by_moved=incoherence.shares[1:],
            incoherence_unavailable=incoherence.unavailable,
        )


def _incoherence_tally(setting: Setting, fitted: Fitted) -> IncoherenceTally | None:
    if setting.explanations is None:
        return None
    return IncoherenceTally(setting.explanations, fitted.rates(setting.chooser.units.live))


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None


def bootstrap(bits: Tensor) -> Interval:
    """95 % percentile interval of the mean of ``[N]``, tokens resampled, always the same draws."""
    generator = torch.Generator().manual_seed(0)
    means = torch.empty(RESAMPLES, dtype=torch.float64)
    for n in range(RESAMPLES):
        means[n] = bits[torch.randint(len(bits), (len(bits),), generator=generator)].mean()
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(low, high)
