"""What an SAE is scored with, read from files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.score.disagreement import MODEL, Disagreement, Method
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.run import ScoreRecord, score
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import Record
from saeaudit.sources.activations import read_activations, read_tokens, sample_activations
from saeaudit.sources.explanations import find_explanations, find_features, load_explanations
from saeaudit.sources.neuronpedia import FeatureStatistics, read_features

FETCHED = "fetched"
"""For --features and --explanations: what came with the SAE or `saeaudit fetch` brought."""
NONE = "none"
"""For --explanations: compare none."""


@dataclass(frozen=True)
class Inputs:
    """Files that every SAE of a run is scored with."""

    activations: Path | None = None
    tokens: Path | None = None
    features: str | None = None
    explanations: str = FETCHED
    similarity: Method = "auto"
    similarity_model: str = MODEL
    offline: bool = False


def _features(given: str | None, sae: str) -> tuple[dict[int, FeatureStatistics] | None, str]:
    if given is None:
        return None, ""
    path = find_features(sae) if given == FETCHED else Path(given)
    if path is None:
        raise AuditError(
            "no feature statistics were fetched",
            where=sae,
            hint=f"saeaudit fetch {sae} --features",
        )
    if not path.exists():
        raise AuditError("no such file", where=str(path))
    below = path / "features"
    return read_features(below if below.is_dir() else path), str(path)


def _explanations(
    dictionary: Dictionary, inputs: Inputs, observer: Observer
) -> Disagreement | None:
    if inputs.explanations == NONE:
        return None
    sae = dictionary.sae
    fetched = inputs.explanations == FETCHED
    path = find_explanations(sae) if fetched else Path(inputs.explanations)
    if path is None:
        observer.note(f"{sae}: no explanations, so none are compared (--explanations FILE)")
        return None
    loaded = load_explanations(path, dictionary.d_sae)
    live = dictionary.live().tolist()
    said = Disagreement(
        loaded, live, method=inputs.similarity, model=inputs.similarity_model,
        offline=inputs.offline,
    )  # fmt: skip
    if said.coverage < 0.5:
        observer.note(
            f"{path}: explanations of only {said.coverage:.0%} of the features; "
            "are they of this SAE?"
        )
    elif said.coverage < 1:
        without = len(live) - round(said.coverage * len(live))
        observer.note(f"{path}: {without:,} of {len(live):,} features have no explanation")
    return said


def score_one(
    dictionary: Dictionary, inputs: Inputs, options: ScoreOptions,
    observer: Observer = SILENT, *, mediators: list[Record] | None = None,
) -> Iterator[ScoreRecord]:  # fmt: skip
    """Score one SAE with what its files hold."""
    sae = dictionary.sae
    bundled = sample_activations(sae) if inputs.activations is None else None
    path = inputs.activations or (bundled[0] if bundled else None)
    texts = inputs.tokens or (bundled[1] if bundled else None)
    matrix: Tensor | None = None
    tokens: list[str] | None = None
    if path is not None:
        encoder = dictionary.encoder
        width = dictionary.d_in if encoder is None else int(encoder.shape[0])
        matrix = read_activations(path, width)
        tokens = read_tokens(texts, len(matrix)) if texts else None
    statistics, where = _features(inputs.features, sae)
    said = _explanations(dictionary, inputs, observer)
    yield from score(
        dictionary, matrix, options, features=statistics, features_from=where,
        mediators=mediators, explanations=said, tokens=tokens, observer=observer,
    )  # fmt: skip
