"""Records that come back: JSON Lines from a file or standard input."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from saeaudit.errors import AuditError
from saeaudit.records import Record, parse
from saeaudit.untrusted import text_lines


def read_records(source: str, option: str, hint: str) -> Iterator[Record]:
    """Parse records strictly, one at a time.

    Args:
        source: a file; "-" for standard input.
        option: what errors call it.
        hint: what the file should be.

    Raises:
        AuditError: unreadable, or a line that is no record.
    """
    where = f"{option} {source}".strip()
    try:
        with _open(source) as stream:
            for number, line in enumerate(text_lines(stream, where), 1):
                try:
                    record = parse(line)
                except (ValueError, AuditError) as error:
                    raise AuditError(
                        f"line {number} is not a record of saeaudit", where=where, hint=hint
                    ) from error
                yield record
    except OSError as error:
        raise AuditError(f"cannot be read: {error.strerror or error}", where=where) from error


def _open(source: str) -> IO[bytes]:
    if source != "-":
        return Path(source).open("rb")
    if sys.stdin is None:
        raise OSError(errno.EBADF, "standard input is closed")
    return sys.stdin.buffer
