"""Standard error, for people: progress, tables, warnings."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from saeaudit.audit.observer import Observer
from saeaudit.cli import options
from saeaudit.escape import LINE, NAME, escape

if TYPE_CHECKING:
    from rich.progress import Progress, ProgressColumn

    from saeaudit.records import ScreenCost

WIDE = 160
"""Cells of a line of standard error where it is no terminal."""


def console(*, quiet: bool) -> Console:
    """Return a console on standard error; it honours NO_COLOR and says nothing when quiet."""
    # rich takes FORCE_COLOR for a terminal, and COLUMNS for the width of a file.
    is_terminal = sys.stderr.isatty()
    people = Console(
        stderr=True, quiet=quiet, force_terminal=is_terminal, highlight=False, markup=False,
        emoji=False,
    )  # fmt: skip
    if not is_terminal:
        people.width = WIDE
    return people


class Watcher(Observer):
    """Writes notes for people, unless the console is quiet.

    Args:
        people: standard error.
        lines: whether to say when an SAE is done.
    """

    def __init__(self, people: Console, *, lines: bool = False) -> None:
        self._quiet, self._lines = people.quiet, lines and not people.quiet
        self._place = ""
        self._begun = time.monotonic()
        self.screens: list[ScreenCost] = []
        """What each SAE that was scanned was screened by."""

    def begin(self, sae: str, number: int, total: int) -> None:
        """Remember which SAE is looked at."""
        self._place = f"{number:,} of {total:,}, " if total > 1 else ""
        self._begun = time.monotonic()

    def finished(self, sae: str, outcome: str) -> None:
        """Say what came of an SAE, and after how long."""
        if self._lines:
            seconds = time.monotonic() - self._begun
            self.say(f"{sae}: {outcome} ({self._place}{seconds:.1f} s)")

    def screened(self, cost: ScreenCost) -> None:
        """Keep what an SAE was screened by, for the last record of the run."""
        self.screens.append(cost)

    def note(self, line: str) -> None:
        """Write a line on standard error."""
        if not self._quiet:
            self.say(line)

    def say(self, line: str) -> None:
        """Write a line on standard error, quiet or not."""
        options.say(line)


class BarWatcher(Watcher):
    """Moves a bar as well; lines appear above it."""

    def __init__(self, people: Console, bars: Progress, total: int | None) -> None:
        super().__init__(people)
        self._bars = bars
        self._step = "reading" if total is None else "fetching"
        self._sae = self._which = ""
        self._task = bars.add_task(self._step, total=total, of="", sae="", which="")

    def begin(self, sae: str, number: int, total: int) -> None:
        """Show which SAE is looked at, and that it is being read."""
        self._sae = escape(sae, NAME)
        self._which = f"({number:,} of {total:,})" if total > 1 else ""
        self._restart("reading", None)

    def step(self, name: str, share: float, tokens: int | None = None) -> None:
        """Show a step's name, the share of it that is done, and how long the rest of it will take.

        A step of which nothing is known but that it has begun shows no share.
        """
        known = 1.0 if share or tokens else None
        if name != self._step:
            self._restart(name, known)
        of = f"{round(share * tokens):,} of {tokens:,} tokens" if tokens else f"{share:.0%}"
        self._bars.update(self._task, total=known, completed=share, of=of if known else "")

    def _restart(self, step: str, total: float | None) -> None:
        self._step = step
        self._bars.reset(
            self._task, total=total, description=step, of="", sae=self._sae, which=self._which
        )

    def arrived(self, size: int) -> None:
        """Count bytes."""
        self._bars.advance(self._task, size)

    def say(self, line: str) -> None:
        """Write a line above the bar."""
        text = Text(f"saeaudit: {escape(line, LINE)}")
        self._bars.console.print(text, soft_wrap=True)


@contextmanager
def watching(people: Console, *, bar: bool, total: int | None = None) -> Iterator[Watcher]:
    """Show what an audit does: its notes, and on a terminal a bar, elsewhere a line for each SAE.

    Args:
        people: standard error.
        bar: whether progress is wanted at all.
        total: bytes to fetch; None where steps are to be shown instead.
    """
    if not (bar and people.is_terminal and not people.quiet):
        yield Watcher(people, lines=bar and not people.is_terminal)
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.table import Column

    def text(template: str, *, cut: bool = False) -> TextColumn:
        column = Column(ratio=1, overflow="ellipsis") if cut else Column()
        column.no_wrap = True
        return TextColumn(template, markup=False, table_column=column)

    columns: tuple[ProgressColumn, ...] = (
        (
            text("{task.fields[sae]}", cut=True),
            text("{task.fields[which]}"),
            BarColumn(10),
            text("{task.description} {task.fields[of]}"),
            TimeRemainingColumn(compact=True),
            text("left"),
        )
        if total is None
        else (BarColumn(), DownloadColumn(), TransferSpeedColumn())
    )
    with Progress(*columns, console=people, transient=total is None, expand=total is None) as bars:
        yield BarWatcher(people, bars, total)
