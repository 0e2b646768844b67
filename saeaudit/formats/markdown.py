"""Markdown for GitHub's and GitLab's summaries of a job: the verdict, the SAEs, the worst findings.

Texts from outside stay texts: whatever Markdown, HTML or a mention could be made of is written as
character references. The whole stays well below the 1 MiB that GitHub takes.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from urllib.parse import quote

from saeaudit.escape import LINE, NAME, escape
from saeaudit.formats.items import Item, Outcome, broken, sort_out, worst_of
from saeaudit.formats.screen.wording import counted
from saeaudit.records import Record

MOST = 50
"""Rows of each table."""
SPECIAL = re.compile(r"[\\`*_{}\[\]<>#+!|&@~:$^=]|(?<=www)\.")
"""Characters of which Markdown makes more than text in a table's cell."""


def render(records: Iterable[Record]) -> str:
    """The verdict in a sentence, then tables of rules, SAEs and findings."""
    outcome = sort_out(records)
    parts = [f"## saeaudit: {_verdict(outcome)}"]
    rules = sorted(outcome.rules, key=lambda rule: rule.passed)
    parts += _table(
        ("", "SAE", "rule", "value"),
        [
            (
                "passed" if rule.passed else "**broken**", text(rule.sae, NAME), text(rule.rule),
                text("undefined" if rule.value is None else f"{rule.value:.6g}")
                if rule.passed else text(broken(rule)),
            )
            for rule in rules
        ],
    )  # fmt: skip
    parts += _table(
        ("SAE", "what was seen"),
        [(text(sae, NAME), text(line)) for sae, line in outcome.summaries.items()],
    )
    listed = [item for item in worst_of(outcome.items) if item.kind != "policy"]
    parts += _table(("kind", "SAE", "what", "pages"), list(map(_row, listed)))
    return "\n\n".join(parts) + "\n"


def text(value: str, limit: int = LINE) -> str:
    """A text as Markdown that reads the same.

    Example: "a|b" is "a&#124;b".
    """
    return SPECIAL.sub(lambda match: f"&#{ord(match[0])};", escape(value, limit))


def _verdict(outcome: Outcome) -> str:
    failed = sum(item.kind == "error" for item in outcome.items)
    if failed:
        return f"could not audit {counted(failed, 'SAE', 'SAEs')}"
    wrong = sum(not rule.passed for rule in outcome.rules)
    if wrong:
        return f"{wrong:,} of {counted(len(outcome.rules), 'rule', 'rules')} broken"
    if outcome.verdict is None:
        return "the run has no verdict"
    return "all rules hold" if outcome.rules else "no rules were asked for"


def _row(item: Item) -> tuple[str, ...]:
    state = " (known)" if item.known else ""
    pages = " ".join(
        f"[{text(url.rsplit('/', 1)[-1])}]({quote(url.encode('utf-8', 'replace'), safe=':/')})"
        for url in item.urls
        if url.startswith("https://")
    )
    return text(item.kind + state), text(item.sae, NAME), text(item.message), pages


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table, and a line for what is left out of it; neither where there are no rows."""
    if not rows:
        return []
    lines = [heads, ["---"] * len(heads), *rows[:MOST]]
    table = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    more = len(rows) - MOST
    return [table, f"and {more:,} more; the records have all of them"] if more > 0 else [table]
