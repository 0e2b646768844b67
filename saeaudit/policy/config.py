"""The configuration file: defaults of a scan, and the policy; strictly read.

A release file (configs/*.yaml) has the same form, so one file can name a release and say what its
SAEs must meet. docs/ci.md documents every key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from saeaudit.errors import AuditError
from saeaudit.policy.rules import LIMITS, SUMMARIES, Rule, check_name, parse_rule
from saeaudit.untrusted import finite, parse_yaml, read_text
from saeaudit.vocabulary import SCAN_THRESHOLDS, Audit

TEXTS = ("release", "model", "source", "revision", "neuronpedia")
SECTIONS = ("saes", "collect", "scan", "policy")


@dataclass(frozen=True)
class Config:
    """A configuration file."""

    path: Path
    release: bool = False
    """Whether it names a release."""
    scan: dict[str, float] = field(default_factory=dict)
    """Thresholds by name."""
    rules: dict[Audit, tuple[Rule, ...]] = field(default_factory=dict)
    """Limits of the policy, for the command whose summary has that number."""
    baseline: Path | None = None
    """Relative to the file."""


def load_config(path: Path) -> Config:
    """Read and check a configuration file.

    Raises:
        AuditError: unreadable, unknown keys, keys that stand twice, wrong types, impossible
            values; names the file, the key path and what is allowed.
    """
    where = str(path)
    content = parse_yaml(read_text(path), where)
    content = {} if content is None else content
    _mapping(content, "", (*TEXTS, *SECTIONS), where)
    for name in TEXTS:
        value = content.get(name)
        if value is not None and not isinstance(value, str):
            raise _wrong(where, name, value, "text")
    source = content.get("source")
    if source is not None and not re.fullmatch(r"hf://[^/@\s]+/[^/@\s]+(/\S*)?", source):
        raise _wrong(where, "source", source, "hf://owner/repo")
    if content.keys() & {"release", "saes", "collect"} and source is None:
        raise AuditError("source is missing", where=where, hint="source: hf://owner/repo")
    saes = content.get("saes") or {}
    _mapping(saes, "saes", None, where)
    for name, value in saes.items():
        if not isinstance(value, str) or not value:
            raise _wrong(where, f"saes.{name}", value, "a path in the repository")
    scan = content.get("scan") or {}
    _mapping(scan, "scan", tuple(SCAN_THRESHOLDS), where)
    for name, value in scan.items():
        threshold = SCAN_THRESHOLDS[name]
        if not _number(value) or not threshold.allows(value):
            raise _wrong(where, f"scan.{name}", value, f"a number of {threshold.allowed}")
    rules, baseline = _policy(content.get("policy") or {}, where)
    if baseline is not None:
        baseline = path.parent / baseline
    return Config(path, source is not None, {k: float(v) for k, v in scan.items()}, rules, baseline)


def _policy(section: Any, where: str) -> tuple[dict[Audit, tuple[Rule, ...]], Path | None]:
    _mapping(section, "policy", None, where)
    parsed: dict[Audit, list[Rule]] = {command: [] for command in SUMMARIES}
    baseline: Path | None = None
    for name, value in section.items():
        key = f"policy.{name}"
        if name == "baseline":
            if not isinstance(value, str) or not value:
                raise _wrong(where, key, value, "the name of a file")
            baseline = Path(value)
        elif name == "fail_on":
            if not isinstance(value, list) or not all(isinstance(v, str) for v in value):
                raise _wrong(where, key, value, "a list of rules")
            for n, text in enumerate(value):
                for command in _commands(text, f"{where}: {key}[{n}]"):
                    parsed[command].append(parse_rule(text, command))
        elif match := LIMITS.fullmatch(name):
            if not _number(value):
                raise _wrong(where, key, value, "a number")
            side, number = match.groups()
            text = f"{number}{'>' if side == 'max' else '<'}{value!r}"
            for command in _commands(text, f"{where}: {key}"):
                parsed[command].append(parse_rule(text, command))
        else:
            raise AuditError(
                f"unknown key policy.{name}",
                where=where,
                hint="known: baseline, fail_on, and max_NAME or min_NAME for a number of a summary",
            )
    return {command: tuple(rules) for command, rules in parsed.items()}, baseline


def _commands(text: str, where: str) -> list[Audit]:
    """Commands whose summary has a rule's number; a scan's names are shown where none has."""
    commands: list[Audit] = []
    for command in SUMMARIES:
        try:
            parse_rule(text, command)
        except AuditError:
            continue
        commands.append(command)
    if not commands:
        rule = parse_rule(text, "scan", where)
        check_name(rule.name, "scan", where)
    return commands


def _mapping(value: Any, name: str, known: tuple[str, ...] | None, where: str) -> None:
    if not isinstance(value, dict):
        raise _wrong(where, name or "the file", value, "a mapping")
    for key in value:
        path = f"{name}.{key}" if name else str(key)
        if not isinstance(key, str) or (known is not None and key not in known):
            allowed = f"known: {', '.join(known)}" if known else "keys are text"
            raise AuditError(f"unknown key {path}", where=where, hint=allowed)


def _number(value: Any) -> bool:
    return finite(value) is not None


def _wrong(where: str, name: str, value: Any, allowed: str) -> AuditError:
    return AuditError(f"{name} is {value!r}; {allowed} was expected", where=where)
