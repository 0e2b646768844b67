"""Explanations and feature statistics from Neuronpedia's bulk exports.

The export is a public bucket: ``v1/<model>/<source>/{explanations,features}/batch-N.jsonl.gz``,
ordered by index *as text*, so an index comes from its row and never from a position. Rows can
repeat; a feature has none, one or several explanations.
"""

from __future__ import annotations

import json
import math
import re
import sys
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from saeaudit.errors import AuditError, TargetError
from saeaudit.sources.batches import Allowance, batches_in, read_rows
from saeaudit.sources.cache import cache_folder, check_name
from saeaudit.sources.known_sources import known_sources
from saeaudit.sources.releases import added_releases
from saeaudit.sources.sae import Sae

COMPLETE = ".complete"
"""Name of a file that lies beside the batches once all of them do."""
SOURCE = re.compile(r"[\w.-]+/[\w.-]+", re.ASCII)
INDEX = re.compile(r"[0-9]{1,9}")
MAX_INDEX = 10**9
MAX_TEXT = 1000
"""Characters of a description that are kept: enough to see that it is too long for a label."""
MAX_NAME = 100
"""Characters of a name: a row's, a method's, a model's."""
MAX_EMBEDDING = 8192
"""Numbers; the longest in use have 4096."""
MAX_BINS = 10_000
BY_HAND = "say it with --neuronpedia MODEL/SOURCE"
Kind = Literal["explanations", "features"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What one explainer says about one feature."""

    description: str
    kind: str
    """Method, e.g. "oai_token-act-pair" (typeName)."""
    model: str
    """The model that wrote it; may be empty."""
    embedding: Sequence[float] | None
    """Embedding of the description, where the export has one."""


@dataclass(frozen=True, slots=True)
class FeatureStatistics:
    """How often and how strongly a feature fires."""

    frac_nonzero: float
    """Share of tokens on which it fires, to 1e-5."""
    bin_centres: Sequence[float]
    """Of the histogram over its non-zero activations."""
    bin_heights: Sequence[float]
    """Counts, in proportion."""


def source_of(sae: Sae) -> str:
    """Neuronpedia's ``model/source`` for an SAE.

    The user says it, or a release of the user's own for the SAEs that it names; of all others a
    table does.

    Raises:
        TargetError: none is known that is certainly of this SAE.
    """
    if sae.neuronpedia is not None:
        return sae.neuronpedia
    if sae.remote is None:
        raise TargetError("no explanations are known for a local file", where=sae.id, hint=BY_HAND)
    repo, listed = sae.remote.repo.repo_id, sae.remote.listed
    for release in added_releases():
        for path in release.saes.values():
            if release.neuronpedia and f"{release.source}/{path}" == f"hf://{repo}/{listed.name}":
                return _filled(release.neuronpedia, path, sae.id)
    sources = known_sources()
    source = sources.get((repo, listed.name)) or sources.get((repo, listed.file))
    if source is None:
        raise TargetError("no Neuronpedia source is known for this SAE", where=sae.id, hint=BY_HAND)
    return source


def certain_source(sae: Sae) -> str | None:
    """Neuronpedia's ``model/source`` for an SAE, or None where none is certain."""
    try:
        return source_of(sae)
    except TargetError:
        return None


def give_source(text: str | None, saes: list[Sae]) -> list[Sae]:
    """The SAEs, with the ``model/source`` that the user gives, which is of one.

    Args:
        text: as typed; None where the user gives none.
        saes: resolved targets.

    Raises:
        AuditError: of another form, or for several SAEs.
    """
    if text is None:
        return saes
    if not SOURCE.fullmatch(text):
        raise AuditError(f"{text[:80]!r} is not MODEL/SOURCE", where="--neuronpedia")
    if len(saes) > 1:
        raise AuditError(f"is of one SAE, not of {len(saes)}", where="--neuronpedia")
    return [replace(sae, neuronpedia=text) for sae in saes]


def _filled(pattern: str, path: str, where: str) -> str:
    """A release's pattern for one of its SAEs."""
    fields = {
        "layer": re.search(r"(?:layer_|blocks\.|-L)(\d+)", path),
        "width": re.search(r"width_([0-9]+[km])", path),
    }
    for name, match in fields.items():
        if match is None and f"{{{name}}}" in pattern:
            raise TargetError(f"its path does not say its {name}", where=where, hint=BY_HAND)
        pattern = pattern.replace(f"{{{name}}}", match[1] if match else "")
    return pattern


def export_folder(source: str) -> Path:
    """Where an export is kept on this machine."""
    return cache_folder() / "neuronpedia" / "v1" / check_name(source, "Neuronpedia")


def read_explanations(folder: Path, *, embeddings: bool = True) -> dict[int, list[Explanation]]:
    """Explanations by feature; features without any are absent, repeated rows count once.

    Args:
        folder: of batches.
        embeddings: whether to read them, which takes most of the time.

    Raises:
        AuditError: no batches, a damaged one, or more than fits within the limits of `batches`.
    """
    batches = batches_in(folder)
    allowance = Allowance.of(batches)
    explanations: dict[int, list[Explanation]] = {}
    seen: set[object] = set()
    for row in read_rows(batches, allowance, without=None if embeddings else "embedding"):
        if not embeddings:
            row.pop("embedding", None)
        index, explanation = explanation_of(row)
        if index is None or explanation is None:
            continue
        row_id = _text(row.get("id"), MAX_NAME)
        identity = row_id or (index, explanation.description, explanation.kind)
        if identity in seen:
            continue
        floats = 0 if explanation.embedding is None else 8 * len(explanation.embedding)
        allowance.keep(sys.getsizeof(explanation.description) + floats)
        seen.add(identity)
        explanations.setdefault(index, []).append(explanation)
    return explanations


def explanation_of(row: dict[str, Any]) -> tuple[int | None, Explanation | None]:
    """A row's feature, and what it says of it; None where it says nothing."""
    index, description = _index(row), _text(row.get("description"), MAX_TEXT)
    if index is None or not description:
        return index, None
    return index, Explanation(
        description=description,
        kind=sys.intern(_text(row.get("typeName"), MAX_NAME)),
        model=sys.intern(_text(row.get("explanationModelName"), MAX_NAME)),
        embedding=_embedding(row.get("embedding")),
    )


def read_features(folder: Path) -> dict[int, FeatureStatistics]:
    """Firing frequencies and histograms by feature.

    A row whose numbers cannot be a histogram (infinite, negative, of unlike counts) is left out.

    Raises:
        AuditError: no batches, a damaged one, or more than fits within the limits of `batches`.
    """
    batches = batches_in(folder)
    allowance = Allowance.of(batches)
    features: dict[int, FeatureStatistics] = {}
    for row in read_rows(batches, allowance):
        index = _index(row)
        if index is None or index in features:
            continue
        centres = _numbers(row.get("freq_hist_data_bar_values") or [], MAX_BINS)
        heights = _numbers(row.get("freq_hist_data_bar_heights") or [], MAX_BINS)
        fraction = _numbers([row.get("frac_nonzero") or 0], 1)
        if centres is None or heights is None or len(centres) != len(heights) or not fraction:
            continue
        if min(heights, default=0) < 0 or not 0 <= fraction[0] <= 1:
            continue
        allowance.keep(16 * len(centres))
        features[index] = FeatureStatistics(fraction[0], centres, heights)
    return features


def _index(row: dict[str, Any]) -> int | None:
    """A feature's number, which exports give as text; None where it is none."""
    value = row.get("index")
    if isinstance(value, str) and INDEX.fullmatch(value.strip()):
        return int(value)
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < MAX_INDEX:
        return value
    return None


def _text(value: Any, most: int) -> str:
    """Text that can be written, stripped and cut; empty where it is none."""
    if not isinstance(value, str):
        return ""
    return value.strip()[:most].encode("utf-8", "replace").decode()  # half a surrogate pair


def _numbers(value: Any, most: int) -> array[float] | None:
    """A list of finite numbers; None where it is none, or too long."""
    if not isinstance(value, list) or len(value) > most:
        return None
    if not {int, float}.issuperset(map(type, value)):
        return None
    try:
        numbers = array("d", value)
    except OverflowError:
        return None
    return numbers if all(map(math.isfinite, numbers)) else None


def _embedding(value: Any) -> array[float] | None:
    """Embeddings come as a list, as that list in text, or not at all."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    return _numbers(value, MAX_EMBEDDING) or None
