"""From options and the configuration to a policy, and from a verdict to an exit status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Protocol

import typer

from saeaudit import __version__
from saeaudit.cli import options
from saeaudit.cli.streams import CLOSED_PIPE, FAILED
from saeaudit.errors import AuditError
from saeaudit.escape import NAME, escape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rich.console import Console

    from saeaudit.audit.observer import Observer
    from saeaudit.formats.interface import Format
    from saeaudit.formats.output import Destination
    from saeaudit.policy.config import Config
    from saeaudit.policy.verdict import Policy
    from saeaudit.records import Record

BROKEN = 1


def read_config(path: Path | None) -> Config | None:
    """Check the configuration, and make its release known.

    Raises:
        AuditError: it is not valid.
    """
    from saeaudit.policy.config import load_config
    from saeaudit.sources.releases import add_release, load_release

    if path is None:
        return None
    config = load_config(path)
    if config.release:
        add_release(load_release(path))
    return config


def make_policy(
    command: Literal["scan", "score"], config: Config | None, fail_on: list[str] | None,
    baseline: Path | None = None, any_revision: bool = False,
) -> Policy:  # fmt: skip
    """The rules of the configuration and of the command line, and the baseline.

    Raises:
        AuditError: a bad rule, or no baseline where one is named.
    """
    from saeaudit.formats.reading import read_records
    from saeaudit.policy.baseline import read_baseline
    from saeaudit.policy.rules import parse_rule
    from saeaudit.policy.verdict import Policy

    rules = [] if config is None else list(config.rules.get(command, ()))
    rules += [parse_rule(text, command) for text in fail_on or ()]
    where = "--baseline"
    if baseline is None and command == "scan" and config is not None and config.baseline:
        baseline, where = config.baseline, f"{config.path}: policy.baseline"
    if baseline is None:
        if any_revision:
            raise AuditError("there is no baseline", where="--baseline-any-revision")
        return Policy(tuple(rules))
    if str(baseline) == "-":
        raise AuditError("a baseline is a file", where=where)
    records = read_records(str(baseline), where, "made by saeaudit baseline")
    known = read_baseline(records, f"{where} {baseline}", any_revision=any_revision)
    return Policy(tuple(rules), known)


def chosen(ctx: typer.Context, config: Config | None, values: dict[str, float]) -> dict[str, float]:
    """Thresholds: the command line's where given there, else the configuration's.

    Args:
        ctx: knows which options were given.
        config: may say some.
        values: each option's value, default included.
    """
    out = dict(values)
    for name, value in (config.scan if config else {}).items():
        source = ctx.get_parameter_source(name)
        if source is None or source.name == "DEFAULT":
            out[name] = value
    return out


class Table(Protocol):
    """What people see at the end."""

    def record(self, record: Record) -> None:
        """Take one record."""

    def end(self) -> None:
        """Print."""


def write(
    run: Record, make: Callable[[Observer], Iterable[Record]], policy: Policy, table: Table,
    *, output: Destination, form: Format, people: Console, no_progress: bool, exit_zero: bool,
) -> None:  # fmt: skip
    """Write a run's records as they come, judge them, show the table, and exit.

    Args:
        run: the first record.
        make: makes the others, the verdict last, watched.
        policy: what they must meet.
        table: shown at the end, unless it is what is written.
        output, form: where to write, and what.
        people: standard error.
        no_progress: whether to show no progress.
        exit_zero: whether a broken policy is no failure.

    Raises:
        typer.Exit: with status 2 (something could not be audited), 1 (the policy is broken) or 141
            (the reader closed the pipe, and a rule had to be evaluated all the same).
    """
    from saeaudit.cli.console import watching
    from saeaudit.formats.interface import output as opened
    from saeaudit.formats.items import broken as why
    from saeaudit.policy.verdict import judge
    from saeaudit.records import ErrorRecord, ScanSummary, ScoreSummary, Verdict

    failed = summaries = 0
    verdict = None
    with opened(output, form) as writer, watching(people, bar=not no_progress) as observer:
        writer.tolerant = bool(policy.rules)
        writer.record(run)
        for record in judge(make(observer), policy):
            writer.record(record)
            table.record(record)
            if isinstance(record, ErrorRecord):
                failed += 1
                options.say(options.error_line(record))
            elif isinstance(record, (ScanSummary, ScoreSummary)):
                summaries += 1
                writer.flush()
            elif isinstance(record, Verdict):
                verdict = record
        writer.flush()
        writer.discard = failed > 0 and not summaries and form == "jsonl"
    if summaries and form != "table":
        table.end()
    for rule in verdict.rules if verdict else ():
        if not rule.passed:
            options.say(f"{rule.sae}: policy broken: {why(rule)}")
    if failed:
        raise typer.Exit(FAILED)
    if verdict and not verdict.passed and not exit_zero:
        raise typer.Exit(BROKEN)
    if writer.broken:
        raise typer.Exit(CLOSED_PIPE)


def baseline(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Records of a scan; - for standard input.")
    ],
    output: options.Output = None,
    debug: options.Debug = False,
) -> None:
    """Keep a scan's findings as known: `scan --baseline` then tells what is new.

    Example: saeaudit baseline scan.jsonl -o baseline.jsonl
    """
    from saeaudit.formats.output import destination
    from saeaudit.formats.reading import read_records
    from saeaudit.policy.baseline import make_baseline

    place = destination(output)
    place.spare([file])
    records = read_records(file, "", "the output of saeaudit scan")
    made = list(make_baseline(records, file, __version__))
    with place.opened() as writer:
        for record in made:
            writer.record(record)


config_app = typer.Typer(help="Check configuration files.", no_args_is_help=True)


@config_app.callback()
def _config() -> None:
    """Check configuration files."""


@config_app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Configuration or release files.")
    ],
    debug: options.Debug = False,
) -> None:
    """Check configuration files: keys, types, ranges, rules, and that the baseline is there.

    Example: saeaudit config check saeaudit.yaml
    """
    from saeaudit.formats.output import destination

    with destination(None).opened() as writer:
        for file in files:
            config = read_config(file)
            make_policy("scan", config, None)
            writer.text(f"{escape(str(file), NAME)}: fine\n")
