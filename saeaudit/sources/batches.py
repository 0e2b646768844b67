"""Batches of JSON Lines, gzipped, from anywhere: read row by row within limits of memory."""

from __future__ import annotations

import gzip
import json
import re
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saeaudit.errors import AuditError

MAX_ROW = 4 << 20
"""Bytes of a row; the longest, features with their vectors, have a tenth of that."""
RATIO = 50
"""The largest ratio of unpacked to packed bytes that is believed; exports have five to ten."""
BATCH_FLOOR, EXPORT_FLOOR = 16 << 20, 256 << 20
"""Bytes that a batch, and all together, may unpack to whatever the ratio is."""
ROW_COST = 50
"""Bytes that a row counts for beyond its own, so that empty ones end too."""
KEPT_COST = 400
"""Bytes of memory that a kept row takes beyond its text and its numbers."""
MAX_KEPT = 2 << 30
"""Bytes of memory for what is kept of an export: 800,000 features with their embeddings."""


@dataclass
class Allowance:
    """What may still be unpacked of an export, and kept of it in memory; shared by threads.

    Example: an export of 10 MB may unpack to 500 MB, one of 1 MB to 256 MiB.
    """

    where: str
    """The export, for messages."""
    unpacked: int
    """Bytes."""
    kept: int = MAX_KEPT
    """Bytes."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @classmethod
    def of_bytes(cls, packed: int, where: str) -> Allowance:
        """What an export of so many bytes is allowed."""
        return cls(where, max(EXPORT_FLOOR, RATIO * packed))

    @classmethod
    def of(cls, batches: Sequence[Path]) -> Allowance:
        """What batches on this machine are allowed together."""
        packed = sum(batch.stat().st_size for batch in batches if batch.is_file())
        return cls.of_bytes(packed, str(batches[0].parent))

    def unpack(self, size: int) -> None:
        """Count a batch of so many bytes.

        Raises:
            AuditError: too many.
        """
        with self._lock:
            self.unpacked -= size
        if self.unpacked < 0:
            raise AuditError("unpacks to more than is believed; refused", where=self.where)

    def keep(self, size: int) -> None:
        """Count what stays of a row.

        Raises:
            AuditError: too much.
        """
        self.kept -= size + KEPT_COST
        if self.kept < 0:
            raise AuditError(
                f"takes more than {MAX_KEPT >> 30} GiB of memory; refused",
                where=self.where,
                hint="give explanations of your own by --explanations FILE",
            )


def batches_in(folder: Path) -> list[Path]:
    """The batches in an export's folder, packed ones first.

    Raises:
        AuditError: there is none.
    """
    batches = sorted([*folder.glob("batch-*.jsonl.gz"), *folder.glob("batch-*.jsonl")])
    if not batches:
        raise AuditError("no batch-N.jsonl.gz here", where=str(folder))
    return batches


def read_rows(
    batches: Iterable[Path], allowance: Allowance, *, without: str | None = None
) -> Iterator[dict[str, Any]]:
    """All rows of batches that are objects.

    Args:
        batches: gzipped where their names have a ``.gz``.
        allowance: is taken from.
        without: name of a list of numbers that is not wanted: it is null in each row. Most of the
            time would go into making numbers of text.

    Raises:
        AuditError: a batch that is no such file of JSON Lines, or a row or export too large.
    """
    unwanted = None
    if without is not None:  # quotes inside of texts are escaped: between bare ones it is a key
        key = re.escape(without.encode())
        unwanted = re.compile(rb'("%s"\s*+:)\s*+\[[-+.\deE,\s]*+\]' % key)
    for batch in batches:
        if not batch.is_file():  # a pipe would be waited for
            raise AuditError("not a file", where=str(batch))
        try:
            yield from _rows(batch, allowance, unwanted)
        except (OSError, EOFError, ValueError, RecursionError, zlib.error) as error:
            raise AuditError(
                f"damaged batch: {str(error)[:200]}",
                where=str(batch),
                hint="fetch it again with saeaudit fetch",
            ) from error


def _rows(
    batch: Path, allowance: Allowance, unwanted: re.Pattern[bytes] | None
) -> Iterator[dict[str, Any]]:
    limit, unpacked = max(BATCH_FLOOR, RATIO * batch.stat().st_size), 0
    with gzip.open(batch, "rb") if ".gz" in batch.suffixes else batch.open("rb") as stream:
        while line := stream.readline(MAX_ROW + 1):
            unpacked += len(line) + ROW_COST
            if len(line) > MAX_ROW:
                raise ValueError(f"a row of more than {MAX_ROW >> 20} MiB")
            if unpacked > limit:
                raise ValueError("it unpacks to more than is believed")
            row = json.loads(unwanted.sub(rb"\1null", line) if unwanted else line)
            if isinstance(row, dict):
                yield row
    allowance.unpack(unpacked)
