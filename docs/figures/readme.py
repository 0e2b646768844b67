"""What README.md shows of the samples: the tables that people see."""

from __future__ import annotations

import io
from collections.abc import Iterable
from dataclasses import replace

from figures import controls
from figures.measured import summary
from rich.console import Console

import saeaudit
from saeaudit.formats.interface import Table
from saeaudit.formats.score_table import ScoreTable
from saeaudit.formats.table import ScanTable
from saeaudit.records import ClaimRecord, Record

WIDTH = 160
"""Columns where standard error is no terminal."""
LEFT_OUT = "  ..."


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    score = shown(ScoreTable, [replace(summary(), canonical=None)])
    return {
        "scan": code(abridged(shown(ScanTable, saeaudit.scan(saeaudit.open("sample/stitched"))))),
        "claims": code(claims()),
        "controls": controls.readme(),
        "score": code(score),
    }


def claims() -> list[str]:
    """The answers to the claims that the page makes."""
    options = saeaudit.ScanOptions(triples=((692, 3925, 554), (9, 114, 2280)))
    records = saeaudit.scan(saeaudit.open("sample/stitched"), options)
    return [record.sentence for record in records if isinstance(record, ClaimRecord)]


def shown(table: type[ScanTable] | type[ScoreTable], records: Iterable[Record]) -> list[str]:
    """Lines of a table."""
    text = io.StringIO()
    made: Table = table(Console(file=text, width=WIDTH, color_system=None, highlight=False))
    for record in records:
        made.record(record)
    made.end()
    return [line.rstrip() for line in text.getvalue().splitlines()]


def abridged(lines: list[str]) -> list[str]:
    """The table, and the first and the last finding."""
    return [*lines[:3], LEFT_OUT, lines[-1]]


def code(lines: list[str]) -> str:
    """A block of code."""
    return "\n".join(("```", *lines, "```"))
