"""Documents from files: a line of .txt, an object of .jsonl, a row of .parquet each.

Rows are read as they are asked for, so that a table larger than memory serves. A document is known
by its row's number; rows without text are passed over, and keep theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from saeaudit.errors import AuditError
from saeaudit.sources.datasets import DATASETS, Dataset
from saeaudit.sources.digests import sha256_of
from saeaudit.sources.http import Note
from saeaudit.untrusted import LINE, parse_json, text_lines

FIELD = "text"
"""Where the text of a row usually is."""
ROWS = 256
"""Rows of a .parquet file that are decoded at once."""


class Document(NamedTuple):
    """One text, which a model reads by itself."""

    number: int
    """Of its row, from 0, over all files."""
    text: str


@dataclass(frozen=True)
class Texts:
    """A table of documents.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     file = Path(folder) / "a.txt"
    ...     _ = file.write_text("one\\n\\nthree\\n")
    ...     list(open_texts(str(file)).documents())
    [Document(number=0, text='one'), Document(number=2, text='three')]
    """

    name: str
    """As the user typed it."""
    identity: str
    """``sha256:…`` of the file, or ``hf://datasets/…@commit/path`` of a data set."""
    field: str
    """Of a row, where its text is."""
    files: Callable[[], Iterator[Path]]
    """Its files, in order, each fetched when it is asked for."""

    def documents(self) -> Iterator[Document]:
        """Documents in the order of their rows.

        Raises:
            AuditError: a file cannot be read, or a row has no text; names the row.
        """
        number = 0
        for file in self.files():
            for text in READERS[file.suffix.lower()](file, self.field):
                if text.strip():
                    yield Document(number, text)
                number += 1


def open_texts(
    name: str, field: str = FIELD, *, offline: bool = False, note: Note | None = None
) -> Texts:
    """Look for a table of texts; nothing of a data set is fetched before it is read.

    Args:
        name: a .txt, .jsonl or .parquet file, or ``hf://datasets/owner/name[@revision][/path]``.
        field: of a row, where its text is; .txt has none.
        offline: open no socket.
        note: called with lines that a user should read while something is waited for.

    Raises:
        AuditError: no such file, another kind of file, or no such data set.
    """
    if name.startswith(DATASETS):
        dataset = Dataset.open(name, offline=offline, note=note)
        return Texts(name, dataset.identity, field, dataset.files)
    path = Path(name)
    if path.suffix.lower() not in READERS:
        raise AuditError(
            "no table of texts", where=name,
            hint=f"a file ending in {', '.join(READERS)}, or hf://datasets/owner/name",
        )  # fmt: skip
    if not path.is_file():
        raise AuditError("no such file", where=name)
    try:
        digest = sha256_of(path)
    except OSError as error:
        raise AuditError(f"cannot be read: {error.strerror}", where=name) from error
    return Texts(name, f"sha256:{digest}", field, lambda: iter([path]))


def _txt(file: Path, field: str) -> Iterator[str]:
    """Lines of a file."""
    try:
        with file.open("rb") as stream:
            yield from text_lines(stream, str(file))
    except OSError as error:
        raise AuditError(f"cannot be read: {error.strerror}", where=str(file)) from error


def _jsonl(file: Path, field: str) -> Iterator[str]:
    """Texts of objects, a line each; empty lines are rows without text."""
    for number, line in enumerate(_txt(file, field), start=1):
        where = f"{file}: line {number}"
        row: Any = parse_json(line, where, limit=LINE) if line.strip() else {field: None}
        if not isinstance(row, dict):
            raise AuditError("no object with a text in it", where=where)
        if field not in row:
            raise _missing(field, list(row), where)
        yield _text(row[field], field, where)


def _parquet(file: Path, field: str) -> Iterator[str]:
    """Texts of rows."""
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise AuditError(
            "reading .parquet needs pyarrow", where=str(file), hint="pip install 'saeaudit[arrow]'"
        ) from error
    number = 0
    try:
        with ParquetFile(file) as table:
            if field not in table.schema_arrow.names:
                raise _missing(field, table.schema_arrow.names, str(file))
            for batch in table.iter_batches(batch_size=ROWS, columns=[field]):
                for value in batch.column(field).to_pylist():
                    yield _text(value, field, f"{file}: row {number}")
                    number += 1
    except (ArrowException, OSError, ValueError, KeyError) as error:  # KeyError: "a.b" is nested
        line = str(error).strip().split("\n")[0]
        raise AuditError(f"cannot be read: {line}", where=str(file)) from error


READERS: dict[str, Callable[[Path, str], Iterator[str]]] = {
    ".txt": _txt, ".jsonl": _jsonl, ".parquet": _parquet,
}  # fmt: skip
"""What reads the texts of a file's rows, by the end of its name; a row without any is empty."""


def _text(value: Any, field: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise AuditError(f"{field} is a {type(value).__name__}; a text was expected", where=where)
    return value


def _missing(field: str, fields: Sequence[str], where: str) -> AuditError:
    listed = ", ".join(map(str, fields[:8])) or "none"
    return AuditError(f"no field {field!r}", where=where, hint=f"--field takes one of: {listed}")
