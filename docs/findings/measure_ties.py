"""Count the other codes of pursued codes on the bundled SAEs, by k and by width.

Nothing is decided here: `write_ties` holds its sentences against these figures. Every figure is a
mean over activations with its interval of 95 %, a bootstrap over documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

import saeaudit
from saeaudit.audit.codes import make_encoder, unit_thresholds
from saeaudit.audit.control import random_decoder
from saeaudit.audit.mediators.inputs import MediatorSources, read_inputs
from saeaudit.core.calibration import interval, resampled_sums
from saeaudit.core.codes.encode import Encoder
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.full import Farthest, full_swaps
from saeaudit.core.codes.pursuit import pursue
from saeaudit.core.codes.sparse import batches
from saeaudit.core.codes.swaps import one_swaps
from saeaudit.core.codes.tolerances import TOLERANCE
from saeaudit.core.rows import UnitRows, row_norms

PER_DOCUMENT = 2
"""Activations looked at of each document."""
SEED = 0
EPSILONS = (0.0, 0.01, 0.05)
"""Tolerances on the unsquared error."""
CHANGES = (0.1, 0.2, 0.33)
"""Changes of a code that are told apart."""
SIZES = (4, 8, 16, 32, 64)
"""Features to a code by pursuit."""
WIDTHS = (256, 512, 1024, 2048, 4096)
"""Features of a dictionary; the widest is the stitched one."""
LIKE_ERROR = (("SAE", 8), ("random", 32))
"""Rows and k of two pursuits that leave about as much of the variance."""
AT_WIDTH = 16
"""Features to a code where widths are compared."""
SIGNED = "omp"
"""The pursuit whose codes may be negative."""
PLACES = 1024
"""Places (activations times features) judged at once."""

Figure = tuple[float, float, float]
"""A value, and the ends of its interval."""
Row = dict[str, object]
"""One line of figures, and what it is of."""


@dataclass(frozen=True)
class Resampling:
    """How means get their intervals: all activations of a part stay together."""

    parts: Tensor
    """``[N]`` int64: of which document (or source) each activation is, from 0."""

    def mean(self, values: Tensor, over: Tensor | None = None) -> Figure:
        """The mean of ``values [N]``, or their sum over that of ``over [N]``."""
        values = values.to(torch.float64)
        over = torch.ones_like(values) if over is None else over
        both = torch.stack([values, over], 1)
        sums = torch.zeros(int(self.parts.max()) + 1, 2, dtype=torch.float64)
        resampled = resampled_sums(sums.index_add(0, self.parts, both))
        value = float(values.sum() / over.sum())
        return (value, *interval(resampled[:, 0] / resampled[:, 1]))


@dataclass(frozen=True)
class Bundle:
    """The bundled SAE, the stitched decoder, and activations."""

    x: Tensor
    """``[N, d]`` float64 activations."""
    resampling: Resampling
    encoder: Encoder
    """The SAE's."""
    sample: UnitRows
    """Rows of the SAE."""
    stitched: UnitRows
    """Rows of the stitched decoder, the SAE's first."""
    thresholds: Tensor
    """``[F]``: least unit-row codes that the SAE's encoder outputs."""

    @classmethod
    def load(cls, per_document: int = PER_DOCUMENT) -> Bundle:
        """Draw activations, the same number of each document."""
        sae = saeaudit.open("sample")
        inputs = read_inputs(sae, MediatorSources(), "cpu")
        assert inputs.activations is not None and inputs.documents is not None
        numbers, parts = draw(inputs.documents, per_document)
        stitched = saeaudit.open("sample/stitched").weights.decoder.to(torch.float64)
        return cls(
            inputs.activations[numbers].to(torch.float64),
            Resampling(parts),
            make_encoder(sae, dtype=torch.float64),
            unit_rows(sae.weights.decoder),
            unit_rows(stitched),
            unit_thresholds(sae, torch.arange(sae.d_sae)),
        )

    @cached_property
    def target(self) -> Tensor:
        """``[N, d]``: what decoder rows must add up to."""
        return self.encoder.target(self.x)[0]

    @cached_property
    def variance(self) -> Tensor:
        """``[N]``: squared distances from the mean."""
        return (self.x - self.x.mean(0)).square().sum(1)


def draw(documents: Tensor, per_document: int) -> tuple[Tensor, Tensor]:
    """Draw the same number of activations of each document that has as many.

    Args:
        documents: ``[N]`` int64.
        per_document: how many of each.

    Returns:
        Their numbers ``[n]``, and of which document drawn each is, from 0.
    """
    generator = torch.Generator().manual_seed(SEED)
    drawn = []
    for document in documents.unique():
        of_document = (documents == document).nonzero().squeeze(1)
        if len(of_document) >= per_document:
            order = torch.randperm(len(of_document), generator=generator)
            drawn.append(of_document[order[:per_document]])
    return torch.cat(drawn), torch.arange(len(drawn)).repeat_interleave(per_document)


