"""What a folder of collected activations says of itself, and how its files are called."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, TypeVar

from saeaudit.errors import AuditError
from saeaudit.untrusted import check_json, read_text

MANIFEST = "manifest.json"
VOCABULARY = "vocabulary.json"
"""Texts of the token ids that occur, by id."""
LOCK = ".lock"
MOST_BYTES = 1 << 20
"""Of a manifest."""
BEFORE, AFTER = 8, 4
"""Tokens of the same document that are kept beside each activation, to show where it stands."""
STRICT = {"extra": "forbid", "strict": True}

ActivationDtype = Literal["float32", "float16", "bfloat16"]
"""What activations are kept in."""
Parsed = TypeVar("Parsed")


@dataclass(frozen=True)
class Origin:
    """All that decides what is in the folder: two with the same origin hold the same bytes."""

    __pydantic_config__ = STRICT

    model: str
    """An id on the hub, or a folder, as it was named."""
    revision: str
    """Commit of the model's repository; ``sha256:…`` of a folder's files."""
    tokenizer: str
    """Its class."""
    place: str
    """Where in the model, ``PATH:in`` or ``PATH:out``."""
    divide_gain: bool
    """Whether it is a norm, whose gain is divided out."""
    subtract_mean: bool
    """Whether each activation's mean over its width is taken off."""
    computed_in: str
    """Element type of the model's parameters."""
    attention: str
    """Which implementation of attention."""
    device: str
    """Where the model ran."""
    texts: str
    """Where documents came from, as it was named."""
    texts_identity: str
    """The file's ``sha256:…``, or the address of a data set with its commit."""
    options: dict[str, str | int | float | bool | None]
    """Context, BOS, sampling, batch and whatever else was chosen, by the options' names."""
    versions: dict[str, str]
    """Of saeaudit, torch and transformers."""


@dataclass(frozen=True)
class Totals:
    """What there is once a folder is complete."""

    __pydantic_config__ = STRICT

    rows: int
    """Activations."""
    documents: int
    """Documents that were read, those of which nothing was kept included."""
    dropped: dict[str, int]
    """Positions that were not kept, by reason."""


@dataclass(frozen=True)
class Manifest:
    """What a folder says of itself."""

    __pydantic_config__ = STRICT

    origin: Origin
    width: int
    """Of an activation."""
    dtype: ActivationDtype
    """Of its elements."""
    shard_rows: int
    """Activations in each file but the last."""
    totals: Totals | None = None
    """None while it is not complete."""
    format: Literal["saeaudit/activations/1"] = "saeaudit/activations/1"
    """Version of this layout."""


def shard_name(number: int) -> str:
    """File of the shard of a number.

    >>> shard_name(3)
    'activations-00003.safetensors'
    """
    return f"activations-{number:05d}.safetensors"


def dump_manifest(manifest: Manifest) -> bytes:
    """As the file has it."""
    return (json.dumps(asdict(manifest), indent=1, ensure_ascii=False) + "\n").encode()


def read_manifest(folder: Path) -> Manifest:
    """Read and check a folder's manifest.

    Raises:
        AuditError: there is none, it is no such JSON, or its numbers cannot be.
    """
    path = folder / MANIFEST
    manifest = parse_as(Manifest, read_text(path, MOST_BYTES), str(path))
    numbers = [manifest.width - 1, manifest.shard_rows - 1]
    if manifest.totals:
        totals = manifest.totals
        numbers += [totals.rows, totals.documents, *totals.dropped.values()]
    if min(numbers) < 0:
        raise AuditError("has a count that is negative, or a width of 0", where=str(path))
    return manifest


def read_complete(folder: Path) -> tuple[Manifest, Totals]:
    """A complete folder's manifest, and what there is.

    Raises:
        AuditError: as for `read_manifest`, or the folder is not complete, or without activations.
    """
    manifest = read_manifest(folder)
    if manifest.totals is None:
        raise AuditError(
            "is not complete", where=str(folder), hint="saeaudit collect --resume goes on with it"
        )
    if not manifest.totals.rows:
        raise AuditError("holds no activations: 0 rows", where=str(folder))
    return manifest, manifest.totals


def parse_as(kind: type[Parsed], text: str, where: str) -> Parsed:
    """Parse JSON strictly as a dataclass.

    Raises:
        AuditError: not JSON, a field too many or too few, or one of another type.
    """
    from pydantic import TypeAdapter, ValidationError

    check_json(text, where)
    try:
        parsed: Parsed = TypeAdapter(kind).validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"]))
        what = f"{place}: {first['msg']}" if place else first["msg"]
        raise AuditError(what, where=where) from error
    return parsed
