"""GitLab's code quality report: a JSON array of what is wrong, as merge requests show it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from saeaudit.escape import LINE, NAME, escape, json_line
from saeaudit.formats.items import Item, sort_out, worst_of
from saeaudit.records import Record

SEVERITIES = {"error": "critical", "warning": "major", "notice": "info"}
"""GitLab's word for each level."""


def render(records: Iterable[Record]) -> str:
    """One array, the worst first; empty where there is nothing to say."""
    outcome = sort_out(records)
    issues = [
        _issue(item, outcome.sources.get(item.sae, item.sae)) for item in worst_of(outcome.items)
    ]
    return json_line(issues, indent=1) + "\n"


def _issue(item: Item, file: str) -> dict[str, Any]:
    state = " (known)" if item.known else ""
    return {
        "description": f"{escape(item.sae, NAME)}: {escape(item.message, LINE)}",
        "check_name": f"saeaudit {item.kind}{state}",
        "fingerprint": item.fingerprint,
        "severity": SEVERITIES[item.level],
        "location": {"path": escape(file, LINE).removeprefix("./"), "lines": {"begin": 1}},
    }
