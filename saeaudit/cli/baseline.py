"""``saeaudit baseline``."""

from __future__ import annotations

from typing import Annotated

import typer

from saeaudit import __version__
from saeaudit.cli import options


def baseline(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Records of a scan; - for standard input.")
    ],
    output: options.Output = None,
    debug: options.Debug = False,
) -> None:
    """Keep a scan's findings as known: `scan --baseline` then tells what is new.

    \b
    Examples:
      saeaudit baseline scan.jsonl -o baseline.jsonl
    """
    from saeaudit.formats.output import destination
    from saeaudit.formats.reading import read_records
    from saeaudit.policy.baseline import make_baseline

    place = destination(output)
    place.spare([file])
    records = read_records(file, "", "the output of saeaudit scan")
    reduced = list(make_baseline(records, file, __version__))
    with place.opened() as writer:
        for record in reduced:
            writer.record(record)
