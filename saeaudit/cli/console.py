"""Standard error, for people: progress, tables, warnings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console

from saeaudit.audit.scan.search import Progress


def console(*, quiet: bool) -> Console:
    """Return a console on standard error; it honours NO_COLOR and says nothing when quiet."""
    made = Console(stderr=True, quiet=quiet, highlight=False)
    return made if made.is_terminal else Console(stderr=True, quiet=quiet, width=160)


@contextmanager
def progress(to: Console, *, shown: bool) -> Iterator[Progress | None]:
    """Show progress on a terminal; yields None anywhere else."""
    if not (shown and to.is_terminal and not to.quiet):
        yield None
        return
    from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Bars(*columns, console=to, transient=True) as bars:
        task = bars.add_task("reading", total=None)

        def report(step: str, share: float) -> None:
            bars.update(task, description=step, total=1.0, completed=share)

        yield report


@contextmanager
def transfer(to: Console, total: int, *, shown: bool) -> Iterator[Callable[[int], None] | None]:
    """Show bytes arriving on a terminal; yields None anywhere else."""
    if not (shown and to.is_terminal and not to.quiet):
        yield None
        return
    from rich.progress import BarColumn, DownloadColumn, TransferSpeedColumn
    from rich.progress import Progress as Bars

    with Bars(BarColumn(), DownloadColumn(), TransferSpeedColumn(), console=to) as bars:
        task = bars.add_task("fetching", total=total)
        yield lambda count: bars.advance(task, count)
