"""Scan: every duplicate, antipodal pair and genuine dependent triple of a dictionary."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saeaudit.audit.annotations import Annotations, AnnotationSources
from saeaudit.audit.describe import describe_dictionary
from saeaudit.audit.many import audit_all
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.open import open_target
from saeaudit.audit.scan.claims import answer_claims
from saeaudit.audit.scan.directions import encoder_cosines
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.search import SearchResult, search
from saeaudit.core.cosines.chance import random_row_max, welch_bound
from saeaudit.core.cosines.genuine import Triples, strong_cosine
from saeaudit.core.cosines.maxima import order_statistic, unique_below
from saeaudit.core.cosines.pairs import Pairs
from saeaudit.core.cosines.products import second_dtype
from saeaudit.core.cosines.screen import SLACK_LIMIT
from saeaudit.core.exchange import exchange_classes, sign_pattern
from saeaudit.core.rows import UnitRows, round9
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import (
    Certificate,
    ClaimRecord,
    ClosestPair,
    DictionaryRecord,
    GroupRecord,
    MaxCosine,
    PairRecord,
    Quantiles,
    Record,
    ScanSummary,
    TripleRecord,
)
from saeaudit.sources.sae import Sae
from saeaudit.vocabulary import ScreenName

if TYPE_CHECKING:
    from saeaudit.audit.open import Target

TINY = 1e9
"""Multiply-adds of all cosines below which rows are swept in float32, whatever else is fast."""
SMALL = 20e9
"""Below which no rows are tried: to choose by them would take as long as it could save."""
SMALL_IN_BF16 = 40e9
"""The same where bfloat16 is fast: such rows are swept in it."""
QUANTILES = {
    "min": 0.0, "p05": 0.05, "p25": 0.25, "p50": 0.5, "p75": 0.75, "p95": 0.95, "p99": 0.99,
    "max": 1.0,
}  # fmt: skip

ScanRecord = DictionaryRecord | ClaimRecord | PairRecord | GroupRecord | TripleRecord | ScanSummary


def choose_screen(options: ScanOptions, decoder: Tensor) -> ScreenName | None:
    """Kind of product that is asked for, or serves; None where the rows are to decide."""
    if options.screen != "auto":
        return options.screen
    count, width = decoder.shape
    products = count * count * width
    if products < TINY:
        return "fp32"
    fast = second_dtype(width, torch.device(options.device)) == torch.bfloat16
    if products >= (SMALL_IN_BF16 if fast else SMALL):
        return None
    return "bf16" if fast else "fp32"


def scan_all(
    saes: Sequence[Sae], options: ScanOptions, screen: ScreenName | None,
    observer: Observer = SILENT, *, annotated: AnnotationSources | None = None,
    check: Callable[[DictionaryRecord], object] | None = None,
) -> Iterator[Record]:  # fmt: skip
    """Scan resolved targets one after the other; see `scan` and `audit_all`.

    Args:
        saes: in the order to report them.
        options: what to look for.
        screen: the kind of product; for each SAE the one that suits it where None.
        observer: is told how far it is, and what a user should read.
        annotated: where labels and firing rates are; none are looked for where None.
        check: called with each SAE's dictionary before it is searched; raises an AuditError where
            it cannot be judged.
    """

    def audit(dictionary: Dictionary) -> Iterator[ScanRecord]:
        known = None
        if annotated:
            known = annotated.read(dictionary, observer, embeddings=bool(options.claims))
        return scan(dictionary, options, screen=screen, observer=observer, annotations=known)

    return audit_all(saes, audit, check, observer)


def scan(
    dictionary: Target,
    options: ScanOptions | None = None,
    *,
    screen: ScreenName | None = None,
    observer: Observer = SILENT,
    annotations: Annotations | None = None,
) -> Iterator[ScanRecord]:
    """Scan one dictionary.

    Args:
        dictionary: an SAE, opened or anything that `saeaudit.open` takes.
        options: what to look for; the defaults where None.
        screen: the kind of product, where the caller has chosen; findings do not depend on it.
        observer: is told how far it is.
        annotations: what is known of its features; its pages on Neuronpedia where None.

    Yields:
        The dictionary record; answers to claims, groups, pairs and triples, each sorted by
        features; the summary.

    Raises:
        AuditError: fewer than two usable rows, a claim about a feature that is not live, or more
            strongly correlated rows than can be searched.
    """
    dictionary = open_target(dictionary)
    options = options or ScanOptions()
    annotations = annotations or Annotations(neuronpedia=dictionary.neuronpedia)
    yield describe_dictionary(dictionary, observer)
    doubt = None if options.include_collapsed else dictionary.collapsed_doubt
    if doubt:
        observer.note(
            f"{dictionary.sae}: {doubt}: they are left out as dead features, which they may not be "
            "(--include-collapsed keeps them)"
        )
    live = dictionary.live(include_collapsed=options.include_collapsed)
    if len(live) < 2:
        raise AuditError(
            f"nothing to audit: {len(live)} of {dictionary.d_sae} rows is usable",
            where=dictionary.sae,
            hint="--include-collapsed keeps rows of very small norm",
        )
    units = UnitRows(dictionary.weights.decoder, live, dictionary.norms[live])
    yield from answer_claims(dictionary, units, options, annotations)
    name = screen or choose_screen(options, dictionary.weights.decoder)
    result = search(dictionary.sae, units, options, name, observer)
    observer.screened(result.cost)
    yield from map(annotations.on, _groups(dictionary.sae, units, result.pairs))
    pairs, pairs_cut = _pairs(dictionary, units, result.pairs, options.max_findings)
    yield from map(annotations.on, pairs)
    triples = _triples(dictionary.sae, units, result.triples, options.max_findings)
    yield from map(annotations.on, triples)
    cut = pairs_cut or len(result.triples.features) > options.max_findings
    summary = _summary(dictionary, units, result, options, complete=not cut)
    yield replace(summary, closest_pair=annotations.on(summary.closest_pair))


def _groups(sae: str, units: UnitRows, pairs: Pairs) -> Iterator[GroupRecord]:
    order = torch.argsort(pairs.component, stable=True)
    labels, sizes = torch.unique_consecutive(pairs.component[order], return_counts=True)
    same = pairs.cosine > 0
    of_pair = pairs.component[pairs.i[same]]
    least = torch.full((units.count,), float("inf"), dtype=torch.float64)
    least.scatter_reduce_(0, of_pair, pairs.cosine[same], "amin")
    most = torch.full((units.count,), float("-inf"), dtype=torch.float64)
    most.scatter_reduce_(0, of_pair, pairs.cosine[same], "amax")
    ends = sizes.cumsum(0).tolist()
    for label, size, end in zip(labels.tolist(), sizes.tolist(), ends, strict=True):
        if size >= 3:
            rows = order[end - size : end]
            yield GroupRecord(
                sae=sae,
                features=tuple(units.live[rows].tolist()),
                size=size,
                cosine_min=float(least[label]) if pairs.listed else None,
                cosine_max=float(most[label]) if pairs.listed else None,
            )


def _pairs(
    dictionary: Dictionary, units: UnitRows, pairs: Pairs, limit: int
) -> tuple[Iterator[PairRecord], bool]:
    """Pair records, and whether any were cut: then groups stand for their members' pairs."""
    i, j, cosine = pairs.i, pairs.j, pairs.cosine
    if len(i) > limit:
        sizes = torch.bincount(pairs.component, minlength=units.count)
        alone = ~((cosine > 0) & (sizes[pairs.component[i]] >= 3))
        i, j, cosine = i[alone][:limit], j[alone][:limit], cosine[alone][:limit]
    cut = len(i) < pairs.duplicates + pairs.antipodal
    return _pair_records(dictionary, units, i, j, cosine), cut


