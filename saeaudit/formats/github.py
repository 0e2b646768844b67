"""GitHub Actions annotations: workflow commands, a line each.

What goes into a command is escaped, so that no file name or explanation can end it or begin
another: on one line (`saeaudit.escape`), and then as GitHub's own toolkit does.
"""

from __future__ import annotations

from collections.abc import Iterable

from saeaudit.escape import LINE, NAME, escape
from saeaudit.formats.items import Item, sort_out, worst_of
from saeaudit.records import Record

WHERE = "the records have all of them"
MOST = 10
"""Annotations of a level: GitHub drops the eleventh. Errors and warnings share them here."""
QUIET = 5
"""Of the notices, those that findings may take: the others are for SAEs."""


def render(records: Iterable[Record]) -> str:
    """Errors and broken rules first, then what is new, the worst first; then a line for each SAE.

    What is more than GitHub shows is counted in a line.
    """
    outcome = sort_out(records)
    items = worst_of(outcome.items)
    loud = [item for item in items if item.level != "notice"][:MOST]
    quiet = [item for item in items if item.level == "notice"][: min(QUIET, MOST - len(loud))]
    notices = [command("notice", sae, line) for sae, line in outcome.summaries.items()]
    if more := len(items) - len(loud) - len(quiet):
        notices.insert(0, command("notice", "saeaudit", f"and {more:,} more; {WHERE}"))
    room = MOST - len(quiet)
    if len(notices) > room:
        more = len(notices) - room + 1
        notices[room - 1 :] = [command("notice", "saeaudit", f"and {more:,} more SAEs; {WHERE}")]
    return "".join(f"{line}\n" for line in [*map(annotation, [*loud, *quiet]), *notices])


def annotation(item: Item) -> str:
    """One item as a workflow command."""
    state = " (known)" if item.known else ""
    return command(item.level, f"saeaudit {item.kind}{state}: {item.sae}", item.message)


def command(level: str, title: str, message: str) -> str:
    """``::level title=…::message``."""
    head = escape(title, NAME).replace("%", "%25").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={head}::{escape(message, LINE).replace('%', '%25')}"
