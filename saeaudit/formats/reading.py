"""Records that come back: JSON Lines from a file or standard input."""

from __future__ import annotations

import errno
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from saeaudit.errors import AuditError
from saeaudit.records import SCHEMA, Record, parse
from saeaudit.untrusted import text_lines

OTHER_SCHEMA = re.compile(rf'^\{{"type":"(?:run|baseline)","schema":"(?!{SCHEMA}")(saeaudit/\d+)"')
"""How a file of records begins that another version wrote."""
FIRST = 100
"""Characters of a line that can say so."""


def read_records(source: str, option: str, hint: str) -> Iterator[Record]:
    """Parse records strictly, one at a time.

    Args:
        source: a file; "-" for standard input.
        option: what errors call it.
        hint: what the file should be.

    Raises:
        AuditError: unreadable, a line that is no record, or records of another schema.
    """
    where = f"{option} {source}".strip()
    try:
        with _open(source) as stream:
            for number, line in enumerate(text_lines(stream, where), 1):
                try:
                    record = parse(line)
                except (ValueError, AuditError) as error:
                    other = OTHER_SCHEMA.search(line[:FIRST])
                    raise AuditError(
                        f"records of {other[1]}; this version reads {SCHEMA}: make them again"
                        if other
                        else f"line {number} is not a record of saeaudit",
                        where=where,
                        hint=hint,
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
