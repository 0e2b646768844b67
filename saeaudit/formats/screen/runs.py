"""The screens of a file's runs, one after the other, whichever commands have written it."""

from __future__ import annotations

from typing import assert_never, get_args

from rich.console import Console

from saeaudit.formats.interface import Table
from saeaudit.formats.screen.mediators import MediatorsScreen
from saeaudit.formats.screen.scan import ScanScreen
from saeaudit.formats.screen.score import ScoreScreen
from saeaudit.records import (
    ChoiceRecord,
    ClaimRecord,
    DictionaryRecord,
    Finding,
    MediatorRecord,
    Record,
    Run,
    Summary,
    TokenRecord,
)
from saeaudit.vocabulary import Audit


class RunsScreen:
    """Shows each run by its command's screen; records without a run by what they are.

    Args:
        console: where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._run: Run | None = None
        self._command: Audit | None = None
        self._shown: Table | None = None
        self._waiting: list[Record] = []

    def record(self, record: Record) -> None:
        """Take one record; another run ends the screen of the one before."""
        if isinstance(record, Run) and not self._is_of_this_run(record):
            self.end()
            self._run = record
            self._begin(command_of(record))
        elif command_of(record) not in (None, self._command):
            waiting, self._waiting = self._waiting, []
            self.end()
            self._waiting = waiting
            self._begin(command_of(record))
        self._waiting.append(record)
        if not isinstance(record, DictionaryRecord):  # what follows it says whose it is
            self._pass_on()

    def _is_of_this_run(self, record: Run) -> bool:
        run = self._run
        return run is not None and (run.command, run.started) == (record.command, record.started)

    def _begin(self, command: Audit | None) -> None:
        self._command = command
        self._shown = None if command is None else screen_of(command, self._console)

    def _pass_on(self) -> None:
        if self._shown is not None:
            for record in self._waiting:
                self._shown.record(record)
            self._waiting = []

    def end(self) -> None:
        """Print the screen of the run that goes by."""
        self._pass_on()
        if self._shown is not None:
            self._shown.end()
        self._run = self._command = self._shown = None
        self._waiting = []


def screen_of(command: Audit, console: Console) -> Table:
    """The screen of a command's records; mypy names a command that is forgotten."""
    match command:
        case "scan":
            return ScanScreen(console)
        case "mediators":
            return MediatorsScreen(console)
        case "score":
            return ScoreScreen(console)
        case _:
            assert_never(command)


def command_of(record: Record) -> Audit | None:
    """The command whose screen shows a record; None where several might."""
    if isinstance(record, Run):
        return next((name for name in get_args(Audit) if name == record.command), None)
    if isinstance(record, Summary):
        return record.command
    if isinstance(record, Finding | ClaimRecord):
        return "scan"
    if isinstance(record, (MediatorRecord, TokenRecord)):
        return "mediators"
    return "score" if isinstance(record, ChoiceRecord) else None
