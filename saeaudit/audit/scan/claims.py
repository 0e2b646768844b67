"""Answers to claims about named features: holds, does not hold, or a pair explains it.

A triple's claim is that f3 is beta (f2 - alpha f1) with beta > 0, in the roles in which the three
were named; a pair's, that one feature is as good as the other. They are answered by the thresholds
of the scan (docs/mathematics.md), and whatever they are, a claim is no finding: it was named, not
found.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from saeaudit.audit.annotations import Annotations
from saeaudit.audit.disagreement import Disagreement
from saeaudit.audit.scan.directions import encoder_cosines
from saeaudit.audit.scan.options import ScanOptions, claim_option
from saeaudit.core.claim import Fit, example, fit, rounded
from saeaudit.core.cosines.genuine import LEAST_SINGLE
from saeaudit.core.rows import UnitRows
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import ClaimRecord
from saeaudit.vocabulary import Holds

Features = tuple[int, ...]
SIDES = ((1, 2, 2), (0, 2, 1), (0, 1, 0))
"""Two positions of a triple, and where their cosine stands; f2 and f3 first."""


def answer_claims(
    dictionary: Dictionary, units: UnitRows, options: ScanOptions, annotations: Annotations
) -> Iterator[ClaimRecord]:
    """Answer each claim, in ascending order of the features that it names.

    Args:
        dictionary: an opened SAE.
        units: its live rows.
        options: the claims, and the thresholds that decide.
        annotations: what is known of its features, and texts that can be compared.

    Raises:
        AuditError: a feature that is not there, or not live.
    """
    rows = _rows_of(dictionary, units, options)
    explained = None
    if options.claims and annotations.explanations is not None:
        explained = Disagreement(annotations.explanations, units.live.tolist())
    for features in options.claims:
        index = torch.tensor([rows[feature] for feature in features])
        best, code = fit(units, index), example(units, index)
        answer = _judge_pair if len(features) == 2 else _judge_triple
        holds, sentence = answer(best, features, options)
        record = ClaimRecord(
            sae=dictionary.sae,
            features=features,
            holds=holds,
            sentence=sentence,
            alpha=best.alpha,
            beta=best.beta,
            residual=best.residual,
            residual_without_f1=best.without_f1,
            cosines=best.cosines,
            encoder_cosines=_encoder_cosines(dictionary, features),
            z=code.z,
            z_prime=code.z_prime,
            leaving=features[code.leaving],
            error=code.error,
        )
        if explained is not None:
            record = _compare_labels(record, explained)
        yield annotations.on(record)


def _compare_labels(record: ClaimRecord, explained: Disagreement) -> ClaimRecord:
    """Say how far the labels of the features that are exchanged disagree, and random ones."""
    (disagreement,) = explained.of([record.leaving], record.features[-1:])
    if disagreement is None:
        return record
    return replace(
        record,
        label_disagreement=disagreement,
        label_chance=float(explained.random.mean()),
        label_percentile=explained.percentile(disagreement),
        similarity_method=explained.method,
    )


def _rows_of(dictionary: Dictionary, units: UnitRows, options: ScanOptions) -> dict[int, int]:
    """Row of `units` of every feature that is named.

    Raises:
        AuditError: one has none.
    """
    named = {feature for claim in options.claims for feature in claim}
    rows = {
        feature: row
        for row, feature in enumerate(units.live.tolist() if named else ())
        if feature in named
    }
    for claim in options.claims:
        for feature in claim:
            if feature not in rows:
                raise _not_live(dictionary, feature, claim)
    return rows


def _not_live(dictionary: Dictionary, feature: int, claim: Features) -> AuditError:
    where = claim_option(claim)
    if not 0 <= feature < dictionary.d_sae:
        last = dictionary.d_sae - 1
        hint = f"{dictionary.sae} has features 0 to {last}"
        return AuditError(f"there is no feature {feature}", where=where, hint=hint)
    if feature in dictionary.collapsed_rows.tolist():
        return AuditError(
            f"the row of feature {feature} is collapsed, so the feature is dead",
            where=where,
            hint="--include-collapsed takes such rows as they are",
        )
    kind = "zero" if feature in dictionary.zero_rows.tolist() else "not finite"
    hint = ""
    if len(claim) == 3:
        others = ",".join(str(other) for other in claim if other != feature)
        hint = f"--pair {others} asks about the other two"
    return AuditError(
        f"the row of feature {feature} is {kind}: it has no direction", where=where, hint=hint
    )


def _encoder_cosines(dictionary: Dictionary, features: Features) -> tuple[float | None, ...]:
    i, j = _sides(torch.tensor(features))
    return tuple(encoder_cosines(dictionary, i, j))


def _sides(features: Tensor) -> tuple[Tensor, Tensor]:
    """First and second of the pairs 12, 13 and 23 of three features, or of the pair 12 of two."""
    first, second = torch.triu_indices(len(features), len(features), 1)
    return features[first], features[second]


def _judge_pair(best: Fit, features: Features, options: ScanOptions) -> tuple[Holds, str]:
    (cosine,) = best.cosines
    both = f"{features[0]} and {features[1]}"
    if cosine >= options.min_cosine:
        return "yes", f"holds: {both} are duplicates (cosine {cosine:.4f})"
    if cosine <= -options.min_cosine:
        return "no", (
            f"does not hold: {both} are antipodal (cosine {cosine:.4f}), and no code >= 0 can use "
            "the one for the other"
        )
    return "no", (
        f"does not hold: the cosine of {both} is {cosine:.4f}, and {options.min_cosine:g} is "
        f"asked of duplicates; {_percent(best.residual)} of {features[1]} is left"
    )


def _judge_triple(best: Fit, features: Features, options: ScanOptions) -> tuple[Holds, str]:
    f1, f2, f3 = features
    left = best.residual
    if left > options.max_residual:
        return "no", (
            f"does not hold: {_percent(left)} of {f3} is left, and at most "
            f"{_percent(options.max_residual)} may be"
        )
    for i, j, side in SIDES:
        if _is_pair(best.cosines[side], options):
            (other,) = {0, 1, 2} - {i, j}
            both = _said_of_pair(features[i], features[j], best.cosines[side], options)
            return "pair", f"{features[other]} adds nothing: {both}"
    c13, c23 = best.cosines[1:]
    single = min(_left_by(c13), _left_by(c23))
    if single < rounded(options.min_gain * left):
        better = f2 if abs(c23) >= abs(c13) else f1
        return "no", (
            f"does not hold: {_percent(left)} of {f3} is left, and with {better} alone "
            f"{_percent(single)}; {options.min_gain:g} times as much is asked"
        )
    alpha, beta = best.alpha or 0.0, best.beta or 0.0
    if beta <= 0:
        return "no", _against(-alpha * beta, beta, features)
    sign = "-" if alpha >= 0 else "+"
    return "yes", (
        f"holds: {f3} = {beta:.4g} x ({f2} {sign} {abs(alpha):.4g} x {f1}); {_percent(left)} is "
        f"left, {_percent(best.without_f1 or 0.0)} without {f1}"
    )


def _against(a: float, b: float, features: Features) -> str:
    """Why a triple in one plane, u3 = a u1 + b u2, does not hold where b is not positive."""
    f1, f2, f3 = features
    if a > 0:
        return (
            f"does not hold in these roles: {f3} = {a:.4g} x ({f1} - {-b / a:.4g} x {f2}), which "
            f"is --triple {f2},{f1},{f3}"
        )
    return (
        f"does not hold: {f3} = {b:.4g} x {f2} - {-a:.4g} x {f1} points against both, and no code "
        f">= 0 on the two can let it in"
    )


def _is_pair(cosine: float, options: ScanOptions) -> bool:
    """Whether two rows are so nearly parallel that a triple with them is a pair's business."""
    left = _left_by(cosine)
    return left <= options.max_residual if cosine > 0 else left < LEAST_SINGLE


def _said_of_pair(i: int, j: int, cosine: float, options: ScanOptions) -> str:
    if cosine < 0:
        return f"{i} and {j} are antipodal (cosine {cosine:.4f})"
    if cosine >= options.min_cosine:
        return f"{i} and {j} are duplicates (cosine {cosine:.4f})"
    return f"{i} alone leaves {_percent(_left_by(cosine))} of {j} (cosine {cosine:.4f})"


def _left_by(cosine: float) -> float:
    """What is left of a unit row of which another's line takes this cosine."""
    return rounded(math.sqrt(max(1 - cosine * cosine, 0.0)))


def _percent(share: float) -> str:
    """A share as people read it.

    Example: ``_percent(0.7312)`` is "73 %", ``_percent(0.0123)`` is "1.2 %".
    """
    if share < 0.0005:
        return "0 %" if share < 1e-8 else "less than 0.1 %"
    return f"{100 * share:.0f} %" if share >= 0.0995 else f"{100 * share:.2g} %"
