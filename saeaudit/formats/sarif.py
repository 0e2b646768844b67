"""SARIF 2.1.0: what code-scanning pages read."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, get_args
from urllib.parse import quote

from saeaudit.escape import LINE, NAME, escape, json_line
from saeaudit.formats.items import Item, Kind, sort_out, worst_of
from saeaudit.formats.meanings import MEANINGS
from saeaudit.records import Record

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"error": "error", "warning": "warning", "notice": "note"}
MOST = 25_000
"""Results of a run: GitHub refuses a log with more."""


def render(records: Iterable[Record]) -> str:
    """One log with one run, its results the worst first; a note counts what is left out."""
    outcome = sort_out(records)
    rules: list[Kind] = [kind for kind in get_args(Kind) if kind != "error"]
    items = worst_of(item for item in outcome.items if item.kind != "error")
    results = [
        _result(item, rules.index(item.kind), outcome.sources.get(item.sae, item.sae))
        for item in items[:MOST]
    ]
    errors = [_notification("error", _text(i)) for i in outcome.items if i.kind == "error"]
    notes = []
    if more := len(items) - len(results):
        left_out = f"and {more:,} more results, less bad than these; the records have all of them"
        notes.append(_notification("note", left_out))
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "saeaudit",
                "version": outcome.run.version if outcome.run else "0",
                "rules": list(map(_rule, rules)),
            }
        },
        "invocations": [
            {"executionSuccessful": not errors, "toolExecutionNotifications": [*errors, *notes]}
        ],
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json_line(log, indent=1) + "\n"


def _rule(kind: Kind) -> dict[str, Any]:
    """What a kind of result means, from the texts of `saeaudit explain`."""
    meaning = MEANINGS[kind]
    sections = {"How to check it": meaning.check, "What to do": meaning.action}
    text = "\n\n".join(f"{title}: {words}" for title, words in sections.items())
    more = f"saeaudit explain {kind}"
    markdown = "\n\n".join(f"**{title}.** {words}" for title, words in sections.items())
    commands = "\n".join(meaning.commands)
    return {
        "id": kind,
        "name": kind,
        "shortDescription": {"text": meaning.title},
        "fullDescription": {"text": meaning.means},
        "help": {
            "text": f"{text}\n\n{commands}\n\nMore: {more}, {meaning.page}",
            "markdown": f"{markdown}\n\n```\n{commands}\n```\n\nMore: `{more}`, {meaning.page}",
        },
    }


def _notification(level: str, text: str) -> dict[str, Any]:
    """A line about the run that is of no result."""
    return {"level": level, "message": {"text": text}}


def _result(item: Item, rule: int, file: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": item.kind,
        "ruleIndex": rule,
        "level": LEVELS[item.level],
        "message": {"text": _text(item)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": uri_of(file)},
                    "region": {"startLine": 1},
                }
            }
        ],
        "partialFingerprints": {"saeaudit/v1": item.fingerprint},
        "properties": {
            "sae": item.sae,
            "features": list(item.features),
            "urls": list(item.urls),
        },
    }
    if item.known is not None:
        result["baselineState"] = "unchanged" if item.known else "new"
    return result


def _text(item: Item) -> str:
    return f"{escape(item.sae, NAME)}: {escape(item.message, LINE)}"


def uri_of(path: str) -> str:
    """A path or hub address as a URI reference."""
    scheme = re.match(r"[a-z][a-z0-9+.-]*://", path)
    safe = quote(path.encode("utf-8", "replace"), safe="/@+~!$&'()*,;=" + (":" if scheme else ""))
    return safe
