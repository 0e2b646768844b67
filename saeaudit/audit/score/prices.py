"""Prices of an SAE's codes: which bins, and counts from activations or an export's histograms."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import WINDOW, Coder, live_units, unit_thresholds
from saeaudit.audit.firing import FiringTally
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.score.inputs import CheckedInputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.split import Split
from saeaudit.audit.score.window import Window, make_window
from saeaudit.audit.spread import Spread
from saeaudit.core.codes.codelength import LOW_COVERAGE, Counts, Prices
from saeaudit.core.codes.quantise import BINS, FINE, Grid, find_width
from saeaudit.core.codes.resamples import Resampled, Resamples
from saeaudit.core.rows import UnitRows, spans
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.sources.neuronpedia import FeatureStatistics
from saeaudit.sources.stacked import Activations
from saeaudit.vocabulary import WidthBy

ETA = 0.01
"""Share of the SAE's own squared error that quantising may add."""
LEAST_PARTS = 20
"""With fewer documents, or blocks, resamples of them do not say what other texts would."""
MIN_SAMPLES = 5
"""Least mean number of samples a live feature; under it nothing is priced."""
SELDOM = 1e-3
"""Features that fire less often do not say how many tokens an export's histograms are from."""
MOST_POINTS = 4096
"""Points that a bin of a histogram is spread over, at most."""


class Sample(NamedTuple):
    """Activations that prices are fitted on."""

    activations: Activations
    """``[N, d_in]`` of any float dtype."""
    tokens: Tensor
    """``[m]`` int64: which of them."""
    part: Tensor
    """``[N]`` int64: which document, or block of neighbours, each is in."""


class Width(NamedTuple):
    """A common width of bins, and where it comes from."""

    value: float
    by: WidthBy


class Fitted(NamedTuple):
    """Prices at the common width, half and a quarter of it."""

    units: UnitRows
    """Live rows that codes are priced in."""
    prices: tuple[Prices, Prices, Prices]
    width: Width
    joint: dict[tuple[int, ...], Tensor]
    """``[2^m]`` counts of on/off patterns for each set of m features that is watched."""
    resampled: tuple[Resampled, ...]
    """The same prices by resamples of the tokens fitted on; empty where there are none."""
    not_resampled: str | None
    """Why there are none."""

    @property
    def range(self) -> float:
        """Largest less least value counted."""
        return self.prices[-1].value_range()

    @property
    def rates(self) -> dict[int, float]:
        """How often each live feature fired."""
        return dict(zip(self.units.live.tolist(), self.prices[0].samples.tolist(), strict=True))


def fit_prices(
    dictionary: Dictionary, inputs: CheckedInputs, split: Split | None,
    firing: FiringTally | None, options: ScoreOptions, observer: Observer,
) -> Fitted:  # fmt: skip
    """Fit prices on an export's histograms, or on the activations that are not measured.

    Args:
        dictionary: an opened SAE.
        inputs: of this SAE: features, or activations.
        split: of the activations, where there are any.
        firing: counts sets of features on these, where there are activations.
        options: say how wide the bins are, or how wide they may be.
        observer: is told how far it is, and of features that are seldom seen.

    Raises:
        AuditError: too few activations, or none whose codes can be quantised so; histograms that
            are not finite, or empty.
    """
    width = None if options.bin_width is None else Width(options.bin_width, "option")
    if split is not None:
        pilot = make_window(split.coder, split.activations, split.pilot)
        width = choose_width(split.coder, pilot, options)
    if inputs.features is not None or split is None or width is None:
        return fit_histograms(dictionary, inputs.features or {}, inputs.features_from, width)
    fitted = fit_activations(
        split.coder, Sample(split.activations, split.fitted, split.part), width,
        firing=firing, observer=observer,
    )  # fmt: skip
    _note_seldom(fitted.prices[0], len(split.fitted), observer)
    return fitted


