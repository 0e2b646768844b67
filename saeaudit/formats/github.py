"""GitHub Actions annotations: workflow commands, a line each.

What goes into a command is escaped, so that no file name or explanation can end it or begin
another: on one line (`saeaudit.escape`), and then as GitHub's own toolkit does.
"""

from __future__ import annotations

from collections.abc import Iterable

from saeaudit.escape import LINE, NAME, escape
from saeaudit.formats.items import Item, sort_out
from saeaudit.records import Record

MOST = 50
"""Annotations of findings written; GitHub shows fewer."""


def render(records: Iterable[Record]) -> str:
    """Errors and broken rules first, then what is new, then a line for each SAE."""
    outcome = sort_out(records)
    errors = [item for item in outcome.items if item.level == "error"]
    findings = [item for item in outcome.items if item.level != "error"]
    findings.sort(key=lambda item: item.level != "warning")
    lines = [annotation(item) for item in (*errors, *findings[:MOST])]
    if len(findings) > MOST:
        more = f"{len(findings) - MOST} more findings; the records have all of them"
        lines.append(command("notice", "saeaudit", more))
    lines += [command("notice", sae, line) for sae, line in outcome.summaries.items()]
    return "".join(f"{line}\n" for line in lines)


def annotation(item: Item) -> str:
    """One item as a workflow command."""
    state = " (known)" if item.known else ""
    return command(item.level, f"saeaudit {item.kind}{state}: {item.sae}", item.message)


def command(level: str, title: str, message: str) -> str:
    """``::level title=…::message``."""
    head = escape(title, NAME).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={head}::{escape(message, LINE).replace('%', '%25')}"