def unit_rows(rows: Tensor, live: Tensor | None = None) -> UnitRows:
    """Decoder rows ``[F, d]``, or those of them that are live."""
    live = torch.arange(len(rows)) if live is None else live
    return UnitRows(rows, live, row_norms(rows)[live])


def with_control(units: UnitRows) -> dict[str, UnitRows]:
    """An SAE's rows, and as many random ones with their second moment and norms."""
    drawn = random_decoder(saeaudit.Dictionary.from_rows(units.rows), SEED)
    return {"SAE": units, "random": unit_rows(drawn.weights.decoder)}


def pursued(units: UnitRows, target: Tensor, sizes: Tensor, *, nonnegative: bool = True) -> Tensor:
    """Rows ``[N, k]`` of codes by pursuit, -1 where a code ended up at zero."""
    enter = torch.ones(units.count, dtype=torch.bool)
    rows, codes = pursue(units, target, sizes, enter, nonnegative=nonnegative)
    return torch.where(codes != 0, rows, -1)


def settled(units: UnitRows, target: Tensor, rows: Tensor) -> Tensor:
    """Rows of codes that no exchange improves: the best is made, until there is none."""
    rows = rows.clone()
    enter = torch.ones(units.count, dtype=torch.bool)
    improving = torch.arange(len(rows))
    while len(improving):
        fit = Fit(Supports(units, rows[improving]), target[improving])
        # A swap passes where its error exceeds the limit by no more than the tolerance.
        swaps = full_swaps(fit, fit.error - 2 * TOLERANCE * fit.size, enter)
        least = torch.full((len(improving),), torch.inf, dtype=torch.float64)
        least.scatter_reduce_(0, swaps.token, swaps.error, "amin")
        best = swaps.error == least[swaps.token]
        token = swaps.token[best]
        rows[improving[token], swaps.place[best]] = swaps.row[best]
        improving = improving[least.isfinite()]
    return rows


class Near(NamedTuple):
    """Other codes of N activations, at each of T tolerances."""

    error: Tensor
    """``[N]`` squared errors of the codes that they are other than."""
    features: Tensor
    """``[N]`` int64: how many features those have."""
    count: Tensor
    """``[N, T]`` int64."""
    distinct: Tensor
    """``[N, T]`` int64."""
    change: Tensor
    """``[N, T]``: largest change; -1 where there is none of as many features."""
    attainable: Tensor
    """``[N, T]`` bool."""
    unsigned: Tensor
    """``[N, T]`` int64: exchanges with codes of either sign."""


def near(units: UnitRows, target: Tensor, rows: Tensor, thresholds: Tensor) -> Near:
    """Count the exchanges whose codes fit as well as the codes on ``rows [N, k]`` do."""
    enter = torch.ones(units.count, dtype=torch.bool)
    wider = (1 + torch.tensor(EPSILONS, dtype=torch.float64)).square()
    order, parts = [], []
    for tokens in batches((rows >= 0).sum(1), PLACES):
        # Codes that ended up at zero left gaps; rows come first.
        packed = rows[tokens].sort(dim=1, descending=True).values
        packed = packed[:, : int((packed >= 0).sum(1).max())]
        fit = Fit(Supports(units, packed), target[tokens])
        limits = wider * fit.error[:, None]
        farthest = Farthest(fit, limits, thresholds)
        (swaps,) = one_swaps([fit], [limits], enter, [farthest])
        order.append(tokens)
        parts.append(
            Near(
                fit.error, (packed >= 0).sum(1), swaps.count, swaps.distinct, farthest.change,
                farthest.attainable, swaps.unsigned,
            )
        )  # fmt: skip
    back = torch.cat(order).argsort()
    return Near(*(torch.cat(columns)[back] for columns in zip(*parts, strict=True)))


def non_uniqueness(bundle: Bundle, swaps: Near, *, signed: bool = False) -> list[Row]:
    """Shares of activations with other codes, a row for each tolerance.

    Of codes of either sign only whether there are others of either sign is said.
    """
    mean = bundle.resampling.mean
    sizes = torch.log2(1 + swaps.distinct.to(torch.float64))
    rows: list[Row] = []
    for t, epsilon in enumerate(EPSILONS):
        row: Row = {"epsilon": epsilon, "fvu": mean(swaps.error, bundle.variance)}
        if signed:
            rows.append(row | {"any": mean(swaps.unsigned[:, t] > 0)})
            continue
        row["features"] = mean(swaps.features)
        row["any"] = mean(swaps.count[:, t] > 0)
        row["attainable"] = mean(swaps.attainable[:, t])
        row["log2_size"] = mean(sizes[:, t])
        for least in CHANGES:
            row[f"change_{least:g}"] = mean(swaps.change[:, t] >= least)
        rows.append(row)
    return rows