def _pair_records(
    dictionary: Dictionary, units: UnitRows, i: Tensor, j: Tensor, cosine: Tensor
) -> Iterator[PairRecord]:
    first, second = units.live[i], units.live[j]
    ratio = (units.norms[i] / units.norms[j]).tolist()
    encoder = encoder_cosines(dictionary, first, second)
    columns = zip(first.tolist(), second.tolist(), cosine.tolist(), ratio, encoder, strict=True)
    for a, b, c, norm_ratio, encoder_cosine in columns:
        yield PairRecord(
            sae=dictionary.sae,
            features=(a, b),
            kind="duplicate" if c > 0 else "antipodal",
            cosine=c,
            norm_ratio=norm_ratio,
            encoder_cosine=encoder_cosine,
        )


def _closest_pair(dictionary: Dictionary, units: UnitRows, i: Tensor, j: Tensor) -> ClosestPair:
    first, second = units.live[i], units.live[j]
    (encoder_cosine,) = encoder_cosines(dictionary, first, second)
    return ClosestPair(
        features=(int(first), int(second)),
        cosine=float(round9(units.cosines(i, j))),
        encoder_cosine=encoder_cosine,
    )


def _triples(sae: str, units: UnitRows, dependent: Triples, limit: int) -> Iterator[TripleRecord]:
    """Records of the first triples, sorted by features."""
    columns = (
        column[:limit].tolist()
        for column in dependent._replace(features=units.live[dependent.features])
    )
    for features, a, b, residual, single, cosines in sorted(zip(*columns, strict=True)):
        name, inner = sign_pattern(a, b)
        outer = sorted(f for p, f in enumerate(features) if p != inner) if inner is not None else []
        yield TripleRecord(
            sae=sae,
            features=tuple(features),
            coefficients=(a, b),
            alpha=-a / b,
            residual=residual,
            single_residual=single,
            cosines=tuple(cosines),
            pattern=name,
            inner=features[inner] if inner is not None else None,
            outer=tuple(outer),
            exchange=exchange_classes(a, b),
        )


