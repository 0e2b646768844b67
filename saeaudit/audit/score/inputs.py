"""What an SAE is scored with: where a run's files hold it, and whether it can be of this SAE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NewType

from torch import Tensor

from saeaudit.audit.checks import check_codes, check_findings
from saeaudit.audit.codes import tell_better_reading
from saeaudit.audit.disagreement import Disagreement
from saeaudit.audit.mediators.examples import exchanges
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import MediatorRecord, Record, TokenRecord
from saeaudit.shown import OneLine
from saeaudit.sources.activations import Recorded, read_activations, sample_activations
from saeaudit.sources.explanations import load_explanations, place_of_explanations
from saeaudit.sources.neuronpedia import FeatureStatistics
from saeaudit.sources.stacked import Activations
from saeaudit.sources.statistics import load_statistics
from saeaudit.vocabulary import FETCHED, NONE, Similarity

MOST_EXAMPLES = 1000
"""Findings whose exchanges are priced where a scan has to be made for them."""


@dataclass(frozen=True, eq=False, repr=False)
class ScoreInputs(OneLine):
    """What one SAE is scored with: activations, feature statistics, or both."""

    activations: Activations | None = None
    """``[N, d_in]`` of any float dtype: a tensor, or files that are read as they are needed."""
    tokens: Sequence[str] | None = None
    """Text of each activation."""
    documents: Tensor | None = None
    """``[N]`` int64: of which document each activation is, where that is known."""
    features: dict[int, FeatureStatistics] | None = None
    """An export's feature statistics; they set the prices where there are any."""
    features_from: str = "features"
    """What errors call these."""
    mediators: Sequence[Record] | None = None
    """Records of `saeaudit.mediators` for this SAE: their alternatives are priced, and none are
    looked for."""
    explanations: Disagreement | None = None
    """Compared and calibrated texts."""
    findings: Sequence[Record] = ()
    """Records of a scan, of which those of this SAE count: how their features fire is counted."""


CheckedInputs = NewType("CheckedInputs", ScoreInputs)
"""Inputs that fit the SAE and the options; with features, mediators are among them."""


@dataclass(frozen=True)
class ScoreSources:
    """Where the inputs of every SAE of a run are."""

    activations: Sequence[str | Path] = ()
    """Files, folders and globs; the bundled ones where there are none and the SAE has any."""
    tokens: Path | None = None
    features: str | None = None
    """A file, a folder or "fetched"."""
    explanations: str = FETCHED
    """A file, a folder, "fetched" or "none"."""
    similarity: Similarity = "auto"
    """How texts are compared."""
    similarity_model: str | None = None
    """A name on the hub, or a folder; the usual one of `similarity` where None."""
    offline: bool = False
    """Whether to open no socket."""
    mediators: Sequence[Record] | None = None
    """Records of `saeaudit mediators`; each SAE takes its own."""
    neuronpedia: str | None = None
    """``model/source`` of what was fetched, where the user says it."""
    scan: Sequence[Record] = ()
    """Records of `saeaudit scan`."""


def read_inputs(
    dictionary: Dictionary, sources: ScoreSources, observer: Observer = SILENT
) -> ScoreInputs:
    """Read what one SAE is scored with.

    Raises:
        AuditError: something named is not there, damaged, or of another SAE.
    """
    mediators = _records_of(dictionary.sae, sources.mediators)
    activations, tokens, documents = _activations(dictionary, sources) or (None, None, None)
    features, features_from = _features(sources, dictionary.sae)
    return ScoreInputs(
        activations, tokens, documents, features, features_from, mediators,
        _explanations(dictionary, sources, observer), sources.scan,
    )  # fmt: skip


