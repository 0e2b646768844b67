"""What README.md shows of the samples: the screens that people see."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import groupby

from figures import controls
from figures.measured import summary
from rich.console import Console

import saeaudit
from saeaudit.audit.annotations import AnnotationSources
from saeaudit.formats.interface import Table
from saeaudit.formats.screen.scan import ScanScreen
from saeaudit.formats.screen.score import ScoreScreen
from saeaudit.formats.screen.wording import Place
from saeaudit.records import ClaimRecord, Record

WIDTH = 80
"""Columns of the terminal."""
LEFT_OUT = "  ..."


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    stitched, place = saeaudit.open("sample/stitched"), Place("scan.jsonl")
    scanned = saeaudit.scan(stitched, annotations=AnnotationSources().read(stitched))
    score = shown(ScoreScreen, [replace(summary(), canonical=None)])
    return {
        "scan": code(abridged(shown(lambda console: ScanScreen(console, place), scanned))),
        "claims": code(claims()),
        "controls": controls.readme(),
        "score": code(score[0]),
    }


def claims() -> list[str]:
    """The answers to the claims that the page makes."""
    options = saeaudit.ScanOptions(triples=((692, 3925, 554), (9, 114, 2280)))
    records = saeaudit.scan(saeaudit.open("sample/stitched"), options)
    return [record.sentence for record in records if isinstance(record, ClaimRecord)]


def shown(screen: Callable[[Console], Table], records: Iterable[Record]) -> list[list[str]]:
    """Blocks of a screen's lines."""
    text = io.StringIO()
    made = screen(Console(file=text, width=WIDTH, color_system=None, highlight=False))
    for record in records:
        made.record(record)
    made.end()
    lines = text.getvalue().splitlines()
    return [list(block) for filled, block in groupby(lines, key=bool) if filled]


def abridged(blocks: list[list[str]]) -> list[str]:
    """The sentences, and the first finding of each kind."""
    head, *kinds, _ = blocks
    lines = head
    for heading, *listed in kinds:
        first = listed[0].split()[0]
        end = next((n for n, line in enumerate(listed) if n and line.split()[0] == first), None)
        lines = [*lines, "", heading, *listed[:end]]
        if end is not None:
            more = [line for line in listed[end:] if line.startswith("  …")]
            lines += [LEFT_OUT, *more]
    return lines


def code(lines: list[str]) -> str:
    """A block of code."""
    return "\n".join(("```", *lines, "```"))
