"""Sums over tokens and choices, and the summary they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import get_args

import torch
from torch import Tensor

from saeaudit.audit.score.choose import Exchanges, Setting
from saeaudit.audit.score.incoherence import Incoherence, IncoherenceTally, Labels
from saeaudit.audit.score.prices import Fitted
from saeaudit.audit.score.shares import Shares, mean_interval
from saeaudit.audit.score.split import Split
from saeaudit.audit.score.window import PricedWindow
from saeaudit.audit.spread import Spread
from saeaudit.core.codes.canonical import CanonicalCodes
from saeaudit.core.codes.codelength import LOW_COVERAGE, bound
from saeaudit.records import (
    Agreement,
    Canonical,
    ChoiceRecord,
    ChosenShares,
    DisagreementSummary,
    ScoreSummary,
)
from saeaudit.vocabulary import Choice


class ScoreTally:
    """Adds up tokens and choices."""

    def __init__(
        self, setting: Setting, fitted: Fitted, labels: Labels | None, split: Split | None
    ) -> None:
        """Begin.

        Args:
            setting: what choices are made with.
            fitted: prices.
            labels: of features, where there are any.
            split: activations, where there are any.
        """
        self._dictionary, self._explanations = setting.dictionary, setting.explanations
        self._fitted, self._split = fitted, split
        self._shares = Shares(None if split is None else split.part)
        self._bits: list[Tensor] = []
        self._units: list[Tensor] = []
        self._gate_bits = self._value_bits = 0.0
        self._l0 = self._tokens = 0
        self._error = self._quantised = 0.0
        self._spread = Spread()
        self._disagreements: list[tuple[float, float]] = []
        self._incoherence = None if labels is None else IncoherenceTally(labels)
        self._canonical: list[tuple[Tensor, ...]] = []

    def add_window(self, priced: PricedWindow) -> None:
        """Add tokens that are priced."""
        window = priced.window
        self._bits.append(priced.bits.cpu())
        if self._split is not None:
            self._units.append(self._split.part[window.tokens])
        self._gate_bits += priced.gate_bits
        self._value_bits += priced.value_bits
        self._l0 += int((window.codes > 0).sum())
        self._tokens += len(window.codes)
        self._error += float(window.errors.sum())
        self._quantised += priced.quantised
        self._spread.add(window.x)

    def add_choices(self, exchanges: Exchanges, records: Sequence[ChoiceRecord]) -> None:
        """Add choices, and the exchanges that they are between, to see which disagree."""
        if self._incoherence is not None:
            self._incoherence.add(len(records), exchanges)
        for record in records:
            self._add_choice(record)

    def _add_choice(self, record: ChoiceRecord) -> None:
        token, ambiguous = record.token, record.alternative_count > 0
        self._shares.add(
            token, ambiguous=ambiguous, excess=record.encoder_excess_bits,
            support_excess=record.support_excess_bits, gap=record.gap_bits,
            proved=None if record.gap_bits is None else not record.gap_bits,
        )  # fmt: skip
        if record.chosen is not None:
            for choice in get_args(Choice):
                if choice != "support" or record.support_excess_bits is not None:
                    self._shares.add(token, **{choice: record.chosen == choice})
        if not ambiguous:
            return
        self._shares.add(token, resolved=record.resolved)
        picks = record.picks
        if picks.mdl is None:
            return
        for way in ("l1", "l2", "error", "encoder"):
            pick = getattr(picks, way)
            same = None if pick is None else pick.added == picks.mdl.added
            self._shares.add(token, **{f"= {way}": same})
        if record.disagreement is not None:
            self._disagreements.append((record.disagreement, record.moved or 0.0))

    def add_unlisted(self, tokens: Mapping[int, bool]) -> None:
        """Add tokens of which there is no choice, and whether they have alternatives."""
        for token, ambiguous in tokens.items():
            self._shares.add(token, ambiguous=ambiguous)

    def add_canonical(self, codes: CanonicalCodes) -> None:
        """Add canonical codes."""
        steps = codes.bits.new_tensor([len(path) for path in codes.paths])
        columns = codes.bits_before, codes.bits, codes.l0, steps
        self._canonical.append(tuple(column.to("cpu", torch.float64) for column in columns))

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

    def _chosen_shares(self) -> ChosenShares | None:
        if not self._shares.count("encoder"):
            return None
        return ChosenShares(*map(self._shares.estimate, get_args(Choice)))

    def _agreement(self) -> Agreement | None:
        shares = self._shares
        if not shares.count("= error"):
            return None
        return Agreement(
            l1=shares.estimate("= l1"), l2=shares.estimate("= l2"),
            error=shares.estimate("= error"), encoder=shares.estimate("= encoder"),
            compared=shares.count("= l1"),
        )  # fmt: skip

    def summary(self) -> ScoreSummary:
        """Return the summary of everything added."""
        fitted, prices, split = self._fitted, self._fitted.prices[0], self._split
        n = self._tokens
        interval = None
        if n:
            bits = torch.cat(self._bits)
            mean, interval = float(bits.mean()), mean_interval(bits, torch.cat(self._units))
            gates, values, l0 = self._gate_bits / n, self._value_bits / n, self._l0 / n
        else:
            gates, values = prices.entropy()
            mean, l0 = gates + values, float(prices.samples.sum()) / prices.tokens
        range_bits = math.log2(fitted.range / fitted.width.value)
        shares, choices = self._shares, self._shares.count("ambiguous")
        incoherence = Incoherence((), None)
        if self._incoherence is not None:
            incoherence = self._incoherence.figures(choices - round(shares.total("ambiguous")))
        every = incoherence.shares[0] if incoherence.shares else None
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
            fvu=self._spread.share(self._error),
            fvu_quantised=self._spread.share(self._quantised),
            mean_l0=l0,
            choices=choices,
            non_unique_fraction=shares.stated("ambiguous"),
            non_unique_interval=shares.interval("ambiguous"),
            resolved_fraction=shares.stated("resolved"),
            resolved_interval=shares.interval("resolved"),
            resolved_unavailable=fitted.not_resampled,
            chosen_shares=self._chosen_shares(),
            mean_encoder_excess_bits=shares.estimate("excess"),
            mean_support_excess_bits=shares.estimate("support_excess"),
            proved_fraction=shares.estimate("proved"),
            mean_gap_bits=shares.estimate("gap"),
            agreement=self._agreement(),
            canonical=self._canonical_summary(),
            disagreements=self._disagreement_summary(),
            incoherence=every.fraction if every else None,
            incoherence_chance=every.chance if every else None,
            incoherence_excess=every.excess if every else None,
            incoherence_by_moved=incoherence.shares[1:],
            incoherence_unavailable=incoherence.unavailable,
        )


def _mean(values: Tensor) -> float | None:
    return float(values.mean()) if len(values) else None
