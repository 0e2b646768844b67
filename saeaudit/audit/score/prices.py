"""Prices of an SAE's codes: which bins, and counts from activations or an export's histograms."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import Coder, Encoded, narrow
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.core.codes.codelength import Counts, Prices
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.quantise import FINE, Grid, find_width
from saeaudit.core.rows import spans
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.sources.neuronpedia import FeatureStatistics

WINDOW = 512
"""Tokens encoded at once."""
PILOT = 2048
"""Tokens that the width of the bins is chosen on."""
PLACES = 4096
"""Places (tokens times active features) whose rows are held at once."""
ETA = 0.01
"""Share of the SAE's own squared error that quantising may add."""
MIN_SAMPLES = 5
"""Least mean number of samples a live feature; under it nothing is priced."""
WidthBy = Literal["option", "distortion", "share", "histograms"]


class Width(NamedTuple):
    """A common width of bins, and where it comes from."""

    value: float
    by: WidthBy


class Fitted(NamedTuple):
    """Prices at the common width, half and a quarter of it."""

    prices: tuple[Prices, Prices, Prices]
    width: Width
    joint: dict[tuple[int, ...], Tensor]
    """``[2^m]`` counts of on/off patterns for each set of m features asked for."""

    @property
    def range(self) -> float:
        """Largest less least value counted."""
        return self.prices[-1].value_range()


def anchors(dictionary: Dictionary, live: Tensor) -> Tensor:
    """``[n]`` float64: thresholds of live features in activation space; zero where none are."""
    threshold = dictionary.weights.threshold
    if threshold is None:
        return torch.zeros(len(live), dtype=torch.float64, device=live.device)
    found = threshold.to(live.device, torch.float64)[live].clamp(min=0)
    scaled = dictionary.weights.norm_scaled
    return found if scaled else found * dictionary.norms.to(live.device)[live]