def choose_width(coder: Coder, pilot: Window, options: ScoreOptions) -> Width:
    """The width that was asked for, or the one that an error allows.

    Args:
        coder: the SAE.
        pilot: some tokens to try widths on.
        options: a width, a distortion, or neither: then the error may grow by a share of itself.

    Raises:
        AuditError: no feature fires, the SAE's own error exceeds the distortion or leaves no room
            to quantise, or a distortion of activations that do not vary.
    """
    if options.bin_width is not None:
        bins = float(pilot.codes.max()) * FINE / options.bin_width if pilot.codes.numel() else 0.0
        if bins > BINS / 8:
            raise AuditError(
                f"{options.bin_width:g} cuts values up to {float(pilot.codes.max()):.3g} into more "
                f"bins than the {BINS // FINE:,} that are told apart",
                where="--bin-width",
            )
        return Width(options.bin_width, "option")
    l0 = float((pilot.codes > 0).sum()) / len(pilot.codes)
    if not l0:
        raise AuditError("no feature fires on these activations", where=coder.dictionary.sae)
    error = float(pilot.errors.mean())
    worth = float(pilot.worth.mean())

    def added(width: float) -> float:
        grid = Grid(width, coder.thresholds)
        return float(pilot.errors_of(grid.quantised(pilot.rows, pilot.codes)).mean()) - error

    if options.distortion is None:
        guess = math.sqrt(12 * ETA * error / worth / l0)
        if guess <= 1e-9 * float(pilot.codes.max()):
            raise AuditError(
                "the SAE's codes leave no error that quantising could be a share of",
                where=coder.dictionary.sae,
                hint="--bin-width W",
            )
        return Width(min(guess, find_width(ETA * error, guess, added)), "share")
    spread = Spread()
    spread.add(pilot.x)
    share = spread.share(error * len(pilot.x))
    if share is None:
        raise AuditError(
            "the error is to be a share of the variance, and these activations do not vary",
            where="--distortion",
            hint="--bin-width W",
        )
    room = options.distortion * spread.total / len(pilot.x) - error
    if room <= 0:
        raise AuditError(
            f"its own error is {share:.4g} of the variance, no less than {options.distortion:g}",
            where=coder.dictionary.sae,
            hint="a larger --distortion",
        )
    return Width(find_width(room, math.sqrt(12 * room / worth / l0), added), "distortion")


def fit_activations(
    coder: Coder, sample: Sample, width: Width, *, firing: FiringTally | None = None,
    observer: Observer = SILENT,
) -> Fitted:  # fmt: skip
    """Fit prices on activations, read once.

    Args:
        coder: the SAE.
        sample: of what it encodes.
        width: of the bins.
        firing: counts sets of features on these as well.
        observer: is told how far it is.

    Raises:
        AuditError: activations that are not finite, or too few of them.
    """
    activations, tokens, part = sample
    counts = Counts(Grid(width.value, coder.thresholds))
    resamples, not_resampled = _resamples(counts.grid, part[tokens])
    for number, (start, stop) in enumerate(spans(len(tokens), WINDOW)):
        several = tokens[start:stop]
        active = coder.encode(activations, several).active
        counts.add(active.row, active.code, len(several), half=number % 2)
        if resamples is not None:
            resamples.add(active.row, active.code, active.place, part[several])
        if firing is not None:
            firing.add(several, active)
        observer.step("pricing", stop / len(tokens), len(tokens))
    prices = _at_three_widths(counts)
    mean = float(prices[0].samples.sum()) / max(coder.units.count, 1)
    if mean < MIN_SAMPLES:
        raise AuditError(
            f"too few tokens: on {len(tokens):,} a feature fires {mean:.2g} times on average, "
            f"and at least {MIN_SAMPLES} are needed to price values",
            where=coder.dictionary.sae,
            hint="more activations",
        )
    resampled = () if resamples is None else tuple(map(resamples.at, prices))
    tables = firing.tables() if firing else {}
    return Fitted(coder.units, prices, width, tables, resampled, not_resampled)


def _note_seldom(prices: Prices, tokens: int, observer: Observer) -> None:
    seldom = int(((prices.samples < LOW_COVERAGE) & prices.observed).sum())
    if seldom > prices.features // 2:
        observer.note(
            f"{seldom:,} of {prices.features:,} features fired fewer than {LOW_COVERAGE} times on "
            f"the {tokens:,} tokens fitted: their values are priced by the pool"
        )


def _resamples(grid: Grid, part: Tensor) -> tuple[Resamples | None, str | None]:
    """Resamples of the parts ``[m]`` that tokens are in, or why there are none."""
    parts = len(torch.unique(part))
    if parts < LEAST_PARTS:
        return None, f"prices are fitted on {parts} documents or blocks, fewer than {LEAST_PARTS}"
    return Resamples(grid, int(part.max()) + 1), None


