"""JSON Lines: one record a line, UTF-8."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

from saeaudit.errors import AuditError
from saeaudit.records import Record, dump


class Writer:
    """Writes records to a binary stream.

    Args:
        stream: where to.
        where: what errors call it.
    """

    def __init__(self, stream: IO[bytes], where: str) -> None:
        self.stream, self.where = stream, where
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
        self.binary(text.encode("utf-8", "replace"))

    def binary(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._try(lambda: self.stream.write(data))

    def flush(self) -> None:
        """Hand everything written so far to the reader."""
        self._try(self.stream.flush)

    @contextmanager
    def failures(self) -> Iterator[None]:
        """Turn what a disk refuses into one line; a closed pipe is another matter.

        Raises:
            AuditError: it could not be written.
            BrokenPipeError: the reader closed the pipe.
        """
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise AuditError(
                f"writing failed: {error.strerror or error}", where=self.where
            ) from error

    def _try(self, write: Callable[[], object]) -> None:
        if self.broken:
            return
        try:
            with self.failures():
                write()
        except BrokenPipeError:
            if not self.tolerant:
                raise
            self.broken = True
            # Point the stream at nothing, so that Python's own flush at exit cannot fail.
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())
