"""Rules: a number of a summary record, a comparison, a limit. A rule says when to fail."""

from __future__ import annotations

import math
import operator
import re
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, Union, get_args, get_origin, get_type_hints

from saeaudit.errors import AuditError
from saeaudit.records import (
    MediatorsSummary,
    ScanSummary,
    ScoreSummary,
    Summary,
    json_schema,
)
from saeaudit.suggest import did_you_mean
from saeaudit.vocabulary import Audit

OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge, "<=": operator.le, "==": operator.eq, "!=": operator.ne,
    ">": operator.gt, "<": operator.lt,
}  # fmt: skip
"""What may stand between name and limit."""
SUMMARIES: dict[Audit, type[Summary]] = {
    "scan": ScanSummary,
    "mediators": MediatorsSummary,
    "score": ScoreSummary,
}
DERIVED: dict[Audit, dict[str, str]] = {
    "scan": {
        "new_findings": "pairs, groups and triples that no baseline knows",
        "known_findings": "those that the baseline knows",
        "claims_that_hold": "claims of --triple and --pair that hold",
        "claims_that_fail": "those that do not hold, or that a pair explains",
        "pairs_per_1000_features": "pairs for each 1000 live features",
        "triples_per_1000_features": "triples for each 1000 live features",
    },
    "mediators": {},
    "score": {},
}
"""Names that are no field of a summary, and what they are."""
LIMITS = re.compile(r"(max|min)_(\w[\w.]*)")


@dataclass(frozen=True)
class Rule:
    """Fail where a number compares with a limit in this way."""

    name: str
    comparison: str
    limit: float

    @property
    def text(self) -> str:
        """As on the command line."""
        return f"{self.name}{self.comparison}{self.limit:g}"

    def holds(self, value: float | None) -> bool:
        """Whether the policy holds: a number that is undefined cannot say so."""
        if value is None or not math.isfinite(value):
            return False
        return not OPERATORS[self.comparison](value, self.limit)


def parse_rule(text: str, command: Audit, where: str = "--fail-on") -> Rule:
    """Parse ``NAME OPERATOR NUMBER``.

    Raises:
        AuditError: another form, or a name that is no number of this command's summary.
    """
    match = re.fullmatch(r"\s*([\w.]+)\s*(>=|<=|==|!=|>|<)\s*(\S+)\s*", text)
    if not match:
        raise AuditError(
            f"{text!r} is no rule", where=where, hint="such as 'duplicate_fraction>0.01'"
        )
    name, comparison, number = match.groups()
    try:
        limit = float(number)
    except ValueError:
        limit = math.nan
    if not math.isfinite(limit):
        raise AuditError(f"{number!r} in {text!r} is no number", where=where)
    check_name(name, command, where)
    return Rule(name, comparison, limit)


def check_name(name: str, command: Audit, where: str) -> None:
    """Refuse a name that is no number of a command's summary.

    Raises:
        AuditError: it is not; names those that are.
    """
    if name not in names(command):
        raise AuditError(
            f"{name!r} is no number of the summary of {command}",
            where=where,
            hint=did_you_mean(name, names(command)) or f"known: {', '.join(names(command))}",
        )


@cache
def names(command: Audit) -> tuple[str, ...]:
    """Names that rules may use: every number of the summary, and `DERIVED`."""
    return tuple(sorted([*_numbers(SUMMARIES[command]), *DERIVED[command]]))


def _numbers(record: type, prefix: str = "") -> list[str]:
    hints = get_type_hints(record)
    numbers: list[str] = []
    for field in fields(record):
        kinds = [hints[field.name]]
        if get_origin(kinds[0]) in (Union, types.UnionType):
            kinds = [kind for kind in get_args(kinds[0]) if kind is not type(None)]
        (kind, *others) = kinds
        if others:
            continue
        if kind in (int, float):
            numbers.append(prefix + field.name)
        elif isinstance(kind, type) and is_dataclass(kind):
            numbers += _numbers(kind, f"{prefix}{field.name}.")
    return numbers


def value_of(name: str, summary: Summary, counts: Mapping[str, int]) -> float | None:
    """A number by its name; None where it is undefined.

    Args:
        name: one of `names`.
        summary: the SAE's summary.
        counts: of its records, those of `DERIVED` that no field of a summary gives.
    """
    if name in counts:
        return counts[name]
    if isinstance(summary, ScanSummary) and name.endswith("_per_1000_features"):
        count = getattr(summary, name.removesuffix("_per_1000_features"))
        return 1000 * count / summary.live_features if summary.live_features else None
    value: Any = summary
    for part in name.split("."):
        value = getattr(value, part, None)
    return None if value is None else float(value)


def numbers_of(summary: Summary) -> dict[str, float]:
    """The numbers of a summary under the names that rules have for them (`saeaudit.numbers`).

    What loggers of a training loop take; undefined numbers are left out.

    >>> import saeaudit
    >>> *_, summary = saeaudit.scan("sample")
    >>> saeaudit.numbers(summary)["live_features"]
    2048.0

    Args:
        summary: of any command.
    """
    defined = {name: value_of(name, summary, {}) for name in names(summary.command)}
    return {name: value for name, value in defined.items() if value is not None}


def meaning_of(name: str, command: Audit) -> str:
    """What a number is: what the record's class says of it, and of the records it is in.

    Args:
        name: one of `names`.
        command: whose summary it is of.
    """
    if name in DERIVED[command]:
        return DERIVED[command][name]
    schema = _definitions()
    definition = schema[SUMMARIES[command].__name__]
    said = []
    for part in name.split("."):
        inner = definition["properties"][part]
        said.append(" ".join(inner.get("description", "").split()).rstrip("."))
        for option in (inner, *inner.get("anyOf", ())):
            if "$ref" in option:
                definition = schema[option["$ref"].rsplit("/", 1)[1]]
    return ": ".join(text for text in said if text)


@cache
def _definitions() -> dict[str, Any]:
    definitions: dict[str, Any] = json_schema()["$defs"]
    return definitions


def example_of(name: str, command: Audit) -> str:
    """A rule that names a number.

    Example: ``example_of("pairs", "scan")`` is "pairs>100".
    """
    kind: Any = SUMMARIES[command]
    for part in name.split("."):
        hint = get_type_hints(kind).get(part, int)
        kind = next((option for option in get_args(hint) if option is not type(None)), hint)
    return f"{name}>{0.5 if kind is float else 100:g}"
