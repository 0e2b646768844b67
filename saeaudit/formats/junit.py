"""JUnit XML: a suite for each SAE, a case for each rule, and one for being audited at all."""

from __future__ import annotations

from collections.abc import Iterable
from xml.etree import ElementTree as Xml

from saeaudit.escape import LINE, NAME, escape
from saeaudit.formats.items import Item, broken, sort_out, worst_of
from saeaudit.records import Record

LISTED = 50
"""Findings listed in a failure's text, the worst first."""


def render(records: Iterable[Record]) -> str:
    """One document for the run."""
    outcome = sort_out(records)
    started = outcome.run.started[:19] if outcome.run else "1970-01-01T00:00:00"
    root = Xml.Element("testsuites")
    failed = [item for item in outcome.items if item.kind == "error"]
    names = dict.fromkeys([*outcome.sources, *(item.sae for item in failed)])
    for number, sae in enumerate(names):
        items = worst_of(item for item in outcome.items if item.sae == sae)
        rules = [rule for rule in outcome.rules if rule.sae == sae]
        errors = [item for item in items if item.kind == "error"]
        fresh = [item for item in items if item.level == "warning"]
        suite = Xml.SubElement(
            root, "testsuite", name=escape(sae, NAME), package="saeaudit", id=str(number),
            timestamp=started, hostname="localhost", tests=str(1 + len(rules)),
            failures=str(sum(not rule.passed for rule in rules)), errors=str(len(errors)),
            time="0",
        )  # fmt: skip
        Xml.SubElement(suite, "properties")
        case = _case(suite, sae, "audited")
        for error in errors[:1]:
            node = Xml.SubElement(case, "error", type="error", message=escape(error.message))
            node.text = escape(error.message)
        for rule in rules:
            case = _case(suite, sae, rule.rule)
            if not rule.passed:
                message = escape(broken(rule))
                failure = Xml.SubElement(case, "failure", type="policy", message=message)
                failure.text = _listed(fresh)
        output = Xml.SubElement(suite, "system-out")
        output.text = "\n".join([escape(outcome.summaries.get(sae, "")), _listed(items)])
        Xml.SubElement(suite, "system-err")
    Xml.indent(root)
    text = Xml.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _case(suite: Xml.Element, sae: str, name: str) -> Xml.Element:
    owner = f"saeaudit.{escape(sae, NAME)}"
    return Xml.SubElement(suite, "testcase", name=escape(name, NAME), classname=owner, time="0")


def _listed(items: list[Item]) -> str:
    lines = [f"{item.kind}: {escape(item.message, LINE)}" for item in items[:LISTED]]
    if len(items) > LISTED:
        lines.append(f"and {len(items) - LISTED} more")
    return "\n".join(lines)
