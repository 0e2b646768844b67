"""One file of a folder of collected activations: which tensors it holds, and their checks."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import torch

from saeaudit.errors import AuditError
from saeaudit.sources.collected.manifest import AFTER, BEFORE, Manifest
from saeaudit.weights.dtypes import DTYPES, Dtype
from saeaudit.weights.tensors import Contents, read_tensors

IDS = ("tokens", "before", "after")
"""Columns of token ids: of each activation, and of its neighbours in the document."""


def columns(manifest: Manifest) -> dict[str, tuple[Dtype, tuple[int, ...]]]:
    """What a shard has for each activation: element types, and shapes behind the first axis.

    ``before`` and ``after`` are in the order of reading, with -1 where the document has no token.
    """
    int32 = DTYPES["int32"]
    return {
        "activations": (DTYPES[manifest.dtype], (manifest.width,)),
        "tokens": (int32, ()),
        "document": (DTYPES["int64"], ()),
        "position": (int32, ()),
        "before": (int32, (BEFORE,)),
        "after": (int32, (AFTER,)),
    }


def read_shard(path: Path, manifest: Manifest, rows: int) -> Contents:
    """A shard's tensors, none of them loaded.

    Args:
        path: the file.
        manifest: of its folder.
        rows: how many activations it must have.

    Raises:
        AuditError: it is not there, damaged, or has other tensors than the manifest says.
    """
    if not path.exists():
        raise AuditError(
            "a file of this folder is missing", where=str(path), hint="collect it again"
        )
    contents = read_tensors(path)
    for name, (dtype, inner) in columns(manifest).items():
        stored = contents.tensors.get(name)
        if stored is None:
            raise AuditError(f"has no tensor {name}", where=str(path), hint="collect it again")
        if (stored.dtype, stored.shape) != (dtype, (rows, *inner)):
            raise AuditError(
                f"{name} is {stored.dtype.name} of shape {list(stored.shape)} where its folder's "
                f"manifest says {dtype.name} of {[rows, *inner]}",
                where=str(path),
                hint="collect it again",
            )
    return contents


def ids_in(shards: Iterable[Contents]) -> list[int]:
    """Token ids that occur in shards, neighbours' included, ascending."""
    ids = torch.empty(0, dtype=torch.int32)
    for shard in shards:
        loaded = [shard.tensors[name].load().flatten() for name in IDS]
        ids = torch.unique(torch.cat([ids, *loaded]))
    listed: list[int] = ids[ids >= 0].tolist()
    return listed
