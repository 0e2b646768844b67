"""Explanations and feature statistics from Neuronpedia's bulk exports.

The export is a public bucket: ``v1/<model>/<source>/{explanations,features}/batch-N.jsonl.gz``,
ordered by index *as text*, so an index comes from its row and never from a position. Rows can
repeat; a feature has none, one or several explanations.
"""

from __future__ import annotations

import gzip
import html
import json
import os
import re
import urllib.parse
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from saeaudit.errors import AuditError, TargetError
from saeaudit.sources.cache import cache_folder, check_name
from saeaudit.sources.download import Bytes, get
from saeaudit.sources.releases import Release, known_releases
from saeaudit.sources.target import Local

BASE_URL = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
"""Overridden by SAEAUDIT_NEURONPEDIA_URL."""
WORKERS = 8
MAX_ROW = 64 << 20
Kind = Literal["explanations", "features"]


@dataclass(frozen=True)
class Explanation:
    """What one explainer says about one feature."""

    description: str
    kind: str
    """Method, e.g. "oai_token-act-pair" (typeName)."""
    model: str
    """The model that wrote it; may be empty."""
    embedding: tuple[float, ...] | None
    """Embedding of the description, where the export has one."""


@dataclass(frozen=True)
class FeatureStatistics:
    """How often and how strongly a feature fires."""

    frac_nonzero: float
    """Share of tokens on which it fires, to 1e-5."""
    bin_centres: tuple[float, ...]
    """Of the histogram over its non-zero activations."""
    bin_heights: tuple[float, ...]
    """Counts, in proportion."""


def source_of(local: Local) -> str:
    """Neuronpedia's ``model/source`` for an SAE.

    Raises:
        TargetError: no release that is known says where its explanations are.
    """
    if local.remote is None:
        raise TargetError("no explanations are known for a local file", where=local.sae)
    repo, path = local.remote.repo.repo_id, local.remote.listed.name
    release = next(
        (r for r in known_releases().values() if r.source == f"hf://{repo}" and r.neuronpedia),
        None,
    )
    if release is None or release.neuronpedia is None:
        raise TargetError(f"no Neuronpedia source is known for {repo}", where=local.sae)
    return _filled(release, path, local.sae)


def _filled(release: Release, path: str, where: str) -> str:
    layer = re.search(r"(?:layer_|blocks\.|-L)(\d+)", path)
    width = re.search(r"width_([0-9]+[km])", path)
    pattern = release.neuronpedia or ""
    if ("{layer}" in pattern and not layer) or ("{width}" in pattern and not width):
        raise TargetError("its path does not say layer and width", where=where)
    name = pattern.format(layer=layer[1] if layer else "", width=width[1] if width else "")
    sparsity = re.search(r"average_l0_(\d+)", path)
    if sparsity and path not in release.saes.values():
        name += f"__l0-{sparsity[1]}"
    return name


def export_folder(source: str) -> Path:
    """Where an export is kept on this machine."""
    return cache_folder() / "neuronpedia" / "v1" / check_name(source, "Neuronpedia")


def fetch_export(
    source: str, kind: Kind, *, offline: bool = False, progress: Bytes | None = None
) -> list[Path]:
    """Fetch all batches of an export, several at a time; those that are here already stay.

    Args:
        source: ``model/source``.
        kind: what to fetch.
        offline: only what is here.
        progress: called with the number of bytes that have arrived.

    Raises:
        AuditError: there is no such export, or it cannot be fetched.
    """
    folder = export_folder(source) / kind
    if offline:
        here = sorted(folder.glob("batch-*.jsonl.gz"))
        if not here or not (folder / ".complete").exists():
            raise AuditError(
                f"the {kind} of {source} are not in the cache",
                where=f"neuronpedia {source}",
                hint="run the same command once without --offline",
            )
        return here
    base = os.environ.get("SAEAUDIT_NEURONPEDIA_URL", BASE_URL).rstrip("/")
    prefix = f"v1/{source}/"
    keys = dict(_list(base, f"{prefix}{kind}/"))
    if not keys:
        raise AuditError(
            f"there is no export of {kind}", where=f"neuronpedia {source}", hint="check the source"
        )
    folder.mkdir(parents=True, exist_ok=True)

    def one(key: str) -> Path:
        place = folder / check_name(key.removeprefix(f"{prefix}{kind}/"), base)
        if not (place.is_file() and place.stat().st_size == keys[key]):
            content = _get(f"{base}/{urllib.parse.quote(key)}")
            if len(content) != keys[key]:
                raise AuditError("arrived cut short", where=f"{base}/{key}", hint="run it again")
            part = place.with_name(f"{place.name}.{os.getpid()}.part")
            part.write_bytes(content)
            part.replace(place)
            if progress:
                progress(len(content))
        return place

    with ThreadPoolExecutor(WORKERS) as pool:
        places = list(pool.map(one, keys))
    (folder / ".complete").write_text(f"{len(places)} batches\n")
    return places


