"""Sums over tokens, and the summary they make."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import torch
from torch import Tensor

from saeaudit.audit.mediators.batch import Batch, Comparison, ModeSwaps
from saeaudit.audit.mediators.records import TextsOf
from saeaudit.audit.spread import Spread
from saeaudit.core.calibration import mean_intervals
from saeaudit.dictionary import Dictionary
from saeaudit.records import (
    CHANGED,
    ChangeShare,
    EncoderSummary,
    Interval,
    Involved,
    MediatorsSummary,
    NonUnique,
    Skipped,
)
from saeaudit.vocabulary import Mode, Parts

INVOLVED = 20
"""Most exchanges in the summary."""


def _changed(least: float) -> str:
    return f"changed {least:g}"


COLUMNS = (
    "any", "unsigned", "attainable", "any droppable", "droppable", "count", "log2",
    *map(_changed, CHANGED),
)  # fmt: skip
"""What is added up of each token, for each mode and tolerance."""


class Tally:
    """Adds up tokens."""

    def __init__(
        self, dictionary: Dictionary, epsilons: tuple[float, ...], examples: int,
        part: Tensor | None, texts_of: TextsOf,
    ) -> None:  # fmt: skip
        """Begin.

        Args:
            dictionary: the SAE.
            epsilons: tolerances.
            examples: unit examples written.
            part: ``[N]`` int64: the document or block of each activation, where there are any.
            texts_of: what is said of exchanged features.
        """
        self._part = torch.zeros(0, dtype=torch.int64) if part is None else part
        self._parts = int(self._part.max()) + 1 if len(self._part) else 0
        self._counts = torch.zeros(self._parts, dtype=torch.float64)
        self._texts_of = texts_of
        self._dictionary, self._epsilons, self._examples = dictionary, epsilons, examples
        self._tokens = 0
        self._spread = Spread()
        self._modes: dict[Mode, Tensor] = {}
        """Sums ``[P, E, c]`` over the tokens of each part, a column for each of `COLUMNS`."""
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
        part = self._part[batch.numbers]
        self._counts += torch.bincount(part, minlength=self._parts)
        for mode, swaps in batch.modes.items():
            log2 = torch.log2(1 + swaps.distinct.to(torch.float64))
            if mode == "accuracy":
                log2[:, 0] = batch.log2_sizes
            columns = _columns(swaps, log2).cpu()
            sums = self._modes.setdefault(
                mode, torch.zeros(self._parts, *columns.shape[1:], dtype=torch.float64)
            )
            sums.index_add_(0, part, columns)
        self._involved.update(zip(*batch.best_exchanges(), strict=True))

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
                row for mode, sums in self._modes.items() for row in self._rows(mode, sums)
            ),
            most_involved=tuple(
                Involved(removed, added, count, self._texts_of([removed], [added]))
                for (removed, added), count in ordered[:INVOLVED]
            ),
            encoders=encoders,
        )

    def _rows(self, mode: Mode, sums: Tensor) -> Iterator[NonUnique]:
        """Figures of one mode, by tolerance."""
        means = sums.sum(0) / self._tokens
        ends = mean_intervals(sums.flatten(1), self._counts)
        ends = None if ends is None else ends.view(*means.shape, 2)
        for e, epsilon in enumerate(self._epsilons):
            figures = dict(zip(COLUMNS, means[e].tolist(), strict=True))
            intervals: dict[str, Interval | None] = dict.fromkeys(COLUMNS)
            if ends is not None:
                both = zip(COLUMNS, ends[e].tolist(), strict=True)
                intervals = {name: Interval(low, high) for name, (low, high) in both}
            attains = self._has_thresholds
            yield NonUnique(
                mode=mode,
                epsilon=epsilon,
                non_unique_fraction=figures["any"],
                non_unique_interval=intervals["any"],
                attainable_fraction=figures["attainable"] if attains else None,
                attainable_interval=intervals["attainable"] if attains else None,
                by_change=tuple(
                    ChangeShare(least, figures[_changed(least)], intervals[_changed(least)])
                    for least in CHANGED
                ),
                unsigned_fraction=figures["unsigned"],
                droppable_fraction=figures["any droppable"],
                mean_droppable=figures["droppable"],
                mean_alternatives=figures["count"],
                alternatives_interval=intervals["count"],
                mean_log2_size=figures["log2"],
            )


def _columns(swaps: ModeSwaps, log2: Tensor) -> Tensor:
    """``[B, E, c]`` float64: what is added up of each token, in the order of `COLUMNS`.

    Args:
        swaps: in one mode.
        log2: ``[B, E]`` sizes.
    """
    steps = log2.new_tensor(CHANGED)
    columns = (
        swaps.count > 0, swaps.unsigned > 0, swaps.attainable, swaps.droppable > 0,
        swaps.droppable, swaps.count, log2,
        *(swaps.change[:, :, None] >= steps).unbind(2),
    )  # fmt: skip
    return torch.stack([column.double() for column in columns], dim=2)