def _at_three_widths(counts: Counts) -> tuple[Prices, Prices, Prices]:
    return Prices(counts, FINE), Prices(counts, FINE // 2), Prices(counts, FINE // 4)


class _Histogram(NamedTuple):
    """One live feature's histogram, in unit-row codes."""

    row: int
    """Its live row."""
    frequency: float
    """Share of tokens on which it fires."""
    step: float
    """Width of a bin; 0 where there is one."""
    centres: list[float]
    heights: list[float]


def fit_histograms(
    dictionary: Dictionary, statistics_: dict[int, FeatureStatistics], where: str,
    width: Width | None,
) -> Fitted:  # fmt: skip
    """Fit prices on an export's histograms, taken as flat within each of their bins.

    Args:
        dictionary: an opened SAE; it needs no encoder.
        statistics_: by feature of this SAE.
        where: their file or folder.
        width: of the bins; the median of the histograms' own where None, as there is no error to
            choose it by.

    Raises:
        AuditError: not finite, or empty.
    """
    units = live_units(dictionary, dictionary.weights.decoder)
    thresholds = unit_thresholds(dictionary, units.live)
    histograms = list(_histograms(units, statistics_, where))
    tokens = _token_count(histograms, where)
    if width is None:
        steps = [histogram.step for histogram in histograms if histogram.step > 0]
        if not steps:
            raise AuditError("histograms of one bin", where=where, hint="--bin-width W")
        width = Width(statistics.median(steps), "histograms")
    counts = Counts(Grid(width.value, thresholds))
    counts.tokens = tokens
    for number, histogram in enumerate(histograms):
        _spread(counts, histogram, half=number % 2)
    return Fitted(
        units, _at_three_widths(counts), width, {}, (),
        "prices are from an export's histograms, which do not say what came from one text",
    )  # fmt: skip


def _histograms(
    units: UnitRows, statistics_: dict[int, FeatureStatistics], where: str
) -> Iterator[_Histogram]:
    rows = zip(units.live.tolist(), units.norms.tolist(), strict=True)
    for row, (feature, norm) in enumerate(rows):
        of_feature = statistics_.get(feature)
        if of_feature is None or not sum(of_feature.bin_heights):
            continue
        heights, frequency = list(of_feature.bin_heights), of_feature.frac_nonzero
        if min(heights) < 0:
            raise AuditError(f"feature {feature}'s histogram has negative counts", where=where)
        centres = [centre * norm for centre in of_feature.bin_centres]
        step = centres[1] - centres[0] if len(centres) > 1 else 0.0
        if not all(map(math.isfinite, (*centres, step, sum(heights), frequency))):
            raise AuditError(f"feature {feature}'s histogram is not finite", where=where)
        if step < 0:
            raise AuditError(f"feature {feature}'s histogram has bins that descend", where=where)
        yield _Histogram(row, frequency, step, centres, heights)


def _token_count(histograms: list[_Histogram], where: str) -> float:
    """Tokens that histograms are from: the median of what features that fire often imply."""
    implied = [(sum(h.heights) / h.frequency, h.frequency) for h in histograms if h.frequency > 0]
    if not implied:
        raise AuditError("no feature's frequency and histogram", where=where)
    often = [tokens for tokens, frequency in implied if frequency >= SELDOM]
    median = statistics.median(often or [tokens for tokens, _ in implied])
    return max(median, *(sum(h.heights) for h in histograms))


def _spread(counts: Counts, histogram: _Histogram, *, half: int) -> None:
    """Count a histogram's samples, each bin's spread evenly over its width."""
    row, _, step, centres, heights = histogram
    points = max(1, math.ceil(min(4 * FINE * step / counts.grid.width, MOST_POINTS)))
    offset = (torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5
    value = torch.tensor(centres, dtype=torch.float64)[:, None] + step * offset
    weight = torch.tensor(heights, dtype=torch.float64)[:, None].expand_as(value) / points
    index = torch.full((value.numel(),), row, dtype=torch.int64)
    filled = (weight > 0).reshape(-1)
    counts.add(
        index[filled], value.reshape(-1)[filled], 0, half=half, weight=weight.reshape(-1)[filled]
    )