def _summary(
    dictionary: Dictionary, units: UnitRows, result: SearchResult, options: ScanOptions,
    *, complete: bool,
) -> ScanSummary:  # fmt: skip
    pairs, row_max = result.pairs, result.row_max
    components = len(torch.unique(pairs.component))
    in_triples = torch.unique(result.triples.features)
    coherence = float(row_max.max())
    control = {key: random_row_max(units.count, units.width, q) for key, q in QUANTILES.items()}
    bins = (row_max * 64).long().clamp(max=63)
    kept = options.include_collapsed
    dead = len(dictionary.zero_rows) + (0 if kept else len(dictionary.collapsed_rows))
    return ScanSummary(
        sae=dictionary.sae,
        pairs=pairs.duplicates,
        antipodal_pairs=pairs.antipodal,
        triples=len(result.triples.features),
        features_in_pairs=int(pairs.member.sum()),
        features_in_triples=len(in_triples),
        duplicate_fraction=(units.count - components) / units.count,
        live_features=units.count,
        dead_features=dead,
        dead_fraction=dead / dictionary.d_sae,
        collapsed_fraction=0.0 if kept else dictionary.collapsed_fraction,
        collapsed_doubt=None if kept else dictionary.collapsed_doubt,
        random_control=Quantiles(**control),
        coherence=coherence,
        welch_bound=welch_bound(units.count, units.width),
        babel=result.babel,
        unique_below_k=unique_below(coherence),
        max_cosine=MaxCosine(
            quantiles=Quantiles(
                **{key: order_statistic(row_max, q) for key, q in QUANTILES.items()}
            ),
            histogram=tuple(torch.bincount(bins, minlength=64).tolist()),
        ),
        closest_pair=_closest_pair(dictionary, units, *result.closest),
        complete=complete,
        certificate=Certificate(
            screen=options.screen,
            slack=SLACK_LIMIT,
            edge_floor=result.edge_floor,
            strong_floor=strong_cosine(options.max_residual, options.min_gain),
        ),
    )
