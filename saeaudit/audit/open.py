"""From a resolved target to a validated dictionary: read, hash, measure, check."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from saeaudit.core.rows import row_norms
from saeaudit.dictionary import Dictionary, FileRead, Source, validate
from saeaudit.errors import TargetError
from saeaudit.sources.target import Local, resolve
from saeaudit.weights.interface import read_weights


def open_local(local: Local) -> Dictionary:
    """Open one SAE; its files are hashed while its rows are measured.

    Raises:
        WeightsError: not weights, damaged, or nothing usable in it.
    """
    weights, paths = read_weights(local.file)
    with ThreadPoolExecutor(1) as pool:
        digests = pool.map(_digest, paths)
        norms = row_norms(weights.decoder)
        files = tuple(
            FileRead(local.shown(path), path.stat().st_size, digest)
            for path, digest in zip(paths, digests, strict=True)
        )
    return validate(local.sae, weights, Source(local.sae, files), norms)


def open_target(target: str | Path, *, sae: Sequence[str] = ()) -> Dictionary:
    """Open the one SAE that a target names (`saeaudit.open`).

    Args:
        target: anything the command line takes.
        sae: globs over SAE ids, where the target holds several.

    Raises:
        TargetError: it names none, or several.
        WeightsError: the file is damaged or holds nothing usable.
    """
    found = resolve(str(target), sae)
    if len(found) > 1:
        raise TargetError(
            f"names {len(found)} SAEs: {found[0].sae}, {found[1].sae}, …",
            where=str(target),
            hint="open them one by one",
        )
    return open_local(found[0])


def _digest(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
