"""How a run's records leave: as JSON Lines while they come, or rendered when all are there."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol, assert_never

from saeaudit.formats.jsonl import Writer
from saeaudit.formats.output import Destination
from saeaudit.records import Record
from saeaudit.vocabulary import Format

if TYPE_CHECKING:
    from rich.console import Console

Render = Callable[[Iterable[Record]], str]
"""From all records of a run to the text that stands for them."""


class Table(Protocol):
    """What people see of a run, collected while its records go by."""

    def record(self, record: Record) -> None:
        """Take one record."""

    def end(self) -> None:
        """Print."""


class Rendering(Writer):
    """Keeps records until the end."""

    def __init__(self, inner: Writer, render: Render) -> None:
        super().__init__(inner.stream, inner.where)
        self._inner, self._render = inner, render
        self._kept: list[Record] = []

    def record(self, record: Record) -> None:
        """Keep one record."""
        self._kept.append(record)

    def flush(self) -> None:
        """Nothing is written before the end."""

    def end(self) -> None:
        """Write everything."""
        self._inner.tolerant, self._inner.discard = self.tolerant, self.discard
        if not self.discard:
            self._inner.text(self._render(self._kept))
        self.broken = self._inner.broken


@contextmanager
def opened(place: Destination, form: Format, table: Callable[[Console], Table]) -> Iterator[Writer]:
    """Open a place for a run's records.

    Args:
        place: where they go.
        form: what to write.
        table: makes the table that the run's command shows.

    Raises:
        AuditError: it cannot be written.
    """
    render = renderer(form, table)
    with place.opened() as inner:
        if render is None:
            yield inner
            return
        writer = Rendering(inner, render)
        yield writer
        writer.end()


def renderer(form: Format, table: Callable[[Console], Table]) -> Render | None:
    """What makes a format's text; None where records are written as they come.

    A new format has its branch here: mypy names the one that is forgotten.
    """
    match form:
        case "jsonl":
            return None
        case "table":
            return lambda records: _rendered(records, table)
        case "github":
            from saeaudit.formats import github

            return github.render
        case "junit":
            from saeaudit.formats import junit

            return junit.render
        case "sarif":
            from saeaudit.formats import sarif

            return sarif.render
        case _:
            assert_never(form)


def _rendered(records: Iterable[Record], table: Callable[[Console], Table]) -> str:
    """The table as text, without colours and of a width that no terminal decides."""
    from rich.console import Console

    text = io.StringIO()
    shown = table(Console(file=text, width=200, highlight=False, color_system=None))
    for record in records:
        shown.record(record)
    shown.end()
    return text.getvalue()
