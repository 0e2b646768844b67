"""Records that come back: JSON Lines from a file or standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from saeaudit.errors import AuditError
from saeaudit.records import Record, parse


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
        lines = sys.stdin if source == "-" else Path(source).open(encoding="utf-8")
    except OSError as error:
        raise AuditError(f"cannot be read: {error.strerror}", where=where) from error
    with lines:
        number = 0
        try:
            for number, line in enumerate(lines, 1):  # noqa: B007  (used when it fails)
                yield parse(line)
        except ValueError as error:
            raise AuditError(
                f"line {number} is not a record of saeaudit", where=where, hint=hint
            ) from error