def check_inputs(
    dictionary: Dictionary, inputs: ScoreInputs, options: ScoreOptions, observer: Observer = SILENT
) -> CheckedInputs:
    """Check what one SAE is scored with, and add the examples that features are priced on.

    Args:
        dictionary: an opened SAE.
        inputs: read, or made by hand.
        options: must be possible with these inputs.
        observer: is told which reading of the file suits the activations, and of features that
            may be of another SAE.

    Raises:
        AuditError: neither activations nor features, options that need the other, features or
            mediators of another SAE, or mediators without alternatives.
    """
    activations, mediators = inputs.activations, inputs.mediators
    if inputs.features is not None:
        _check_features(dictionary, inputs, options, observer)
    elif activations is None:
        raise AuditError(
            "prices need activations, or feature statistics",
            where=dictionary.sae,
            hint="--activations PATH or --features FILE",
        )
    if activations is not None:
        tell_better_reading(dictionary, activations, options.device, observer)
    if mediators is not None:
        count = None if activations is None else len(activations)
        mediators = check_codes(mediators, dictionary, count)
        if not any(isinstance(record, MediatorRecord | TokenRecord) for record in mediators):
            raise AuditError(
                f"holds no other codes of {dictionary.sae} to choose between",
                where="--mediators",
                hint="the output of saeaudit mediators",
            )
    elif inputs.features is not None:
        mediators = scan_examples(dictionary)
    findings = check_findings(inputs.findings, dictionary)
    if findings and (activations is None or inputs.features is not None):
        raise AuditError(
            "how features of findings fire is counted on activations, without --features",
            where="--scan",
        )
    return CheckedInputs(replace(inputs, mediators=mediators, findings=findings))


def _check_features(
    dictionary: Dictionary, inputs: ScoreInputs, options: ScoreOptions, observer: Observer
) -> None:
    if options.canonicalise or options.explain is not None:
        raise AuditError(
            "--canonicalise and --explain need prices from activations, not --features",
            where=dictionary.sae,
        )
    if inputs.activations is None and options.distortion is not None:
        raise AuditError("--distortion needs activations", where=dictionary.sae)
    features, where = inputs.features or {}, inputs.features_from
    last = max(features, default=0)
    if last >= dictionary.d_sae:
        raise AuditError(
            f"has feature {last} of {dictionary.d_sae}",
            where=where,
            hint="are these statistics of another SAE?",
        )
    share = len(features) / dictionary.d_sae
    if share < 0.5:
        observer.note(f"{where} covers {share:.0%} of the features: is it of another SAE?")


def scan_examples(dictionary: Dictionary) -> list[MediatorRecord]:
    """Examples of the exchanges that a scan finds."""
    findings = [
        record
        for record in scan(dictionary, ScanOptions(max_findings=MOST_EXAMPLES))
        if record.type in ("pair", "triple")
    ]
    return list(exchanges(dictionary, findings))


def _records_of(sae: str, records: Sequence[Record] | None) -> list[Record] | None:
    if records is None:
        return None
    chosen = [record for record in records if getattr(record, "sae", sae) == sae]
    if not any(record.type == "dictionary" for record in chosen):
        other = next(record.sae for record in records if record.type == "dictionary")
        raise AuditError(f"--mediators holds records of {other}", where=sae)
    return chosen


def _activations(dictionary: Dictionary, sources: ScoreSources) -> Recorded | None:
    paths, texts = sources.activations, sources.tokens
    bundled = sample_activations(dictionary.sae)
    if not paths and bundled:
        paths, texts = bundled[:1], texts or bundled[1]
    return read_activations(paths, dictionary.activation_width, texts) if paths else None


def _features(sources: ScoreSources, sae: str) -> tuple[dict[int, FeatureStatistics] | None, str]:
    if sources.features is None:
        return None, ""
    return load_statistics(sources.features, sae, sources.neuronpedia)


def _explanations(
    dictionary: Dictionary, sources: ScoreSources, observer: Observer
) -> Disagreement | None:
    if sources.explanations == NONE:
        return None
    sae = dictionary.sae
    path = place_of_explanations(sources.explanations, sae, sources.neuronpedia)
    if path is None:
        observer.note(f"{sae}: no explanations, so none are compared (--explanations FILE)")
        return None
    live = dictionary.live().tolist()
    explanations = load_explanations(path, dictionary.d_sae)
    if explanations.left_out:
        observer.note(explanations.left_out)
    compared = Disagreement(
        explanations, live, method=sources.similarity,
        model=sources.similarity_model, offline=sources.offline,
    )  # fmt: skip
    if compared.coverage < 0.5:
        observer.note(
            f"{path}: explanations of only {compared.coverage:.0%} of the features; "
            "are they of this SAE?"
        )
    elif compared.coverage < 1:
        without = len(live) - round(compared.coverage * len(live))
        observer.note(f"{path}: {without:,} of {len(live):,} features have no explanation")
    return compared