def looked_at(
    bundle: Bundle, units: UnitRows, k: int, report: Callable[[str], None]
) -> Iterator[tuple[str, Near]]:
    """What exchanges there are of codes by pursuit: omp's, nnomp's, and these settled."""
    thresholds = bundle.thresholds.amax().expand(units.count)
    sizes = torch.full((len(bundle.x),), k)
    supports = {
        SIGNED: pursued(units, bundle.target, sizes, nonnegative=False),
        "nnomp": pursued(units, bundle.target, sizes),
    }
    supports["settled"] = settled(units, bundle.target, supports["nnomp"])
    for codes, rows in supports.items():
        report(f"k = {k}, {units.count} features: {codes}")
        yield codes, near(units, bundle.target, rows, thresholds)


def by_size(bundle: Bundle, report: Callable[[str], None]) -> Row:
    """Non-uniqueness of codes of k features, on the SAE's rows and on random ones."""
    looked = {
        (name, k, codes): swaps
        for name, units in with_control(bundle.sample).items()
        for k in SIZES
        for codes, swaps in looked_at(bundle, units, k, report)
    }
    return {
        "rows": lines(bundle, looked, "k"),
        "growth": growth(bundle, looked, [(SIZES[0], SIZES[-1])]),
        "like_error": like_error(bundle, *(looked[name, k, "settled"] for name, k in LIKE_ERROR)),
    }


def like_error(bundle: Bundle, trained: Near, random: Near) -> Row:
    """Near ties on random rows beside the SAE's, on the same activations: log2 of their ratios."""
    tolerance = EPSILONS.index(0.01)
    sizes = [1.0 + swaps.distinct[:, tolerance] for swaps in (trained, random)]
    mean = bundle.resampling.mean
    return {
        "log2_size": mean((sizes[1] / sizes[0]).log2()),
        "fvu": mean(random.error - trained.error, bundle.variance),
    }


def by_width(bundle: Bundle, report: Callable[[str], None]) -> Row:
    """Non-uniqueness on nested random subsets of the SAE's rows, and on the stitched decoder."""
    generator = torch.Generator().manual_seed(SEED)
    order = torch.randperm(bundle.sample.count, generator=generator)
    order = torch.cat([order, torch.arange(bundle.sample.count, bundle.stitched.count)])
    looked = {
        (name, width, codes): swaps
        for name, units in with_control(bundle.stitched).items()
        for width in WIDTHS
        for codes, swaps in looked_at(
            bundle, unit_rows(units.rows, order[:width].sort().values), AT_WIDTH, report
        )
    }
    return {
        "k": AT_WIDTH,
        "rows": lines(bundle, looked, "width"),
        "growth": growth(bundle, looked, [(WIDTHS[0], WIDTHS[-2]), WIDTHS[-2:]]),
    }


Looked = dict[tuple[str, int, str], Near]
"""By dictionary, step (k or width) and kind of codes."""


def lines(bundle: Bundle, looked: Looked, step: str) -> list[Row]:
    """Every figure of every step."""
    return [
        {"dictionary": name, step: at, "codes": codes} | row
        for (name, at, codes), swaps in looked.items()
        for row in non_uniqueness(bundle, swaps, signed=codes == SIGNED)
    ]


def growth(bundle: Bundle, looked: Looked, steps: Sequence[Sequence[int]]) -> list[Row]:
    """By how much figures of one step exceed those of another, on the same activations."""
    rows: list[Row] = []
    mean = bundle.resampling.mean
    for name, codes in sorted({(name, codes) for name, _, codes in looked if codes != SIGNED}):
        for start, stop in steps:
            before, after = looked[name, start, codes], looked[name, stop, codes]
            for t, epsilon in enumerate(EPSILONS):
                ratio = (1.0 + after.distinct[:, t]) / (1.0 + before.distinct[:, t])
                changed = [(of.change[:, t] >= CHANGES[1]).double() for of in (before, after)]
                rows.append(
                    {
                        "dictionary": name,
                        "codes": codes,
                        "from": start,
                        "to": stop,
                        "epsilon": epsilon,
                        "log2_size": mean(ratio.log2()),
                        "change_0.2": mean(changed[1] - changed[0]),
                    }
                )
    return rows
