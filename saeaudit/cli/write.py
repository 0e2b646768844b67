"""From a command's records to what is written, what people see, and an exit status."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from saeaudit import __version__
from saeaudit.cli import options
from saeaudit.cli.exits import BROKEN, CLOSED_PIPE, FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from saeaudit.audit.observer import Observer
    from saeaudit.formats.interface import Table
    from saeaudit.formats.output import Destination
    from saeaudit.policy.verdict import Policy
    from saeaudit.records import Record, Run, Verdict
    from saeaudit.vocabulary import Format, ScreenName

NOT_TOLD = ("ctx", "debug", "quiet", "yes")
"""Parameters of a command that its run record leaves out: no record depends on them."""


@dataclass(frozen=True)
class Output:
    """Where a run's records go, in which form, and what people see of it."""

    place: Destination
    people: Console
    """Standard error."""
    form: Format
    no_progress: bool
    """Whether to show no progress."""
    exit_zero: bool
    """Whether a broken policy is no failure."""


def run_record(
    command: str, arguments: dict[str, Any], device: str, screen: ScreenName | None = None
) -> Run:
    """The first record of a command's output.

    Args:
        command: its name.
        arguments: its parameters by name; those of `NOT_TOLD` are left out.
        device: where it computes.
        screen: arithmetic of the screening pass, where there is one.
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
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device,
        screen=screen,
        python=platform.python_version(),
        torch=str(torch.__version__),
    )


def write(
    run: Record,
    make: Callable[[Observer], Iterable[Record]],
    policy: Policy,
    table: Callable[[Console], Table],
    output: Output,
) -> None:
    """Write a run's records as they come, judge them, show the table, and exit.

    Args:
        run: the first record.
        make: makes the others, the verdict last, watched.
        policy: what they must meet.
        table: makes what people see at the end, unless it is what is written.
        output: where to write, and what.

    Raises:
        typer.Exit: with status 2 (something could not be audited), 1 (the policy is broken) or 141
            (the reader closed the pipe, and a rule had to be evaluated all the same).
    """
    from saeaudit.cli.console import watching
    from saeaudit.formats.interface import opened
    from saeaudit.policy.verdict import judge
    from saeaudit.records import ErrorRecord, Summary, Verdict

    failed = summaries = 0
    verdict = None
    shown = table(output.people)
    with (
        opened(output.place, output.form, table) as writer,
        watching(output.people, bar=not output.no_progress) as observer,
    ):
        writer.tolerant = bool(policy.rules)
        writer.record(run)
        for record in judge(make(observer), policy):
            writer.record(record)
            shown.record(record)
            if isinstance(record, ErrorRecord):
                failed += 1
                options.say(options.error_line(record))
            elif isinstance(record, Summary):
                summaries += 1
                writer.flush()
            elif isinstance(record, Verdict):
                verdict = record
        writer.flush()
        writer.discard = failed > 0 and not summaries and output.form == "jsonl"
    if summaries and output.form != "table":
        shown.end()
    _say_broken(verdict)
    if failed:
        raise typer.Exit(FAILED)
    if verdict and not verdict.passed and not output.exit_zero:
        raise typer.Exit(BROKEN)
    if writer.broken:
        raise typer.Exit(CLOSED_PIPE)


def _say_broken(verdict: Verdict | None) -> None:
    """A line for each rule that does not pass."""
    from saeaudit.formats.items import broken

    for rule in verdict.rules if verdict else ():
        if not rule.passed:
            options.say(f"{rule.sae}: policy broken: {broken(rule)}")
