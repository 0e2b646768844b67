"""Sums over tokens and choices, and the summary they make."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from saeaudit.audit.score.disagreement import Disagreement
from saeaudit.audit.score.prices import Fitted
from saeaudit.core.codes.codelength import LOW_COVERAGE, bound
from saeaudit.records import (
    MOVED,
    Agreement,
    Canonical,
    ChoiceRecord,
    DisagreementSummary,
    Interval,
    MovedShare,
    ScoreSummary,
)

RESAMPLES = 1000
"""Bootstrap samples."""


class ScoreTally:
    """Adds up tokens and choices."""

    def __init__(
        self, sae: str, fitted: Fitted, explanations: Disagreement | None, features: int
    ) -> None:
        self._sae, self._fitted, self._said, self._features = sae, fitted, explanations, features
        self._bits: list[Tensor] = []
        self._gate_bits = self._value_bits = 0.0
        self._l0 = self._tokens = 0
        self._error = self._quantised = self._squares = 0.0
        self._sum: Tensor | None = None
        self._choices = self._unique = self._without = self._resolved = 0
        self._agree = {"l1": 0, "l2": 0, "error": 0, "encoder": 0}
        self._priced = self._encoder_known = 0
        self._disagreements: list[tuple[float, float]] = []
        self._incoherent: list[float] = []
        self._canonical: list[tuple[Tensor, ...]] = []

    def measured(
        self, x: Tensor, rows: Tensor, codes: Tensor, errors: Tensor, quantised: Tensor
    ) -> None:
        """Take tokens: activations, their codes ``[B, k]`` and squared errors ``[B]``."""
        prices = self._fitted.prices[0]
        active = codes > 0
        index = rows[active]
        self._bits.append(prices.codes(rows, codes))
        self._gate_bits += float(prices.gate[index].sum()) + prices.silence * len(codes)
        self._value_bits += float(prices.value(index, codes[active]).sum())
        self._l0 += len(index)
        self._tokens += len(codes)
        self._error += float(errors.sum())
        self._quantised += float(quantised.sum())
        x = x.to(torch.float64)
        self._squares += float(x.square().sum())
        self._sum = x.sum(0) if self._sum is None else self._sum + x.sum(0)

    def choice(self, record: ChoiceRecord) -> None:
        """Take a choice."""
        self._choices += 1
        if not record.alternatives:
            self._unique += 1
            return
        self._resolved += record.resolved
        chosen = record.chosen
        if chosen.mdl is None:
            self._without += 1
            return
        self._priced += 1
        for way in ("l1", "l2", "error"):
            self._agree[way] += getattr(chosen, way) == chosen.mdl
        if chosen.encoder is not None:
            self._encoder_known += 1
            self._agree["encoder"] += chosen.encoder == chosen.mdl
        if record.disagreement is not None:
            self._disagreements.append((record.disagreement, record.moved or 0.0))

    def unique(self, count: int) -> None:
        """Take choices without alternatives that have no record."""
        self._choices += count
        self._unique += count

    def exchanged(
        self, tokens: int, token: list[int], leaving: list[int], entering: list[int],
        moved: list[float],
    ) -> None:  # fmt: skip
        """Take the exchanges that some tokens allow, to see which disagree."""
        if self._said is None:
            return
        most = [-1.0] * tokens
        found = self._said.of(leaving, entering)
        for at, disagreement, share in zip(token, found, moved, strict=True):
            if disagreement is not None and disagreement > self._said.level:
                most[at] = max(most[at], share)
        self._incoherent += most

    def canonical(self, first: Tensor, bits: Tensor, l0: Tensor, steps: Tensor) -> None:
        """Take canonical codes: bits before and after, active features and steps."""
        self._canonical.append(tuple(t.to("cpu", torch.float64) for t in (first, bits, l0, steps)))

    def _found_canonical(self) -> Canonical | None:
        if not self._canonical:
            return None
        columns = [torch.cat(parts) for parts in zip(*self._canonical, strict=True)]
        keep = columns[0].isfinite()
        first, bits, l0, steps = (float(column[keep].mean()) for column in columns)
        return Canonical(int(keep.sum()), first, bits, first - bits, l0, steps)

    def _disagreement(self) -> DisagreementSummary | None:
        said = self._said
        if said is None:
            return None
        values = sorted(d for d, _ in self._disagreements)
        weight = sum(m for _, m in self._disagreements)

        def at(share: float) -> float | None:
            return values[round(share * (len(values) - 1))] if values else None

        return DisagreementSummary(
            similarity_method=said.method,
            explainer=said.explanations.explainer,
            coverage=said.coverage,
            dropped=said.explanations.dropped,
            mean=sum(d * m for d, m in self._disagreements) / weight if weight else None,
            p10=at(0.1),
            p50=at(0.5),
            p90=at(0.9),
            random_mean=sum(said.random) / len(said.random) if said.random else None,
            self_mean=sum(said.self_) / len(said.self_) if said.self_ else None,
            self_pairs=len(said.self_),
            level=said.level,
            calibrated_by="self" if said.calibrated_by == "self" else "random",
        )

    def summary(self) -> ScoreSummary:
        """Return the summary of everything taken."""
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
        choices = self._choices or None
        fired = prices.observed
        return ScoreSummary(
            sae=self._sae,
            source="activations" if n else "histograms",
            fitted_tokens=round(prices.tokens),
            tokens=n,
            bits_per_token=mean,
            bits_interval=interval,
            gate_bits=gates,
            value_bits=values,
            bound_bits_per_token=bound(l0, self._features, range_bits),
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
            non_unique_fraction=ambiguous / choices if choices else None,
            resolved_fraction=self._resolved / ambiguous if ambiguous else None,
            agreement=Agreement(
                l1=self._agree["l1"] / self._priced,
                l2=self._agree["l2"] / self._priced,
                error=self._agree["error"] / self._priced,
                encoder=self._agree["encoder"] / self._encoder_known
                if self._encoder_known else None,
            ) if self._priced else None,
            canonical=self._found_canonical(),
            disagreement=self._disagreement(),
            incoherence=self._incoherence(0.0),
            incoherence_by_moved=tuple(
                MovedShare(least, share)
                for least in MOVED
                if (share := self._incoherence(least)) is not None
            ),
        )  # fmt: skip

    def _incoherence(self, least: float) -> float | None:
        if self._said is None or not self._said.coverage or not self._choices:
            return None
        return sum(share >= least for share in self._incoherent) / self._choices


def bootstrap(bits: Tensor) -> Interval:
    """95 % percentile interval of the mean of ``[N]``, tokens resampled, always the same draws."""
    generator = torch.Generator().manual_seed(0)
    means = torch.empty(RESAMPLES, dtype=torch.float64)
    for n in range(RESAMPLES):
        means[n] = bits[torch.randint(len(bits), (len(bits),), generator=generator)].mean()
    low, high = torch.quantile(means, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Interval(low, high)
