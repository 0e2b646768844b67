"""What alternatives are looked for on, and where a run's files hold it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from saeaudit.audit.annotations import AnnotationSources
from saeaudit.audit.codes import make_encoder
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.open import open_single
from saeaudit.core.budget import DEFAULT
from saeaudit.core.rows import spans
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import Record
from saeaudit.shown import OneLine
from saeaudit.sources.activations import read_activations, sample_activations
from saeaudit.sources.codes import check_codes, read_codes
from saeaudit.sources.sae import Sae
from saeaudit.sources.stacked import Activations

PURSUITS = {"omp": False, "nnomp": True}
"""Built-in pursuits by name: whether codes are non-negative."""

SAME_DECODER = 0.01
"""Rows may differ by this share of their norms: bfloat16 rounds to 0.004."""

Codes = Callable[[Tensor], Tensor]
"""Codes ``[m, F]`` of the activations ``[m]`` int64."""


@dataclass(frozen=True, eq=False, repr=False)
class MediatorInputs(OneLine):
    """What one SAE's alternatives are looked for on: activations, a scan's findings, or both."""

    activations: Activations | None = None
    """``[N, d_in]`` of any float dtype: a tensor, or files that are read as they are needed."""
    tokens: Sequence[str] | None = None
    """Text of each activation."""
    documents: Tensor | None = None
    """``[N]`` int64: of which document each activation is, where that is known."""
    findings: Sequence[Record] = ()
    """Records of a scan, of which those of this SAE count."""
    codes: Mapping[str, Codes | None] = field(default_factory=dict)
    """Other encoders' codes by name; None for the pursuits of `PURSUITS`."""
    labels: Mapping[int, str] | None = None
    """Feature → what its explanation says, to stand in the records."""


@dataclass(frozen=True)
class MediatorSources:
    """Where the inputs of a run are."""

    activations: Sequence[str | Path] = ()
    """Files, folders and globs; the bundled ones where there are none, nor a scan, and the SAE has
    any."""
    tokens: Path | None = None
    scan: Sequence[Record] | None = None
    """Records of `saeaudit scan`."""
    codes: Sequence[str] = ()
    """Files of other codes of the same activations, or names of `PURSUITS`."""
    encoders: Mapping[str, Sequence[Sae]] = field(default_factory=dict)
    """Targets whose encoders are compared, and what each was resolved to."""
    annotations: AnnotationSources | None = None
    """What is known of features; nothing where None."""


def read_inputs(
    dictionary: Dictionary, sources: MediatorSources, device: str, observer: Observer = SILENT
) -> MediatorInputs:
    """Read what alternatives are looked for on.

    Args:
        dictionary: an opened SAE.
        sources: where it is.
        device: where other encoders compute.
        observer: is told what a user should read.

    Raises:
        AuditError: nothing to look at, or something named is not there, damaged, or of another
            SAE.
    """
    findings = sources.scan or ()
    known = sources.annotations
    labels = known.read(dictionary, observer).labels if known else None
    paths, texts = sources.activations, sources.tokens
    if not paths and sources.scan is None:
        bundled = sample_activations(dictionary.sae)
        if bundled is None:
            raise AuditError(
                "nothing to look at",
                where=dictionary.sae,
                hint="--activations PATH, or --scan FILE for what a scan found (`saeaudit scan "
                f"{dictionary.sae} | saeaudit mediators {dictionary.sae} --scan -`)",
            )
        paths, texts = bundled[:1], texts or bundled[1]
    if not paths:
        return MediatorInputs(findings=findings, labels=labels)
    recorded = read_activations(paths, dictionary.activation_width, texts)
    codes = _codes(dictionary, recorded.activations, sources, device)
    return MediatorInputs(*recorded, findings, codes, labels)


def _codes(
    dictionary: Dictionary, activations: Activations, sources: MediatorSources, device: str
) -> dict[str, Codes | None]:
    codes: dict[str, Codes | None] = {
        name: None
        if name in PURSUITS
        else read_codes(Path(name), len(activations), dictionary.d_sae)
        for name in sources.codes
    }
    for target, saes in sources.encoders.items():
        other = open_single(saes, target)
        if (other.d_sae, other.d_in) != (dictionary.d_sae, dictionary.d_in):
            raise AuditError(
                f"{other.d_sae} features x {other.d_in}; {dictionary.sae} has "
                f"{dictionary.d_sae} x {dictionary.d_in}",
                where=f"--encoder {target}",
                hint="codes are compared on one decoder",
            )
        apart = decoder_distance(other, dictionary)
        if not apart <= SAME_DECODER:
            raise AuditError(
                f"its decoder is another: rows differ by {apart:.2g} of their norms",
                where=f"--encoder {target}",
                hint=f"codes are compared on the decoder of {dictionary.sae}",
            )
        codes[target] = _encoder_codes(other, activations, device, f"--encoder {target}")
    return codes


def decoder_distance(first: Dictionary, second: Dictionary) -> float:
    """How far two decoders ``[F, d]`` are apart, over the norm of the second's live rows.

    NaN where the first has a row that is not finite among these.
    """
    live = second.live(include_collapsed=True)
    square = 0.0
    for start, stop in spans(len(live), DEFAULT.exact_rows(second.d_in, live.device)):
        rows = live[start:stop]
        one, other = (d.weights.decoder[rows].double() for d in (first, second))
        square += float((one - other).square().sum())
    return math.sqrt(square / float(second.norms[live].square().sum()))


def _encoder_codes(
    dictionary: Dictionary, activations: Activations, device: str, where: str
) -> Codes:
    encoder = make_encoder(dictionary, device=device, dtype=torch.float64)

    def encode(tokens: Tensor) -> Tensor:
        x = activations[tokens].to(device, torch.float64)
        return check_codes(encoder.codes(x), where, tokens)

    return encode
