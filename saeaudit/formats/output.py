"""Where records go: standard output, a pipe or device, or a file that appears when complete.

A file is written beside its place and renamed, so that its name never stands for half of it. What
a killed run has left there is removed by the next run that writes to the same place: a file whose
lock can be had belongs to a process that is gone.
"""

from __future__ import annotations

import fcntl
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import IO, Literal

from saeaudit.errors import AuditError
from saeaudit.formats.jsonl import Writer

STANDARD = "-"
"""The name of standard input and standard output."""
LONGEST = 255
"""Bytes of a file's name that file systems allow."""

Kind = Literal["standard", "stream", "file"]


@dataclass(frozen=True)
class Destination:
    """A place for output that has been looked at: it can be written as far as one can tell."""

    kind: Kind
    """Standard output, something that is written to as it is, or a file that is replaced whole."""
    name: str
    """As the user typed it."""
    path: Path
    """What to open; for a file, where its links lead."""
    descriptor: int | None = None
    """The open file that a stream is already; None where it must be opened."""
    is_default: bool = field(default=False, compare=False)
    """Whether nobody has named it."""
    option: str = field(default="-o ", compare=False)
    """What stands before the name on the command line."""

    @property
    def where(self) -> str:
        """What errors call it."""
        return "standard output" if self.kind == "standard" else f"{self.option}{self.name}"

    @property
    def is_terminal(self) -> bool:
        """Whether what is written is on people's screen at once."""
        if self.kind == "standard":
            return sys.stdout.isatty()
        return self.descriptor is not None and os.isatty(self.descriptor)

    def spare(self, inputs: Iterable[str | Path | None]) -> None:
        """Refuse to write over what is read: the same file by any name or link.

        Args:
            inputs: files, folders for all that is in them, "-" for standard input; None and what
                is not there count for nothing.

        Raises:
            AuditError: one of them is this place.
        """
        if self.kind != "file":
            return
        with suppress(FileNotFoundError):
            place = self.path.stat()
            for name, status in _statuses(inputs):
                if os.path.samestat(place, status):
                    raise AuditError(
                        f"would be written over {name}, which is read",
                        where=self.where,
                        hint="another name",
                    )

    @contextmanager
    def opened(self) -> Iterator[Writer]:
        """Open it for one run's output.

        Raises:
            AuditError: it cannot be written; then a file is as it was before.
        """
        if self.kind == "standard":
            writer = Writer(sys.stdout.buffer, self.where)
            yield writer
            writer.flush()
        elif self.kind == "stream":
            with _open_stream(self) as stream:
                writer = Writer(stream, self.where)
                yield writer
                writer.flush()
        else:
            yield from _replace(self)


def destination(name: str | None, option: str = "-o ") -> Destination:
    """Look at the place that an option names, before any work is done.

    Args:
        name: a file, a pipe, a device; "-" or None for standard output.
        option: what stands before it, for messages.

    Raises:
        AuditError: a folder, no name, no such parent, or no permission.
    """
    if name is None or name == STANDARD:
        return Destination("standard", STANDARD, Path(STANDARD), is_default=name is None)
    if not name:
        hint = f"{option}- is standard output"
        raise AuditError("no file is named", where=option.strip(), hint=hint)
    try:
        return replace(_look(name), option=option)
    except OSError as error:
        raise _unwritable(f"{option}{name}", error) from error


