"""Files that survive crashes, a full disk and other processes that want the same."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from saeaudit.errors import AuditError

WAITING = 3.0
"""Seconds of waiting for another process before a line says so."""


def keep(part: Path, place: Path) -> None:
    """Give a complete file its name: after a crash either all of it is there, or none.

    Raises:
        OSError: it cannot be written.
    """
    with part.open("rb") as stream:
        os.fsync(stream.fileno())
    part.replace(place)
    sync_folder(place.parent)


def write_whole(place: Path, content: bytes) -> None:
    """Write a small file as `keep` does; several at once do not meet, and the last one stays.

    Raises:
        OSError: it cannot be written.
    """
    part = place.with_name(f"{place.name}.{os.getpid()}-{threading.get_ident()}.new")
    try:
        part.write_bytes(content)
        keep(part, place)
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Bring a folder's names to the disk, where the system lets folders be opened."""
    with suppress(OSError):
        opened = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


@contextmanager
def locked(path: Path, what: str, note: Callable[[str], None] | None = None) -> Iterator[None]:
    """Let one process at a time through; the system frees the lock of one that was killed.

    Args:
        path: the lock's file, made where it is missing.
        what: what is fetched, for the line that says who waits for what.
        note: called with that line.

    Raises:
        OSError: the lock's folder cannot be written.
    """
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    path.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(path, timeout=WAITING))
        except TimeoutError:
            if note:
                note(f"{what}: another process is fetching it; waiting")
            stack.enter_context(WeakFileLock(path))
        yield


@contextmanager
def storing(
    folder: Path, hint: str = "HF_HOME and SAEAUDIT_CACHE name other folders"
) -> Iterator[None]:
    """Turn what the disk refuses into one line that names the folder.

    Args:
        folder: where files are written.
        hint: how to name another.

    Raises:
        AuditError: the disk is full, or the folder cannot be written.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise AuditError(
                "the disk is full", where=str(folder), hint="free some space and run it again"
            ) from error
        raise AuditError(
            f"cannot be written: {error.strerror or error}",
            where=str(folder),
            hint=hint,
        ) from error


def check_room(folder: Path, needed: int, where: str) -> None:
    """Refuse what would fill the disk before any of it is fetched.

    Args:
        folder: where it would lie; there already.
        needed: bytes.
        where: what it is, for the message.

    Raises:
        AuditError: it does not fit.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise AuditError(
            f"needs {needed:,} bytes, {free:,} are free in {folder}",
            where=where,
            hint="free some space, or name other folders by HF_HOME and SAEAUDIT_CACHE",
        )
