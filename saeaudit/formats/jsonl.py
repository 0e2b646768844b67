"""JSON Lines: one record a line, UTF-8."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from saeaudit.errors import AuditError
from saeaudit.records import Record, dump


class Writer:
    """Writes records to a binary stream."""

    def __init__(self, stream: IO[bytes]) -> None:
        self.stream = stream
        self.discard = False
        """Set to leave no file behind when the output is closed."""
        self.tolerant = False
        """Set to go on when the reader closes the pipe: a verdict is still wanted."""
        self.broken = False
        """Whether the reader did."""

    def record(self, record: Record) -> None:
        """Write one record."""
        self.text(dump(record) + "\n")

    def text(self, text: str) -> None:
        """Write text as it is."""
        self._try(lambda: self.stream.write(text.encode("utf-8", "replace")))

    def flush(self) -> None:
        """Hand everything written so far to the reader."""
        self._try(self.stream.flush)

    def _try(self, write: Callable[[], object]) -> None:
        if self.broken:
            return
        try:
            write()
        except BrokenPipeError:
            if not self.tolerant:
                raise
            self.broken = True
            # Point the stream at nothing, so that Python's own flush at exit cannot fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())


@contextmanager
def output(path: Path | None) -> Iterator[Writer]:
    """Open standard output, or a file that appears under its name only when it is complete.

    Raises:
        AuditError: the file cannot be written.
    """
    if path is None:
        writer = Writer(sys.stdout.buffer)
        yield writer
        writer.flush()
        return
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        if path.is_dir():
            raise IsADirectoryError(21, "is a folder")
        stream = part.open("wb")
    except OSError as error:
        raise AuditError(
            f"cannot be written: {error.strerror or error}", where=f"-o {path}"
        ) from error
    try:
        with stream:
            writer = Writer(stream)
            yield writer
        if not writer.discard:
            part.replace(path)
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            raise
        raise AuditError(
            f"writing failed: {error.strerror or error}", where=f"-o {path}"
        ) from error
    finally:
        part.unlink(missing_ok=True)
