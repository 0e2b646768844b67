"""SARIF 2.1.0: what code-scanning pages read."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from typing import Any, get_args
from urllib.parse import quote

from saeaudit.escape import LINE, NAME, escape, json_line
from saeaudit.formats.items import Item, Kind, sort_out
from saeaudit.formats.meanings import MEANINGS
from saeaudit.records import Record

SCHEMA = "https://json.schemastore.org/sarif-2.1.0.json"
LEVELS = {"error": "error", "warning": "warning", "notice": "note"}


def render(records: Iterable[Record]) -> str:
    """One log with one run."""
    outcome = sort_out(records)
    rules: list[Kind] = [kind for kind in get_args(Kind) if kind != "error"]
    results = [
        _result(item, rules.index(item.kind), outcome.sources.get(item.sae, item.sae))
        for item in outcome.items
        if item.kind != "error"
    ]
    errors = [
        {"level": "error", "message": {"text": _text(item)}}
        for item in outcome.items
        if item.kind == "error"
    ]
    run: dict[str, Any] = {
        "tool": {
            "driver": {
                "name": "saeaudit",
                "version": outcome.run.version if outcome.run else "0",
                "rules": [
                    {"id": kind, "name": kind, "shortDescription": {"text": MEANINGS[kind].title}}
                    for kind in rules
                ],
            }
        },
        "invocations": [{"executionSuccessful": not errors, "toolExecutionNotifications": errors}],
        "results": results,
        "columnKind": "unicodeCodePoints",
    }
    log = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json_line(log, indent=1) + "\n"


def _result(item: Item, rule: int, file: str) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": item.kind,
        "ruleIndex": rule,
        "level": LEVELS[item.level],
        "message": {"text": _text(item)},
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": _uri(file)},
                    "region": {"startLine": 1},
                }
            }
        ],
        "partialFingerprints": {"saeaudit/v1": _fingerprint(item)},
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


def _fingerprint(item: Item) -> str:
    """What a finding is known by from run to run, however long its SAE's name is."""
    name = f"{item.sae} {item.kind} {' '.join(map(str, item.features))}"
    return hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()


def _uri(path: str) -> str:
    """A path or hub address as a URI reference."""
    scheme = re.match(r"[a-z][a-z0-9+.-]*://", path)
    safe = quote(path.encode("utf-8", "replace"), safe="/@+~!$&'()*,;=" + (":" if scheme else ""))
    return safe