def _look(name: str) -> Destination:
    """Raises OSError where the place cannot be written."""
    path = Path(os.path.realpath(name))
    try:
        status = Path(name).stat()
    except FileNotFoundError:
        status = None
    if name.endswith("/") or (status and stat.S_ISDIR(status.st_mode)):
        raise IsADirectoryError(0, "it is a folder")
    if status:
        if stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode):
            return Destination("stream", name, Path(name))
        for descriptor in (1, 2):
            # /dev/stdout and the like: what the shell has sent to a file goes on in that file.
            if os.path.samestat(status, os.fstat(descriptor)):
                return Destination("stream", name, path, descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(0, "it is neither a file nor a pipe")
    if not path.parent.is_dir():
        raise FileNotFoundError(0, "No such file or folder")
    if not os.access(path.parent, os.W_OK | os.X_OK) or (status and not os.access(path, os.W_OK)):
        raise PermissionError(0, "Permission denied")
    return Destination("file", name, path)


def _unwritable(where: str, error: OSError) -> AuditError:
    return AuditError(f"cannot be written: {error.strerror or error}", where=where)


def _statuses(inputs: Iterable[str | Path | None]) -> Iterator[tuple[str, os.stat_result]]:
    for name in inputs:
        if name is None:
            continue
        if str(name) == STANDARD:
            yield "standard input", os.fstat(0)
            continue
        files = [Path(name)]
        if files[0].is_dir():
            files = [Path(top, one) for top, _, members in os.walk(name) for one in members]
        for file in files:
            with suppress(OSError, ValueError):
                yield str(file), file.stat()


@contextmanager
def _open_stream(place: Destination) -> Iterator[IO[bytes]]:
    try:
        if place.descriptor is None:
            stream = os.fdopen(os.open(place.path, os.O_WRONLY | os.O_CLOEXEC), "wb")
        else:
            stream = os.fdopen(os.dup(place.descriptor), "wb")
    except OSError as error:
        raise _unwritable(place.where, error) from error
    try:
        yield stream
    finally:
        _close(stream)


def _replace(place: Destination) -> Iterator[Writer]:
    """Write beside a file and rename when complete."""
    # Named before it is there: a signal may end the run as soon as it is.
    part = place.path.with_name(f"{_stem(place.path)}{os.getpid()}-{secrets.token_hex(4)}.part")
    with ExitStack() as closing:
        try:
            closing.callback(part.unlink, missing_ok=True)
            _sweep(place.path)
            stream = _create(part, place.path)
        except OSError as error:
            raise _unwritable(place.where, error) from error
        closing.callback(_close, stream)
        writer = Writer(stream, place.where)
        yield writer
        writer.flush()
        if not writer.discard:
            with writer.failures():
                os.fsync(stream.fileno())
                part.replace(place.path)
                _sync(place.path.parent)


def _close(stream: IO[bytes]) -> None:
    with suppress(OSError):  # what could not be flushed has been said
        stream.close()


def _stem(path: Path) -> str:
    """What the names of all files being written for a place begin with."""
    room = LONGEST - len(f"..saeaudit-{2**31}-{'0' * 8}.part")
    return os.fsdecode(b"." + os.fsencode(path.name)[:room] + b".saeaudit-")


def _create(part: Path, path: Path) -> IO[bytes]:
    """Create and lock a file for a path, with that one's owner and permissions if it is there.

    Raises:
        OSError: it cannot be created.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    while True:
        descriptor = os.open(part, flags, 0o666)
        with suppress(OSError):  # some network file systems have no locks
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with suppress(FileNotFoundError):
            if os.path.samestat(part.stat(), os.fstat(descriptor)):
                break
        os.close(descriptor)  # swept by another run before it was locked
    with suppress(FileNotFoundError):
        status = path.stat()
        with suppress(PermissionError):
            os.chown(descriptor, status.st_uid, status.st_gid)
        os.fchmod(descriptor, stat.S_IMODE(status.st_mode))
    return os.fdopen(descriptor, "wb")


def _sweep(path: Path) -> None:
    """Remove what runs that were killed have left beside a path."""
    pattern = re.compile(re.escape(_stem(path)) + r"\d+-[0-9a-f]{8}\.part")
    for part in path.parent.iterdir():
        if pattern.fullmatch(part.name):
            with suppress(OSError):
                _remove_if_unlocked(part)


def _remove_if_unlocked(part: Path) -> None:
    """Raises OSError where another process holds it, or it is not to be removed."""
    descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    """Bring a new name to the disk, where the system lets folders be opened."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
