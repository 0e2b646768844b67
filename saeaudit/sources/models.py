"""Files of a language model: in a folder, or a hub repository's safetensors and what goes with it.

They are fetched as SAEs are, into the hub's own cache and checked byte by byte; transformers then
reads a folder, and asks nobody.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from saeaudit.errors import AuditError, TargetError
from saeaudit.sources.digests import sha256_of
from saeaudit.sources.download import Bytes
from saeaudit.sources.grammar import URI
from saeaudit.sources.http import Note
from saeaudit.sources.hub import is_offline, open_repo
from saeaudit.untrusted import parse_json, read_bytes

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
ADAPTER = "adapter_config.json"
"""transformers takes the model that this names, where peft is installed."""
TOKENIZER = re.compile(
    r"tokenizer[\w.-]*\.(json|model)|special_tokens_map\.json|added_tokens\.json|merges\.txt"
    r"|vocab\.(json|txt)|(spiece|sentencepiece[\w.-]*)\.model",
    re.ASCII,
)
"""Files that a tokenizer is read from; none is code."""
INDEX_BYTES, INDEX_VALUES = 64 << 20, 2_000_000
"""Limits of an index: a mixture of a hundred experts has some ten thousand tensors."""


class ModelFiles(NamedTuple):
    """Where a model lies on this machine."""

    name: str
    """As the user named it."""
    folder: Path
    revision: str
    """Commit of a hub repository; ``sha256:…`` of a folder's files."""


def find_model(
    model: str, revision: str | None = None, *, offline: bool = False,
    note: Note | None = None, progress: Bytes | None = None,
) -> ModelFiles:  # fmt: skip
    """Find a model, and bring what is not here yet.

    Args:
        model: a folder, or ``owner/name``, ``hf://owner/name`` and either with ``@revision``.
        revision: commit, branch or tag, where the name has none.
        offline: open no socket.
        note: called with lines that a user should read while something is waited for.
        progress: called with the bytes that have arrived.

    Raises:
        TargetError: no such folder or repository, or a folder that holds no model.
        AuditError: access is gated, no network, no safetensors weights.
    """
    folder = Path(model).expanduser()
    present = _entries(folder, f"--model {model}")
    if present is not None:
        needed = _needed(present, lambda name: folder / name, f"--model {model}")
        return ModelFiles(model, folder, _identity(folder, needed, f"--model {model}"))
    match = URI.fullmatch(model if model.startswith("hf://") else f"hf://{model}")
    if match is None or match["path"] or model.startswith((".", "/", "~")):
        raise TargetError(
            "no such folder", where=f"--model {model}", hint="a folder, or owner/name on the hub"
        )
    repo = open_repo(
        match["repo"], match["revision"] or revision, offline=is_offline(offline), note=note
    )

    def bring(name: str) -> Path:
        repo.fetch([name], progress)
        return repo.local(name)

    names = {name for name in repo.files() if "/" not in name}
    repo.fetch(sorted(_needed(names, bring, repo.uri())), progress)
    return ModelFiles(model, repo.local(CONFIG).parent, repo.commit)


def _entries(folder: Path, where: str) -> set[str] | None:
    """Names in a folder, none of a file; None where neither is there.

    Raises:
        TargetError: it cannot be read.
    """
    try:
        if not folder.exists():
            return None
        return {entry.name for entry in folder.iterdir()} if folder.is_dir() else set()
    except OSError as error:
        raise TargetError(f"cannot be read: {error.strerror}", where=where[:200]) from error


def _identity(folder: Path, names: Iterable[str], where: str) -> str:
    """What tells the files of these names from all others: a folder may be written to again.

    Raises:
        AuditError: one cannot be read.
    """
    whole = hashlib.sha256()
    for name in sorted(names):
        try:
            whole.update(f"{sha256_of(folder / name)}  {name}\n".encode())
        except OSError as error:
            raise AuditError(f"{name} cannot be read: {error.strerror}", where=where) from error
    return f"sha256:{whole.hexdigest()}"


def _needed(names: Iterable[str], bring: Callable[[str], Path], where: str) -> set[str]:
    """The files among those of a folder that make a model.

    Args:
        names: of all files in the folder.
        bring: gives the place of one on this machine.
        where: what errors call the folder.

    Raises:
        TargetError: it holds no model.
        AuditError: weights that are not in safetensors, or only in part there; no tokeniser; an
            adapter.
    """
    present = set(names)
    if CONFIG not in present:
        raise TargetError(f"no model: there is no {CONFIG}", where=where)
    if ADAPTER in present:
        raise AuditError(
            "an adapter lies beside the model, and is not put into it", where=where,
            hint="merge it into a model, or remove it",
        )  # fmt: skip
    tokenizer = {name for name in present if TOKENIZER.fullmatch(name)}
    if not tokenizer:
        raise AuditError(
            "no tokeniser lies beside the model", where=where, hint="save the model's there, too"
        )
    if WEIGHTS in present:
        weights = {WEIGHTS}
    elif INDEX in present:
        weights = {INDEX, *_shards(bring(INDEX))}
    else:
        raise AuditError(
            f"no weights in safetensors: there is no {WEIGHTS}", where=where,
            hint="pickled weights may run code and are not loaded; convert them",
        )  # fmt: skip
    missing = sorted(weights - present)
    if missing:
        raise AuditError(f"{missing[0]} is missing", where=where)
    return {CONFIG, *weights, *tokenizer}


def _shards(index: Path) -> set[str]:
    """The files that an index spreads the tensors over, all beside it."""
    data = read_bytes(index, INDEX_BYTES)
    content = parse_json(data, str(index), limit=INDEX_BYTES, values=INDEX_VALUES)
    files = content.get("weight_map") if isinstance(content, dict) else None
    names = set(files.values()) if isinstance(files, dict) and _texts(files.values()) else set()
    if not names or not all(re.fullmatch(r"[\w.-]+\.safetensors", name) for name in names):
        raise AuditError("no index of files of weights", where=str(index))
    return names


def _texts(values: Iterable[object]) -> bool:
    return all(isinstance(value, str) for value in values)
