"""From a command's records to what is written, what people see, and an exit status."""

from __future__ import annotations

import platform
import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from saeaudit import __version__
from saeaudit.cli import options
from saeaudit.cli.exits import BROKEN, CLOSED_PIPE, FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from rich.console import Console

    from saeaudit.audit.observer import Observer
    from saeaudit.cli.outlets import Outlets
    from saeaudit.formats.interface import Table
    from saeaudit.formats.output import Destination
    from saeaudit.formats.screen.wording import Place
    from saeaudit.policy.verdict import Policy
    from saeaudit.records import CollectedRecord, Record, Run, ScreenCost, Verdict
    from saeaudit.vocabulary import Format, ScreenName

NOT_TOLD = ("ctx", "debug", "quiet", "yes")
"""Parameters of a command that its run record leaves out: no record depends on them."""


@dataclass(frozen=True)
class Output:
    """Where a run's records go, in which form, and what people see of it."""

    outlets: Outlets
    people: Console
    """Standard error."""
    no_progress: bool
    """Whether to show no progress."""
    exit_zero: bool
    """Whether a broken policy is no failure."""

    @property
    def places(self) -> list[tuple[Destination, Format]]:
        """Where to write, and what."""
        return self.outlets.all_as("table" if self.outlets.is_for_people else "jsonl")

    @property
    def has_screen(self) -> bool:
        """Whether the screen is what the main place gets."""
        main = self.outlets.main
        return any(place is main and form == "table" for place, form in self.places)

    @property
    def streams_to_people(self) -> bool:
        """Whether records are printed on a terminal while they come."""
        return any(form == "jsonl" and place.is_terminal for place, form in self.places)

    @property
    def records(self) -> Place:
        """Where the records are, for the screen to say."""
        from saeaudit.formats.screen.wording import Place

        kept = [place for place, form in self.places if form == "jsonl"]
        file = next((place.name for place in kept if place.kind == "file"), None)
        return Place(
            file, kept=bool(kept) or not (self.outlets.is_for_people or not self.outlets.main)
        )


def run_record(
    command: str, arguments: dict[str, Any], device: str, screen: ScreenName | None = None,
    activations: Sequence[str] = (),
) -> Run:  # fmt: skip
    """The first record of a command's output.

    Args:
        command: its name.
        arguments: its parameters by name; those of `NOT_TOLD` are left out.
        device: where it computes.
        screen: arithmetic of the screening pass, where there is one.
        activations: paths of activations, of which those that were collected are described.

    Raises:
        AuditError: a folder of activations is damaged, or not complete.
    """
    import torch

    from saeaudit.records import Run

    return Run(
        version=__version__,
        command=command,
        arguments={
            name: str(value) if isinstance(value, Path) else value
            for name, value in arguments.items()
            if name not in NOT_TOLD
        },
        started=_now(),
        device=device,
        screen=screen,
        python=platform.python_version(),
        torch=str(torch.__version__),
        activations=_collected(activations) or None,
    )


def _collected(paths: Sequence[str]) -> tuple[CollectedRecord, ...]:
    """Folders among these paths that were collected."""
    from saeaudit.records import CollectedRecord
    from saeaudit.sources.collected.manifest import read_complete
    from saeaudit.sources.paths import collected_folders

    records = []
    for folder in collected_folders(paths):
        manifest, totals = read_complete(folder)
        origin = manifest.origin
        record = CollectedRecord(
            str(folder), origin.model, origin.revision, origin.place, origin.computed_in,
            manifest.dtype, origin.texts, origin.texts_identity, totals.rows,
            totals.documents, totals.dropped,
        )  # fmt: skip
        records.append(record)
    return tuple(records)


def write(
    run: Run,
    make: Callable[[Observer], Iterable[Record]],
    policy: Policy,
    screen: Callable[[Console, Place], Table],
    output: Output,
) -> None:
    """Write a run's records as they come, judge them, show the screen, and exit.

    Args:
        run: the first record.
        make: makes the others, the verdict last, watched.
        policy: what they must meet.
        screen: makes what people see at the end, unless it is what is written.
        output: where to write, and what.

    Raises:
        typer.Exit: with status 2 (something could not be audited), 1 (the policy is broken) or 141
            (the reader closed the pipe, and a rule had to be evaluated all the same).
    """
    from saeaudit.cli.console import watching
    from saeaudit.formats.interface import opened_all
    from saeaudit.formats.items import outcome_line
    from saeaudit.policy.verdict import judge
    from saeaudit.records import ErrorRecord, Summary, Verdict

    failed = summaries = 0
    verdict = None
    begun = time.monotonic()
    shown = screen(output.people, output.records)
    # Records that are printed while they come would go through the bar.
    bar = not (output.no_progress or output.streams_to_people)
    with (
        opened_all(
            output.places, lambda text: screen(text, output.records), _width(output)
        ) as writer,
        watching(output.people, bar=bar) as observer,
    ):
        if policy.rules:
            writer.tolerate()
        writer.record(run)
        shown.record(run)
        for record in judge(make(observer), policy):
            if isinstance(record, Verdict):
                verdict = record
                writer.record(_ended(run, begun, observer.screens))
            writer.record(record)
            shown.record(record)
            if isinstance(record, ErrorRecord):
                failed += 1
                observer.say(options.error_line(record))
            elif isinstance(record, Summary):
                summaries += 1
                writer.flush()
                observer.finished(record.sae, outcome_line(record))
        writer.flush()
        if failed and not summaries:
            writer.discard()
    if summaries and not output.has_screen:
        shown.end()
    _say_broken(verdict)
    if failed:
        raise typer.Exit(FAILED)
    if verdict and not verdict.passed and not output.exit_zero:
        raise typer.Exit(BROKEN)
    if writer.broken:
        raise typer.Exit(CLOSED_PIPE)


def _width(output: Output) -> int:
    """Cells of a line of what is written."""
    from rich.console import Console

    from saeaudit.formats.interface import WIDTH

    return Console(file=sys.stdout).width if output.outlets.is_for_people else WIDTH


def _ended(run: Run, begun: float, screens: Sequence[ScreenCost]) -> Run:
    """The run's record as it stands at the end."""
    return replace(
        run,
        finished=_now(),
        seconds=round(time.monotonic() - begun, 3),
        screens=tuple(screens) or None,
    )


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _say_broken(verdict: Verdict | None) -> None:
    """A line for each rule that does not pass."""
    from saeaudit.formats.items import broken

    for rule in verdict.rules if verdict else ():
        if not rule.passed:
            options.say(f"{rule.sae}: policy broken: {broken(rule)}")
