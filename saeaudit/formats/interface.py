"""How a run's records leave: as JSON Lines while they come, or rendered when all are there."""

from __future__ import annotations

import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Protocol, assert_never

from saeaudit.formats.jsonl import Writer
from saeaudit.formats.output import Destination
from saeaudit.records import Record
from saeaudit.vocabulary import Format

if TYPE_CHECKING:
    from rich.console import Console

WIDTH = 100
"""Cells of a line where no terminal decides."""

Render = Callable[[Iterable[Record]], str]
"""From all records of a run to the text that stands for them."""


class Table(Protocol):
    """What people see of a run, collected while its records go by."""

    def record(self, record: Record) -> None:
        """Take one record."""

    def end(self) -> None:
        """Print."""


class Rendering(Writer, ABC):
    """Writes when all records are there."""

    def __init__(self, inner: Writer) -> None:
        super().__init__(inner.stream, inner.where)
        self._inner = inner

    @abstractmethod
    def record(self, record: Record) -> None:
        """Take one record."""

    @abstractmethod
    def rendered(self) -> str:
        """The text that stands for all of them."""

    def flush(self) -> None:
        """Nothing is written before the end."""

    def end(self) -> None:
        """Write everything."""
        self._inner.tolerant, self._inner.discard = self.tolerant, self.discard
        if not self.discard:
            self._inner.text(self.rendered())
        self.broken = self._inner.broken


class Rendered(Rendering):
    """Keeps records for a renderer that needs all of them."""

    def __init__(self, inner: Writer, render: Render) -> None:
        super().__init__(inner)
        self._render = render
        self._kept: list[Record] = []

    def record(self, record: Record) -> None:
        """Keep one record."""
        self._kept.append(record)

    def rendered(self) -> str:
        """The text that stands for all of them."""
        return self._render(self._kept)


class Screened(Rendering):
    """Hands records to a screen, which keeps what it shows, and is printed without colours."""

    def __init__(self, inner: Writer, table: Callable[[Console], Table], width: int) -> None:
        from rich.console import Console

        super().__init__(inner)
        self._text = io.StringIO()
        self._shown = table(
            Console(file=self._text, width=width, highlight=False, color_system=None)
        )

    def record(self, record: Record) -> None:
        """Show one record."""
        self._shown.record(record)

    def rendered(self) -> str:
        """The screen as text."""
        self._shown.end()
        return self._text.getvalue()


@contextmanager
def opened(
    place: Destination, form: Format, table: Callable[[Console], Table], width: int = WIDTH
) -> Iterator[Writer]:
    """Open a place for a run's records.

    Args:
        place: where they go.
        form: what to write.
        table: makes the screen that the run's command shows.
        width: cells of that screen's lines.

    Raises:
        AuditError: it cannot be written.
    """
    with place.opened() as inner:
        rendering = rendering_of(form, inner, table, width)
        yield rendering or inner
        if rendering:
            rendering.end()


class Several:
    """Writes the same records to several places, each in its form.

    Args:
        writers: open ones, with the form of each.
    """

    def __init__(self, writers: Sequence[tuple[Writer, Format]]) -> None:
        self._writers = writers

    def record(self, record: Record) -> None:
        """Write one record."""
        for writer, _ in self._writers:
            writer.record(record)

    def flush(self) -> None:
        """Hand everything written so far to the readers."""
        for writer, _ in self._writers:
            writer.flush()

    def tolerate(self) -> None:
        """Go on when a reader closes the pipe: a verdict is still wanted."""
        for writer, _ in self._writers:
            writer.tolerant = True

    def discard(self) -> None:
        """Leave no file of records or screen behind; CI systems are told what went wrong."""
        for writer, form in self._writers:
            writer.discard = form in ("jsonl", "table")

    @property
    def broken(self) -> bool:
        """Whether a reader has closed the pipe."""
        return any(writer.broken for writer, _ in self._writers)


@contextmanager
def opened_all(
    places: Sequence[tuple[Destination, Format]],
    table: Callable[[Console], Table],
    width: int = WIDTH,
) -> Iterator[Several]:
    """Open several places for a run's records; see `opened`."""
    with ExitStack() as stack:
        yield Several(
            [(stack.enter_context(opened(place, form, table, width)), form)
             for place, form in places]
        )  # fmt: skip


def rendering_of(
    form: Format, inner: Writer, table: Callable[[Console], Table], width: int
) -> Rendering | None:
    """What makes a format's text; None where records are written as they come.

    A new format has its branch here: mypy names the one that is forgotten.
    """
    match form:
        case "jsonl":
            return None
        case "table":
            return Screened(inner, table, width)
        case "markdown":
            from saeaudit.formats import markdown

            return Rendered(inner, markdown.render)
        case "codequality":
            from saeaudit.formats import codequality

            return Rendered(inner, codequality.render)
        case "github":
            from saeaudit.formats import github

            return Rendered(inner, github.render)
        case "junit":
            from saeaudit.formats import junit

            return Rendered(inner, junit.render)
        case "sarif":
            from saeaudit.formats import sarif

            return Rendered(inner, sarif.render)
        case _:
            assert_never(form)
