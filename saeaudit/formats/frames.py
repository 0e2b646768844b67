"""Records in Python: read from a file, shown in a notebook, and as a data frame."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from saeaudit.errors import AuditError
from saeaudit.formats.reading import read_records
from saeaudit.formats.screen.findings import sentence
from saeaudit.formats.screen.firing import firing_sentence
from saeaudit.records import (
    ChoiceRecord,
    ClaimRecord,
    ErrorRecord,
    Finding,
    FiringRecord,
    MediatorRecord,
    Record,
    plain,
)
from saeaudit.shown import html_table

Library = Literal["pandas", "polars"]
"""What makes data frames."""
SHOWN = 20
"""Rows of a notebook's table."""


class Records(list[Record]):
    """A list of records that shows itself in one line, and in notebooks as a table.

    >>> import saeaudit
    >>> saeaudit.Records(saeaudit.scan("sample"))
    <3 records: 1 dictionary, 1 pair, 1 summary>
    """

    def __repr__(self) -> str:
        """How many there are of each type, in the order in which they first come."""
        counts = Counter(record.type for record in self)
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in counts.items())
        return f"<{len(self):,} record{'s' * (len(self) != 1)}{': ' * bool(kinds)}{kinds}>"

    def _repr_html_(self) -> str:
        """The first records, a row each, with a line that says what they are of."""
        rows = [(record.type, getattr(record, "sae", ""), _said(record)) for record in self[:SHOWN]]
        more = f"… {len(self) - SHOWN:,} more" if len(self) > SHOWN else ""
        return html_table(("type", "SAE", "what"), rows, more=more)


def read(path: str | Path) -> Records:
    """Read what a command has written with ``-o``, or redirected (`saeaudit.read`).

    Args:
        path: JSON Lines of any commands.

    Raises:
        AuditError: it cannot be read, or a line of it is no record of this version.
    """
    return Records(read_records(str(path), "", "what saeaudit writes"))


def to_frame(records: Iterable[Record], library: Library | None = None) -> Any:
    """Records as a data frame, a row each; a field that a record does not have is null there.

    Args:
        records: of any types; those of one type make the narrowest frame.
        library: what to make it with; where None the one that is imported, else the one that is
            installed, pandas before polars.

    Returns:
        A pandas or polars DataFrame whose columns are named as the records' fields, `type` first;
        fields that are records themselves are structs (polars) or dicts (pandas).

    Raises:
        AuditError: neither library is installed.
    """
    chosen = library or _library()
    rows = [plain(record) for record in records]
    try:
        module = import_module(chosen)
    except ImportError as error:
        raise AuditError(f"{chosen} is not installed", hint=f"pip install {chosen}") from error
    if chosen == "polars":
        return module.DataFrame(rows, infer_schema_length=None)
    return module.DataFrame(rows)


def _library() -> Library:
    names: tuple[Library, ...] = get_args(Library)
    for name in names:
        if name in sys.modules:
            return name
    return next((name for name in names if find_spec(name)), names[0])


def _said(record: Record) -> str:
    """What a record says, in a line; its numbers where there is no sentence for it."""
    if isinstance(record, Finding):
        return sentence(record)
    if isinstance(record, ClaimRecord):
        return record.sentence
    if isinstance(record, FiringRecord):
        return firing_sentence(record)
    if isinstance(record, ErrorRecord):
        return record.reason
    if isinstance(record, (MediatorRecord, ChoiceRecord)):
        removed, added = (", ".join(map(str, part)) for part in (record.removed, record.added))
        return f"{added or 'none'} for {removed or 'none'}"
    numbers = {
        name: value
        for name, value in plain(record).items()
        if isinstance(value, (int, float)) and not isinstance(value, bool)
    }
    return ", ".join(f"{name} {value:g}" for name, value in list(numbers.items())[:8])
