"""How a run's records leave: as JSON Lines while they come, or rendered when all are there."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Literal

from saeaudit.formats.jsonl import Writer
from saeaudit.formats.output import Destination
from saeaudit.records import Record

Format = Literal["jsonl", "table", "github", "junit", "sarif"]


class Rendering(Writer):
    """Keeps records until the end."""

    def __init__(self, inner: Writer, render: Callable[[Iterable[Record]], str]) -> None:
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
def output(place: Destination, form: Format = "jsonl") -> Iterator[Writer]:
    """Open a place for a run's records.

    Args:
        place: where they go.
        form: what to write.

    Raises:
        AuditError: it cannot be written.
    """
    with place.opened() as inner:
        if form == "jsonl":
            yield inner
            return
        render = _table if form == "table" else import_module(f"saeaudit.formats.{form}").render
        writer = Rendering(inner, render)
        yield writer
        writer.end()


def _table(records: Iterable[Record]) -> str:
    from rich.console import Console

    from saeaudit.formats.score_table import ScoreTable
    from saeaudit.formats.table import ScanTable

    kept = list(records)
    text = io.StringIO()
    console = Console(file=text, width=200, highlight=False, color_system=None)
    scored = any(getattr(record, "command", "") == "score" for record in kept)
    table = ScoreTable(console) if scored else ScanTable(console)
    for record in kept:
        table.record(record)
    table.end()
    return text.getvalue()
