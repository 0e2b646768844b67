"""Unit examples of the exchanges that a dictionary's pairs and triples allow."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from saeaudit.core.exchange import SUPPORTS, kernel
from saeaudit.core.rows import fold
from saeaudit.dictionary import Dictionary
from saeaudit.records import Code, MediatorRecord, PairRecord, Record, TripleRecord


def exchanges(dictionary: Dictionary, findings: Iterable[Record]) -> Iterator[MediatorRecord]:
    """Show each finding's exchanges on the code that is 1 on the features that it starts from.

    A pair gives one exchange, its first feature for its second. A triple gives one for each of its
    three supports that has any. Codes are in the file's own scale; the alternative's are least
    squares on the new support, computed from the rows themselves.

    Args:
        dictionary: the SAE that the findings are of.
        findings: a scan's, checked; groups, antipodal pairs and claims have no exchange of their
            own.
    """
    for finding in findings:
        if isinstance(finding, PairRecord) and finding.kind == "duplicate":
            i, j = finding.features
            yield _example(dictionary, finding.features, (i,), i, j, "always")
        elif isinstance(finding, TripleRecord) and finding.coefficients is not None:
            yield from _of_triple(dictionary, finding)


def _of_triple(dictionary: Dictionary, triple: TripleRecord) -> Iterator[MediatorRecord]:
    assert triple.coefficients is not None
    norms = dictionary.norms[list(triple.features)].tolist()
    # Kernel vector of the rows in the file's scale: sum_p entries_p d_p is nearly zero.
    entries = [k / n for k, n in zip(kernel(*triple.coefficients), norms, strict=True)]
    for support in SUPPORTS:
        (entering,) = {0, 1, 2} - set(support)
        if entries[entering] == 0:
            continue
        steps = {p: -entries[p] / entries[entering] for p in support}
        falling = [p for p in support if steps[p] > 0]
        if not falling:
            continue
        # As the third code grows from 0, code p falls by steps_p times as much.
        leaving = max(falling, key=lambda p: steps[p])
        valid = "always"
        if len(falling) == 2:
            (other,) = set(support) - {leaving}
            ratio = steps[leaving] / steps[other]
            names = triple.features[leaving], triple.features[other]
            valid = f"z[{names[0]}] / z[{names[1]}] <= {ratio:.9g}"
        yield _example(
            dictionary,
            triple.features,
            tuple(triple.features[p] for p in support),
            triple.features[leaving],
            triple.features[entering],
            valid,
        )


def _example(
    dictionary: Dictionary, features: tuple[int, ...], support: tuple[int, ...], leaving: int,
    entering: int, valid: str,
) -> MediatorRecord:  # fmt: skip
    decoder = dictionary.weights.decoder
    after = [f for f in support if f != leaving] + [entering]
    target = fold_rows(decoder[list(support)].to(torch.float64))
    rows = decoder[after].to(torch.float64)
    codes = torch.linalg.lstsq(rows.T, target[:, None]).solution[:, 0].clamp(min=0)
    residual = target - fold_rows(rows * codes[:, None])
    norms = dictionary.norms[list(support)]
    size, error = float(fold(target * target)), float(fold(residual * residual))
    alternative = tuple(
        Code(f, float(z)) for f, z in sorted(zip(after, codes.tolist(), strict=True)) if z > 0
    )
    moved = norms[[support.index(leaving)]] / norms.sum()
    difference = {feature: -float(norm) for feature, norm in zip(support, norms, strict=True)}
    for feature, code in zip(after, codes.tolist(), strict=True):
        part = code * float(dictionary.norms[feature])
        difference[feature] = difference.get(feature, 0.0) + part
    return MediatorRecord(
        sae=dictionary.sae,
        token=None,
        text=None,
        l0=len(support),
        mode="reconstruction",
        epsilon=0.0,
        removed=(leaving,),
        added=(entering,),
        codes=tuple(Code(f, 1.0) for f in sorted(support)),
        alternative=alternative,
        error=error,
        reference_error=size,
        error_ratio=error / size if size else None,
        moved=float(moved),
        change=sum(map(abs, difference.values())) / float(norms.sum()),
        attainable=attainable(dictionary, alternative),
        valid=valid,
        features=features,
    )


def fold_rows(rows: Tensor) -> Tensor:
    """Sum rows ``[k, d]`` to ``[d]`` in a fixed order."""
    return fold(rows.T)


def attainable(dictionary: Dictionary, codes: Iterable[Code]) -> bool | None:
    """Whether the SAE's encoder could output these codes: each above its feature's threshold.

    None where there are no thresholds to be above.
    """
    weights = dictionary.weights
    if weights.threshold is None:
        return None
    scale = dictionary.norms if weights.norm_scaled else torch.ones(1).expand(dictionary.d_sae)
    return all(
        c.value * float(scale[c.feature]) > float(weights.threshold[c.feature]) for c in codes
    )
