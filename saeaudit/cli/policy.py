"""From options and the configuration to thresholds and a policy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from saeaudit.errors import AuditError
from saeaudit.vocabulary import SCAN_THRESHOLDS

if TYPE_CHECKING:
    import typer

    from saeaudit.policy.config import Config
    from saeaudit.policy.verdict import Policy
    from saeaudit.vocabulary import Audit, Control


def read_config(path: Path | None) -> Config | None:
    """Check the configuration, and make its release known.

    Raises:
        AuditError: it is not valid.
    """
    if path is None:
        return None
    from saeaudit.policy.config import load_config
    from saeaudit.sources.releases import add_release, load_release

    config = load_config(path)
    if config.release:
        add_release(load_release(path))
    return config


def make_policy(
    command: Audit, config: Config | None, fail_on: list[str] | None,
    baseline: Path | None = None, any_revision: bool = False, control: Control | None = None,
) -> Policy:  # fmt: skip
    """The rules of the configuration and of the command line, and the baseline.

    Raises:
        AuditError: a bad rule, rules for a control, or no baseline where one is named.
    """
    from saeaudit.formats.reading import read_records
    from saeaudit.policy.baseline import read_baseline
    from saeaudit.policy.rules import parse_rule
    from saeaudit.policy.verdict import Policy

    rules = [] if config is None else list(config.rules.get(command, ()))
    rules += [parse_rule(text, command) for text in fail_on or ()]
    if control and rules:
        raise AuditError(
            f"{rules[0].text!r} would judge an SAE by a null",
            where=f"--control {control}",
            hint="leave out --fail-on, and the rules of --config",
        )
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


def thresholds(ctx: typer.Context, config: Config | None) -> dict[str, float]:
    """A scan's thresholds by name: the command line's, else the configuration's, else defaults."""
    values: dict[str, float] = {name: ctx.params[name] for name in SCAN_THRESHOLDS}
    for name, value in (config.scan if config else {}).items():
        source = ctx.get_parameter_source(name)
        if source is None or source.name == "DEFAULT":
            values[name] = value
    return values