def _list(base: str, prefix: str) -> Iterator[tuple[str, int]]:
    """Keys and sizes below a prefix, over all pages of the bucket's listing."""
    token = ""
    for _ in range(10_000):
        query = {"list-type": "2", "prefix": prefix}
        if token:
            query["continuation-token"] = token
        page = _get(f"{base}/?{urllib.parse.urlencode(query)}").decode("utf-8", "replace")
        for item in re.findall(r"<Contents>(.*?)</Contents>", page, re.S):
            key, size = re.search(r"<Key>(.*?)</Key>", item), re.search(r"<Size>(\d+)<", item)
            if key and size and key[1].endswith(".jsonl.gz"):
                yield html.unescape(key[1]), int(size[1])
        following = re.search(r"<NextContinuationToken>(.*?)</NextContinuationToken>", page)
        if not following or "<IsTruncated>true" not in page:
            return
        token = html.unescape(following[1])


def _get(url: str) -> bytes:
    return get(url, limit=1 << 30, where=url)


def read_rows(folder: Path) -> Iterator[dict[str, Any]]:
    """All rows of an export's folder.

    Raises:
        AuditError: a batch that is no gzip of JSON Lines.
    """
    batches = sorted([*folder.glob("batch-*.jsonl.gz"), *folder.glob("batch-*.jsonl")])
    if not batches:
        raise AuditError("no batch-N.jsonl.gz here", where=str(folder))
    for batch in batches:
        try:
            opened = gzip.open(batch, "rb") if batch.suffix == ".gz" else batch.open("rb")
            with opened as stream:
                while line := stream.readline(MAX_ROW):
                    row = json.loads(line)
                    if isinstance(row, dict):
                        yield row
        except (OSError, EOFError, ValueError) as error:
            raise AuditError("damaged batch", where=str(batch), hint="fetch it again") from error


def read_explanations(folder: Path) -> dict[int, list[Explanation]]:
    """Explanations by feature; features without any are absent, repeated rows count once."""
    found: dict[int, list[Explanation]] = {}
    seen: set[str] = set()
    for row in read_rows(folder):
        index, explanation = explanation_of(row)
        if index is None or explanation is None:
            continue
        identity = str(row.get("id") or (index, explanation.description, explanation.kind))
        if identity in seen:
            continue
        seen.add(identity)
        found.setdefault(index, []).append(explanation)
    return found


def explanation_of(row: dict[str, Any]) -> tuple[int | None, Explanation | None]:
    """A row's feature, and what it says of it; None where it says nothing."""
    index, text = _index(row), row.get("description")
    if index is None or not isinstance(text, str) or not text.strip():
        return index, None
    return index, Explanation(
        description=text.strip(),
        kind=str(row.get("typeName") or ""),
        model=str(row.get("explanationModelName") or ""),
        embedding=_embedding(row.get("embedding")),
    )


def read_features(folder: Path) -> dict[int, FeatureStatistics]:
    """Firing frequencies and histograms by feature."""
    found: dict[int, FeatureStatistics] = {}
    for row in read_rows(folder):
        index = _index(row)
        if index is None or index in found:
            continue
        centres = _numbers(row.get("freq_hist_data_bar_values"))
        heights = _numbers(row.get("freq_hist_data_bar_heights"))
        if len(centres) != len(heights):
            continue
        fraction = row.get("frac_nonzero")
        found[index] = FeatureStatistics(
            float(fraction) if isinstance(fraction, (int, float)) else 0.0, centres, heights
        )
    return found


def _index(row: dict[str, Any]) -> int | None:
    try:
        return int(row["index"])
    except (KeyError, TypeError, ValueError):
        return None


def _numbers(value: Any) -> tuple[float, ...]:
    if not isinstance(value, list) or not all(isinstance(v, (int, float)) for v in value):
        return ()
    return tuple(float(v) for v in value)


def _embedding(value: Any) -> tuple[float, ...] | None:
    """Embeddings come as a list, as that list in text, or not at all."""
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except ValueError:
            return None
    return _numbers(value) or None