class Errors:
    """Squared errors of some activations for any codes on the encoder's supports."""

    def __init__(self, coder: Coder, encoded: Encoded) -> None:
        self.codes, self.rows = narrow(encoded.codes)
        self._worth = encoded.worth
        self._size = encoded.target.square().sum(1)
        places = max(1, PLACES // max(self.rows.shape[1], 1))
        grams, moments = [], []
        for start, stop in spans(len(self.rows), places):
            fit = Fit(Supports(coder.units, self.rows[start:stop]), encoded.target[start:stop])
            grams.append(fit.supports.gram)
            moments.append(fit.moment)
        self._gram, self._moment = torch.cat(grams), torch.cat(moments)

    def of(self, codes: Tensor) -> Tensor:
        """``[B]`` for unit-row codes ``[B, k]``, in the activations' scale."""
        quadratic = (codes[:, None, :] @ self._gram @ codes[:, :, None]).view(-1)
        error = self._size - 2 * (self._moment * codes).sum(1) + quadratic
        return error.clamp(min=0) * self._worth

    def quantised(self, grid: Grid) -> Tensor:
        """``[B]`` with every code at the centre of its bin."""
        flat = self.rows.clamp(min=0).reshape(-1)
        bins = grid.fine(flat, self.codes.reshape(-1)).div(FINE, rounding_mode="floor")
        return self.of(grid.centre(flat, bins).view_as(self.codes) * (self.rows >= 0))


def choose_width(
    coder: Coder, pilot: Encoded, *, bin_width: float | None, distortion: float | None
) -> Width:
    """The width that was asked for, or the one that an error allows.

    Args:
        coder: the SAE.
        pilot: some activations and their codes.
        bin_width: taken as it is.
        distortion: squared error over the activations' variance that quantised codes may have.

    Raises:
        AuditError: the SAE's own error exceeds `distortion`, or leaves no room to quantise.
    """
    if bin_width is not None:
        return Width(bin_width, "option")
    errors = Errors(coder, pilot)
    codes = errors.codes
    anchor = anchors(coder.dictionary, coder.units.live)
    own = float(errors.of(codes).mean())
    l0 = float((codes > 0).sum()) / len(codes)
    if not l0:
        raise AuditError("no feature fires on these activations", where=coder.dictionary.sae)

    def added(width: float) -> float:
        return float(errors.quantised(Grid(width, anchor)).mean()) - own

    worth = float(pilot.worth.mean())
    if distortion is None:
        formula = math.sqrt(12 * ETA * own / worth / l0)
        if formula <= 1e-9 * float(codes.max()):
            raise AuditError(
                "the SAE's codes leave no error that quantising could be a share of",
                where=coder.dictionary.sae,
                hint="--bin-width W",
            )
        return Width(min(formula, find_width(ETA * own, formula, added)), "share")
    x = pilot.x.to(torch.float64)
    variance = float((x - x.mean(0)).square().sum()) / len(x)
    room = distortion * variance - own
    if room <= 0:
        raise AuditError(
            f"its own error is {own / variance:.4g} of the variance, no less than {distortion:g}",
            where=coder.dictionary.sae,
            hint="a larger --distortion",
        )
    return Width(find_width(room, math.sqrt(12 * room / worth / l0), added), "distortion")


def fit_activations(
    coder: Coder, activations: Tensor, start: int, stop: int, *, bin_width: float | None,
    distortion: float | None, joint: Iterable[tuple[int, ...]] = (),
    observer: Observer = SILENT,
) -> Fitted:  # fmt: skip
    """Fit prices on activations ``start:stop``, read once.

    Args:
        coder: the SAE.
        activations: ``[N, d]``.
        start, stop: which of them.
        bin_width, distortion: as for `choose_width`.
        joint: sets of features (live row numbers) whose on/off patterns to count.
        observer: is told how far it is.

    Raises:
        AuditError: activations that are not finite, or too few of them.
    """
    pilot = coder.encode(activations[start : min(stop, start + PILOT)], start)
    width = choose_width(coder, pilot, bin_width=bin_width, distortion=distortion)
    del pilot
    counts = Counts(Grid(width.value, anchors(coder.dictionary, coder.units.live)))
    sets = {features: torch.zeros(2 ** len(features), dtype=torch.float64) for features in joint}
    for number, (low, high) in enumerate(spans(stop - start, WINDOW)):
        rows = activations[start + low : start + high]
        codes = coder.encode(rows, start + low).codes
        token, index = (codes > 0).nonzero().unbind(1)
        counts.add(index, codes[token, index], len(codes), half=number % 2)
        for features, table in sets.items():
            on = (codes[:, list(features)] > 0).long().cpu()
            pattern = (on * 2 ** torch.arange(len(features))).sum(1)
            table += torch.bincount(pattern, minlength=len(table))
        observer.step("pricing", high / (stop - start))
    prices = _three(counts)
    mean = float(prices[0].samples.sum()) / max(coder.units.count, 1)
    if mean < MIN_SAMPLES:
        raise AuditError(
            f"too few tokens: on {stop - start:,} a feature fires {mean:.2g} times on average, "
            f"and at least {MIN_SAMPLES} are needed to price values",
            where=coder.dictionary.sae,
            hint="more activations",
        )
    return Fitted(prices, width, sets)


def _three(counts: Counts) -> tuple[Prices, Prices, Prices]:
    return Prices(counts, FINE), Prices(counts, FINE // 2), Prices(counts, FINE // 4)


def fit_histograms(
    dictionary: Dictionary, live: Tensor, statistics_: dict[int, FeatureStatistics], where: str,
    *, width: Width | None,
) -> Fitted:  # fmt: skip
    """Fit prices on an export's histograms, taken as flat within each of their bins.

    Args:
        dictionary: the SAE.
        live: ``[n]`` int64: its live features.
        statistics_: by feature.
        where: their file or folder.
        width: of the bins; the median of the histograms' own where None, as there is no error to
            choose it by.

    Raises:
        AuditError: of another SAE, not finite, or empty.
    """
    if statistics_ and max(statistics_) >= dictionary.d_sae:
        raise AuditError(
            f"has feature {max(statistics_)} of {dictionary.d_sae}",
            where=where,
            hint="are these statistics of another SAE?",
        )
    norms = dictionary.norms[live.cpu()].tolist()
    found: list[tuple[int, float, list[float], list[float]]] = []
    for at, (feature, norm) in enumerate(zip(live.tolist(), norms, strict=True)):
        one = statistics_.get(feature)
        if one is None or not sum(one.bin_heights):
            continue
        if not all(map(math.isfinite, (*one.bin_centres, *one.bin_heights, one.frac_nonzero))):
            raise AuditError(f"feature {feature}'s histogram is not finite", where=where)
        if min(one.bin_heights) < 0:
            raise AuditError(f"feature {feature}'s histogram has negative counts", where=where)
        centres = [c * norm for c in one.bin_centres]
        step = centres[1] - centres[0] if len(centres) > 1 else 0.0
        found.append((at, step, centres, list(one.bin_heights)))
    totals = [
        (sum(heights) / one.frac_nonzero, one.frac_nonzero)
        for at, _, _, heights in found
        if (one := statistics_[int(live[at])]).frac_nonzero > 0
    ]
    if not totals:
        raise AuditError("no feature's frequency and histogram", where=where)
    often = [n for n, frac in totals if frac >= 1e-3] or [n for n, _ in totals]
    tokens = max(statistics.median(often), *(sum(heights) for *_, heights in found))
    steps = [step for _, step, _, _ in found if step > 0]
    if width is None:
        if not steps:
            raise AuditError("histograms of one bin", where=where, hint="--bin-width W")
        width = Width(statistics.median(steps), "histograms")
    counts = Counts(Grid(width.value, anchors(dictionary, live)))
    counts.tokens = tokens
    for number, (at, step, centres, heights) in enumerate(found):
        points = min(max(1, math.ceil(4 * FINE * step / width.value)), 4096)
        offset = (torch.arange(points, dtype=torch.float64) + 0.5) / points - 0.5
        value = torch.tensor(centres, dtype=torch.float64)[:, None] + step * offset
        weight = torch.tensor(heights, dtype=torch.float64)[:, None].expand_as(value) / points
        index = torch.full((value.numel(),), at, dtype=torch.int64)
        keep = (weight > 0).reshape(-1)
        counts.add(
            index[keep], value.reshape(-1)[keep], 0, half=number % 2,
            weight=weight.reshape(-1)[keep],
        )  # fmt: skip
    return Fitted(_three(counts), width, {})
