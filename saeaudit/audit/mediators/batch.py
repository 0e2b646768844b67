"""Tokens with supports of like size, and what exchanges there are on each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from saeaudit.audit.codes import Coder, Encoded, active_codes
from saeaudit.audit.mediators.options import MediatorOptions
from saeaudit.core.codes.chains import chained
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.full import Farthest, changes
from saeaudit.core.codes.pursuit import pursue
from saeaudit.core.codes.sparse import batches
from saeaudit.core.codes.swaps import Swaps, one_swaps
from saeaudit.vocabulary import Mode

PLACES = 1024
"""Places (tokens times active features) in one batch of swaps."""
CLEARLY = 1e-3
"""Share of an error by which a smaller one must differ: codes kept in 16 or 32 bits differ less."""
MODES: tuple[Mode, ...] = get_args(Mode)


@dataclass(frozen=True, eq=False)
class ModeSwaps:
    """What one mode asks of an alternative, and the exchanges that meet it."""

    fit: Fit
    """Targets on the supports."""
    reference: Tensor
    """``[B]`` squared errors that alternatives are compared with."""
    limits: Tensor
    """``[B, E]`` largest squared errors, for each tolerance."""
    count: Tensor
    """``[B, E]`` int64: exchanges with non-negative codes within the limits, in which what enters
    has a part."""
    distinct: Tensor
    """``[B, E]`` int64: lower bound on how many different features their codes are of."""
    droppable: Tensor
    """``[B, E]`` int64: features without which codes of the others stay within the limits."""
    unsigned: Tensor
    """``[B, E]`` int64: exchanges with codes of either sign within the limits."""
    attainable: Tensor
    """``[B, E]`` bool: whether some exchange has all codes above their thresholds."""
    change: Tensor
    """``[B, E]``: largest change of the code by an exchange that leaves none at zero; -1 where
    there is none."""
    farthest: tuple[Tensor, Tensor]
    """``[B]`` int64 each, at the largest tolerance: place that such an exchange leaves and live
    row that enters; -1 where there is none."""
    passing: Tensor
    """``[B, E, k]`` bool: features that some counted exchange removes."""
    error: Tensor
    """``[B, k]``: least non-negative squared error for each removed feature."""
    feature: Tensor
    """``[B, k]`` int64: live row that enters then; -1 where there is none."""


class Comparison(NamedTuple):
    """One encoder's codes for some tokens, each ``[B]``."""

    l0: Tensor
    """Active features."""
    error: Tensor
    """Squared error."""
    refit: Tensor
    """Squared error of least squares on the same support."""
    agreement: Tensor
    """Jaccard index of its support and that of the SAE's codes."""
    better: Tensor
    """Whether its error is less than that of the SAE's codes by more than `CLEARLY` of it."""


