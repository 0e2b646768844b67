"""From options and the configuration to a policy, and from a verdict to an exit status."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from saeaudit import __version__
from saeaudit.cli import options
from saeaudit.errors import AuditError

if TYPE_CHECKING:
    from saeaudit.policy.config import Config
    from saeaudit.policy.verdict import Policy

BROKEN = 1
CLOSED_PIPE = 141


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


def finish(verdict: Any, *, failed: int, broken: bool, exit_zero: bool) -> None:
    """Say which rules do not pass, and exit.

    Raises:
        typer.Exit: with status 2, 1 or 141.
    """
    from saeaudit.formats.items import broken as why

    for rule in verdict.rules if verdict else ():
        if not rule.passed:
            options.say(f"{rule.sae}: policy broken: {why(rule)}")
    if failed:
        raise typer.Exit(2)
    if verdict and not verdict.passed and not exit_zero:
        raise typer.Exit(BROKEN)
    if broken:
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
    from saeaudit.formats.jsonl import output as open_output
    from saeaudit.formats.reading import read_records
    from saeaudit.policy.baseline import make_baseline

    records = read_records(file, "", "the output of saeaudit scan")
    made = list(make_baseline(records, file, __version__))
    with open_output(output) as writer:
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
    for file in files:
        config = read_config(file)
        make_policy("scan", config, None)
        typer.echo(f"{file}: fine")
