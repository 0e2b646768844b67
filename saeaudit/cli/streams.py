"""Standard streams that are missing or fail, and signals that end a run.

- A stream that is closed at the start gets a file that can only fail: otherwise the next file that
  is opened would take its number, and be written into.
- What is for people must not end a run: standard error remembers that it failed and goes on. The
  exit status then says so.
- SIGTERM and SIGHUP end a run as an interrupt does: what it was writing is cleaned up.
"""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import IO

from saeaudit.cli.exits import CLOSED_PIPE, FAILED, of_signal

SIGNALS = (signal.SIGTERM, signal.SIGHUP)


class Terminated(BaseException):
    """A signal asked the run to end.

    Args:
        status: the exit status that says so.
    """

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(status)


class _ForPeople(io.RawIOBase):
    """A descriptor whose failures are remembered, not raised."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.error: OSError | None = None

    def writable(self) -> bool:
        """It is for writing."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self.descriptor

    def isatty(self) -> bool:
        """Return whether people see it at once."""
        return os.isatty(self.descriptor)

    def write(self, data: bytes | bytearray | memoryview) -> int:  # type: ignore[override]
        """Write what can be written; after a failure, nothing."""
        if self.error is None:
            try:
                return os.write(self.descriptor, data)
            except OSError as error:
                self.error = error
        return len(data)


class Streams:
    """What became of the standard streams in a run."""

    def __init__(self, people: _ForPeople | None) -> None:
        self._people = people

    def status(self, status: int) -> int:
        """Return the exit status, given that of the run: 0 only if people were told all.

        A status that is not 0 says more than that a line about it could not be written.
        """
        flush_output()
        sys.stderr.flush()
        error = self._people.error if self._people else None
        if status or error is None:
            return status
        return CLOSED_PIPE if error.errno == errno.EPIPE else FAILED


@contextmanager
def standard_streams() -> Iterator[Streams]:
    """Make the standard streams safe to use until the run ends."""
    _fill_gaps()
    replaced, people = sys.stderr, None
    if sys.stderr is None or sys.stderr is sys.__stderr__:  # not where a test has put its own
        people = _ForPeople(2)
        encoding = getattr(replaced, "encoding", None) or "utf-8"
        sys.stderr = io.TextIOWrapper(
            io.BufferedWriter(people), encoding, "backslashreplace", line_buffering=True
        )
    former = _handle_signals()
    try:
        yield Streams(people)
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        if people and replaced is not None:
            sys.stderr.flush()
            sys.stderr = replaced


def flush_output() -> None:
    """Flush standard output, or forget what it holds, so that Python's flush at exit cannot fail.

    Whoever wrote there has heard of the failure already, or the pipe is closed.
    """
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        try:
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
        except (OSError, ValueError):  # no file descriptor behind it, as in tests
            pass


def _fill_gaps() -> None:
    """Give every standard stream that is closed a descriptor that fails when it is used."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is taken, and this one is it.
            os.open(os.devnull, os.O_WRONLY if descriptor == 0 else os.O_RDONLY)
    if sys.stdin is None:
        sys.stdin = _text(0, "r")
    if sys.stdout is None:
        sys.stdout = _text(1, "w")


def _text(descriptor: int, mode: str) -> IO[str]:
    return open(descriptor, mode, encoding="utf-8", closefd=False)


def _handle_signals() -> dict[int, signal.Handlers]:
    """Let signals end the run by `Terminated`; what the caller ignores stays ignored."""
    if threading.current_thread() is not threading.main_thread():
        return {}
    former: dict[int, signal.Handlers] = {}
    for number in SIGNALS:
        if signal.getsignal(number) is signal.SIG_DFL:
            former[number] = signal.SIG_DFL
            signal.signal(number, _end)
    return former


def _end(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_DFL)  # a second one need not wait for this one
    raise Terminated(of_signal(number))