@dataclass(frozen=True, eq=False)
class Batch:
    """B tokens: codes, fits and exchanges, made as they are asked for."""

    coder: Coder
    options: MediatorOptions
    numbers: Tensor
    """``[B]`` int64: the tokens' numbers."""
    codes: Tensor
    """``[B, k]`` float64 unit-row codes, largest first."""
    supports: Supports
    target: Tensor
    """``[B, d]`` float64: what the decoder's rows must add up to."""
    worth: Tensor
    """``[B]``: what a squared error against the target is worth in the activations' scale."""

    @cached_property
    def fit(self) -> Fit:
        """Least squares of the targets."""
        return Fit(self.supports, self.target)

    @cached_property
    def decoded(self) -> Tensor:
        """``[B, d]``: what the SAE's codes add up to."""
        return (self.codes[:, None, :] @ self.supports.vectors).squeeze(1)

    @cached_property
    def encoder_error(self) -> Tensor:
        """``[B]``: squared errors of the SAE's codes, in the target's scale."""
        return (self.target - self.decoded).square().sum(1)

    @cached_property
    def l0(self) -> Tensor:
        """``[B]`` int64: active features."""
        return self.supports.active.sum(1)

    @cached_property
    def moved(self) -> Tensor:
        """``[B, k]``: share of the code that each feature holds."""
        total = self.codes.sum(1, keepdim=True)
        return torch.where(total > 0, self.codes / total, 0.0)

    @cached_property
    def refit_change(self) -> Tensor:
        """``[B]``: by how much the non-negative refit differs from the SAE's codes, as `changes`
        are measured."""
        every = torch.arange(len(self.codes), device=self.codes.device)
        return changes(self.fit, every, self.codes, self.supports.rows)

    @cached_property
    def modes(self) -> dict[Mode, ModeSwaps]:
        """Exchanges in each of `MODES`."""
        tolerance = torch.tensor(
            self.options.epsilons, dtype=torch.float64, device=self.target.device
        )
        wider = (1 + tolerance).square()
        mirror = Fit(self.supports, self.decoded)
        accuracy = wider * self.encoder_error[:, None]
        refit = wider * self.fit.error[:, None]
        reconstruction = tolerance.square() * mirror.size[:, None]
        fits, limits = [self.fit, mirror], [torch.cat([refit, accuracy], 1), reconstruction]
        thresholds = self.coder.thresholds if self.coder.has_thresholds else None
        farthest = [Farthest(*pair, thresholds) for pair in zip(fits, limits, strict=True)]
        swaps = one_swaps(fits, limits, self.coder.enter, farthest)
        of_x, of_mirror = zip(swaps, farthest, strict=True)
        e = len(tolerance)
        return {
            "refit": _mode(self.fit, self.fit.error, refit, *of_x, slice(0, e)),
            "accuracy": _mode(self.fit, self.encoder_error, accuracy, *of_x, slice(e, 2 * e)),
            "reconstruction": _mode(mirror, mirror.size, reconstruction, *of_mirror, slice(0, e)),
        }

    @cached_property
    def log2_sizes(self) -> Tensor:
        """``[B]``: log2 of the supports counted that are as accurate as the SAE's, itself too."""
        options, accurate = self.options, self.modes["accuracy"]
        distinct = accurate.distinct[:, 0]
        if options.swaps > 1:
            reached = chained(
                self.fit, accurate.limits[:, 0], self.coder.enter,
                swaps=options.swaps, beam=options.beam,
            )  # fmt: skip
            distinct = torch.maximum(distinct, reached)
        return torch.log2(1 + distinct.to(torch.float64))

    @cached_property
    def best_error_ratio(self) -> Tensor:
        """``[B]``: least error of an exchange over the encoder's; NaN where there is neither."""
        error = self.modes["accuracy"].error
        best = error.amin(1) if error.shape[1] else torch.full_like(self.encoder_error, torch.inf)
        known = best.isfinite() & (self.encoder_error > 0)
        return torch.where(known, best / self.encoder_error, torch.nan)

    def compare_encoder(self) -> Comparison:
        """The SAE's codes, as those of others are compared."""
        return Comparison(
            l0=self.l0,
            error=self.encoder_error * self.worth,
            refit=self.fit.error * self.worth,
            agreement=torch.ones_like(self.worth),
            better=torch.zeros_like(self.worth, dtype=torch.bool),
        )

    def compare_codes(self, unit_codes: Tensor) -> Comparison:
        """Another encoder's codes ``[B, n]``, in unit rows."""
        codes, rows = active_codes(unit_codes)
        return self._compare(rows, codes)

    def compare_pursuit(self, *, nonnegative: bool) -> Comparison:
        """Codes of as many features, pursued on this decoder."""
        units, enter = self.coder.units, self.coder.enter
        rows, codes = pursue(units, self.target, self.l0, enter, nonnegative=nonnegative)
        return self._compare(rows, codes.clamp(min=0) if nonnegative else codes)

    def _compare(self, rows: Tensor, codes: Tensor) -> Comparison:
        supports = Supports(self.coder.units, rows)
        decoded = (codes[:, None, :] @ supports.vectors).squeeze(1)
        same = self.supports.rows[:, :, None] == rows[:, None, :]
        shared = (same & self.supports.active[:, :, None]).sum((1, 2))
        l0 = supports.active.sum(1)
        union = self.l0 + l0 - shared
        error = (self.target - decoded).square().sum(1)
        return Comparison(
            l0=l0,
            error=error * self.worth,
            refit=Fit(supports, self.target).error * self.worth,
            agreement=torch.where(union > 0, shared / union.clamp(min=1), 1.0),
            better=error < (1 - CLEARLY) * self.encoder_error,
        )

    def best_exchanges(self) -> tuple[list[int], list[int]]:
        """Features removed and entering, for each removed feature's best accurate exchange."""
        accurate = self.modes["accuracy"]
        token, place = (accurate.passing[:, 0] & (accurate.feature >= 0)).nonzero().unbind(1)
        live = self.coder.units.live
        removed = live[self.supports.rows[token, place]]
        return removed.tolist(), live[accurate.feature[token, place]].tolist()


def make_batches(
    coder: Coder, options: MediatorOptions, encoded: Encoded, tokens: Tensor
) -> Iterator[Batch]:
    """Tokens ``[B]`` int64 that were encoded, by like support size."""
    for places in batches(encoded.l0, PLACES):
        codes, rows = active_codes(encoded.codes[places])
        yield Batch(
            coder, options, tokens[places.cpu()], codes, Supports(coder.units, rows),
            encoded.target[places], encoded.worth[places],
        )  # fmt: skip


def _mode(
    fit: Fit, reference: Tensor, limits: Tensor, swaps: Swaps, farthest: Farthest, columns: slice
) -> ModeSwaps:
    widest = columns.stop - 1
    return ModeSwaps(
        fit, reference, limits, swaps.count[:, columns], swaps.distinct[:, columns],
        swaps.droppable[:, columns].sum(2), swaps.unsigned[:, columns],
        farthest.attainable[:, columns], farthest.change[:, columns],
        (farthest.place[:, widest], farthest.row[:, widest]),
        swaps.passing[:, columns], swaps.error, swaps.feature,
    )  # fmt: skip
