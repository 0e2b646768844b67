"""Standard error, for people: progress, tables, warnings."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console

from saeaudit.audit.observer import Observer
from saeaudit.cli import options

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn


def console(*, quiet: bool) -> Console:
    """Return a console on standard error; it honours NO_COLOR and says nothing when quiet."""
    people = Console(stderr=True, quiet=quiet, highlight=False, markup=False, emoji=False)
    # rich takes FORCE_COLOR for a terminal, and COLUMNS for the width of a file.
    if not sys.stderr.isatty():
        people.width = 160
    return people


class Watcher(Observer):
    """Writes notes for people, unless the console is quiet."""

    def __init__(self, people: Console) -> None:
        self._quiet = people.quiet

    def note(self, line: str) -> None:
        """Write a line on standard error."""
        if not self._quiet:
            options.say(line)


class BarWatcher(Watcher):
    """Moves a bar as well."""

    def __init__(self, people: Console, bars: Progress, total: int | None) -> None:
        super().__init__(people)
        self._bars = bars
        self._task = bars.add_task("reading" if total is None else "fetching", total=total)

    def step(self, name: str, share: float) -> None:
        """Show a step's name and the share of it that is done."""
        self._bars.update(self._task, description=name, total=1.0, completed=share)

    def arrived(self, size: int) -> None:
        """Count bytes."""
        self._bars.advance(self._task, size)


@contextmanager
def watching(people: Console, *, bar: bool, total: int | None = None) -> Iterator[Observer]:
    """Show what an audit does: its notes, and on a terminal a bar.

    Args:
        people: standard error.
        bar: whether a bar is wanted at all.
        total: bytes to fetch; None where steps are to be shown instead.
    """
    if not (bar and people.is_terminal and not people.quiet):
        yield Watcher(people)
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TransferSpeedColumn,
    )

    columns: tuple[ProgressColumn, ...] = (
        (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
        if total is None
        else (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    )
    with Progress(*columns, console=people, transient=total is None) as bars:
        yield BarWatcher(people, bars, total)
