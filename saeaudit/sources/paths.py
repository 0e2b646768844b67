"""What a path to activations names: files, folders and globs; nothing is opened."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from saeaudit.errors import AuditError
from saeaudit.sources.collected.manifest import MANIFEST
from saeaudit.weights.find import natural
from saeaudit.weights.tensors import READERS

ARROW, PARQUET = ".arrow", ".parquet"
KINDS = (*READERS, ARROW, PARQUET)
"""Ends of names of files that activations are read from."""
WILD = frozenset("*?[")
"""What makes a glob of a path."""


def places_of(path: str | Path) -> list[Path]:
    """Files, and folders that were collected, in natural order.

    Of any other folder the files that may hold activations.

    Raises:
        AuditError: there is no such file, folder, or file in that folder.
    """
    return [place for named in _named(path) for place in _places(named)]


def activation_files(paths: Sequence[str | Path]) -> list[Path]:
    """Every file that is read for `places_of` these paths.

    Raises:
        AuditError: one names nothing.
    """
    places = [place for path in paths for place in places_of(path)]
    return [file for place in places for file in (_listed(place) if place.is_dir() else [place])]


def collected_folders(paths: Sequence[str | Path]) -> list[Path]:
    """Those of the paths that name folders which were collected.

    Raises:
        AuditError: one names nothing.
    """
    return [place for path in paths for place in places_of(path) if place.is_dir()]


def _named(path: str | Path) -> list[Path]:
    """What a path or a glob names."""
    place = Path(path)
    if place.exists():
        return [place]
    if not WILD & set(str(path)):
        raise AuditError("no such file or folder", where=str(path))
    try:
        matched = list(Path(place.anchor).glob(str(place.relative_to(place.anchor))))
    except (ValueError, OSError) as error:  # a pattern that is none, or a folder that is closed
        raise AuditError(f"cannot be looked up: {error}", where=str(path)) from error
    if not matched:
        raise AuditError("matches no file", where=str(path))
    return sorted(matched, key=lambda each: natural(str(each)))


def _places(path: Path) -> list[Path]:
    if not path.is_dir() or (path / MANIFEST).exists():
        return [path]
    files = [file for file in _listed(path) if file.suffix.lower() in KINDS]
    if not files:
        raise AuditError(
            "no file of activations in this folder",
            where=str(path),
            hint=f"known: {', '.join(KINDS)}, and what saeaudit collect makes",
        )
    return sorted(files, key=lambda file: natural(file.name))


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError as error:
        raise AuditError("a folder that cannot be listed", where=str(folder)) from error
