"""Where things lie on this machine: the hub's own cache, and saeaudit's."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

from saeaudit.errors import AuditError
from saeaudit.sources.durable import keep, sync_folder

DECODER_SUFFIX = ".decoder.safetensors"
UNUSABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
LONGEST_NAME, LONGEST_PATH = 255, 1024
"""Bytes of a name that common file systems take, and of a path that leaves room for the cache's."""


def cache_root() -> Path:
    """The hub's own cache, read from the environment at each call."""
    named = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME")
    if named:
        return Path(named).expanduser()
    base = Path(home).expanduser() if home else Path.home() / ".cache" / "huggingface"
    return base / "hub"


def cache_folder() -> Path:
    """saeaudit's own cache: SAEAUDIT_CACHE, or saeaudit in the user's cache folder."""
    named = os.environ.get("SAEAUDIT_CACHE")
    xdg = os.environ.get("XDG_CACHE_HOME")
    base = Path(named) if named else (Path(xdg) if xdg else Path.home() / ".cache") / "saeaudit"
    return base.expanduser()


def free_bytes(folder: Path) -> int:
    """Bytes that are free where a folder lies, or will lie."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    return shutil.disk_usage(folder).free


def decoder_root() -> Path:
    """Where saeaudit keeps decoder-only copies."""
    return cache_folder() / "decoders"


def check_name(path: str, where: str) -> str:
    """Refuse names that would lead out of the folder they belong in, or that no folder can hold.

    Raises:
        AuditError: such a name.
    """
    parts = path.split("/")
    if (
        UNUSABLE.search(path)
        or len(path) > LONGEST_PATH
        or any(len(part.encode()) > LONGEST_NAME for part in parts)
    ):
        raise AuditError(f"the name {path[:80]!r} cannot be used here; refused", where=where)
    if "\\" in path or {"", ".", ".."} & set(parts):
        raise AuditError(f"the name {path[:80]!r} leads out of its folder; refused", where=where)
    return path


def check_inside(place: Path, root: Path) -> Path:
    """Refuse a place that links on the way lead out of a root, there already or not.

    Raises:
        AuditError: it lies outside.
    """
    if not place.resolve().is_relative_to(root.resolve()):
        raise AuditError("a link in the cache leads out of it; refused", where=str(place))
    return place


def link(place: Path, blob: Path, root: Path) -> None:
    """Make a file of a snapshot: a relative link to its content, a copy where links cannot be.

    The caller holds the lock of this content.

    Raises:
        AuditError: it would lie outside of `root`.
        OSError: it cannot be written.
    """
    check_inside(place.parent, root)
    place.parent.mkdir(parents=True, exist_ok=True)
    check_inside(place.parent, root)
    made = blob.with_name(f"{blob.name}.saeaudit.link")
    made.unlink(missing_ok=True)
    try:
        made.symlink_to(os.path.relpath(blob, place.parent))
    except (OSError, NotImplementedError):
        shutil.copyfile(blob, made)
        keep(made, place)
        return
    made.replace(place)
    sync_folder(place.parent)
