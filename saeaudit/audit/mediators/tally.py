"""Sums over tokens, and the summary they make."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from saeaudit.audit.mediators.batch import Batch, Comparison, ModeSwaps
from saeaudit.audit.spread import Spread
from saeaudit.dictionary import Dictionary
from saeaudit.records import (
    CHANGED,
    ChangeShare,
    EncoderSummary,
    Involved,
    MediatorsSummary,
    NonUnique,
    Skipped,
)
from saeaudit.vocabulary import Mode, Parts

INVOLVED = 20
"""Most exchanges in the summary."""


class Tally:
    """Adds up tokens."""

    def __init__(self, dictionary: Dictionary, epsilons: tuple[float, ...], examples: int) -> None:
        self._dictionary, self._epsilons, self._examples = dictionary, epsilons, examples
        self._tokens = 0
        self._spread = Spread()
        self._modes: dict[Mode, dict[str, Tensor]] = {}
        self._encoders: dict[str, dict[str, float]] = {}
        self._involved: Counter[tuple[int, int]] = Counter()
        self._gap = 0.0
        self._gaps = 0
        self._refit_change = 0.0
        self._refit_changes = 0
        self._has_thresholds = False

    def add_activations(self, x: Tensor) -> None:
        """Add activations ``[m, d_in]``, for their variance."""
        self._tokens += len(x)
        self._spread.add(x)

    def add_batch(self, batch: Batch) -> None:
        """Add tokens: the SAE's codes, their alternatives, and the best exchanges."""
        comparison = batch.compare_encoder()
        self.add_comparison("encoder", comparison)
        inexact = comparison.error > 0
        gaps = comparison.refit[inexact] / comparison.error[inexact]
        self._gap += float(gaps.sum())
        self._gaps += len(gaps)
        known = batch.refit_change[batch.refit_change.isfinite()]
        self._refit_change += float(known.sum())
        self._refit_changes += len(known)
        self._has_thresholds = batch.coder.has_thresholds
        for mode, swaps in batch.modes.items():
            log2 = torch.log2(1 + swaps.distinct.to(torch.float64))
            if mode == "accuracy":
                log2[:, 0] = batch.log2_sizes
            self._add_mode(mode, swaps, log2)
        self._involved.update(zip(*batch.best_exchanges(), strict=True))

    def _add_mode(self, mode: Mode, swaps: ModeSwaps, log2: Tensor) -> None:
        """Add counts, and ``[B, E]`` sizes in log2."""
        steps = torch.tensor(CHANGED, dtype=log2.dtype, device=log2.device)
        new = {
            "any": (swaps.count > 0).sum(0),
            "unsigned": (swaps.unsigned > 0).sum(0),
            "attainable": swaps.attainable.sum(0),
            "changed": (swaps.change[:, :, None] >= steps).sum(0),
            "any_droppable": (swaps.droppable > 0).sum(0),
            "droppable": swaps.droppable.sum(0).to(torch.float64),
            "count": swaps.count.sum(0).to(torch.float64),
            "log2": log2.sum(0),
        }
        sums = self._modes.get(mode)
        self._modes[mode] = {key: new[key] + sums[key] for key in new} if sums else new

    def add_comparison(self, name: str, comparison: Comparison) -> None:
        """Add one encoder's codes for some tokens."""
        sums = self._encoders.setdefault(name, dict.fromkeys(Comparison._fields, 0.0))
        for key, value in comparison._asdict().items():
            sums[key] += float(value.sum())

    def summary(self, drawn_by: Parts | None, skipped: tuple[Skipped, ...]) -> MediatorsSummary:
        """Return the summary of everything added.

        Args:
            drawn_by: what its tokens were drawn by; None where there are none.
            skipped: tokens that were drawn, but not added.
        """
        n = self._tokens
        encoders = tuple(
            EncoderSummary(
                name=name,
                mean_l0=sums["l0"] / n,
                fvu=self._spread.share(sums["error"]),
                fvu_refit=self._spread.share(sums["refit"]),
                support_agreement=sums["agreement"] / n,
                more_accurate=sums["better"] / n,
            )
            for name, sums in sorted(self._encoders.items(), key=lambda item: item[0] != "encoder")
        )
        encoder = encoders[0] if encoders else None
        ordered = sorted(self._involved.items(), key=lambda item: (-item[1], item[0]))
        return MediatorsSummary(
            sae=self._dictionary.sae,
            control=self._dictionary.control,
            tokens=n,
            drawn_by=drawn_by,
            skipped=skipped,
            exchanges=self._examples,
            mean_l0=encoder.mean_l0 if encoder else None,
            fvu_encoder=encoder.fvu if encoder else None,
            fvu_refit=encoder.fvu_refit if encoder else None,
            refit_gap=self._gap / self._gaps if self._gaps else None,
            mean_refit_change=self._refit_change / self._refit_changes
            if self._refit_changes
            else None,
            non_unique=tuple(
                NonUnique(
                    mode=mode,
                    epsilon=epsilon,
                    non_unique_fraction=float(sums["any"][e]) / n,
                    attainable_fraction=float(sums["attainable"][e]) / n
                    if self._has_thresholds
                    else None,
                    by_change=tuple(
                        ChangeShare(least, float(sums["changed"][e, m]) / n)
                        for m, least in enumerate(CHANGED)
                    ),
                    unsigned_fraction=float(sums["unsigned"][e]) / n,
                    droppable_fraction=float(sums["any_droppable"][e]) / n,
                    mean_droppable=float(sums["droppable"][e]) / n,
                    mean_alternatives=float(sums["count"][e]) / n,
                    mean_log2_size=float(sums["log2"][e]) / n,
                )
                for mode, sums in self._modes.items()
                for e, epsilon in enumerate(self._epsilons)
            ),
            most_involved=tuple(Involved(*pair, count) for pair, count in ordered[:INVOLVED]),
            encoders=encoders,
        )
