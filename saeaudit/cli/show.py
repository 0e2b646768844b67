"""``saeaudit show``."""

from __future__ import annotations

from itertools import chain, dropwhile
from typing import TYPE_CHECKING, Annotated

import typer

from saeaudit.cli import options
from saeaudit.cli.outlets import outlets
from saeaudit.errors import AuditError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from saeaudit.records import Record


def show(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="Records of any commands; - for standard input.")
    ],
    form: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            metavar="F[=FILE]",
            show_default=False,
            help="As the command would have written it: `table` is its screen; repeatable. [a line "
            "for each record]",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    kind: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="T",
            help="Only records of this type, or kind of pair (duplicate, antipodal); repeatable.",
        ),
    ] = None,
    sae: options.Sae = None,
    feature: Annotated[
        int | None,
        typer.Option(metavar="I", help="One feature's card; with --format the records of it."),
    ] = None,
    sort: Annotated[
        str | None,
        typer.Option(
            metavar="K",
            help="`worst` first, or by a number of the records, largest first; -K smallest first.",
        ),
    ] = None,
    top: Annotated[
        int | None, typer.Option(metavar="N", help="At most N of each kind of each SAE.")
    ] = None,
    output: options.Output = None,
    debug: options.Debug = False,
) -> None:
    """Show saved records of any command: a line each, in another form, or one feature's card.

    \b
    Examples:
      saeaudit scan sample | saeaudit show - --type antipodal --format jsonl
    """
    from saeaudit.formats.interface import opened_all
    from saeaudit.formats.reading import read_records
    from saeaudit.formats.screen.card import cards
    from saeaudit.formats.screen.lines import lines_of
    from saeaudit.formats.screen.runs import RunsScreen
    from saeaudit.formats.selection import Selection, select

    for option, number, least in (("--feature", feature, 0), ("--top", top, 1)):
        if number is not None and number < least:
            raise AuditError(
                f"{number} is out of range", where=option, hint=f"allowed: {least} or more"
            )
    places = outlets(form, output)
    as_card = feature is not None and not form
    chosen = Selection(
        types=frozenset(kind or ()), saes=tuple(sae or ()), sort=sort, feature=feature,
        top=None if as_card else top,  # a card counts what it does not show
        frames=any(name != "jsonl" for _, name in places.all_as("jsonl")),
    )  # fmt: skip
    places.spare([file])
    whole = _ended(read_records(file, "", "what saeaudit writes"), file)
    records = chosen.checked(whole, file)
    if form or places.main is None:
        with opened_all(places.all_as("jsonl"), RunsScreen) as several:
            for record in select(records, chosen):
                several.record(record)
        return
    lines: Iterator[str]
    if feature is not None:
        lines = iter(cards(select(records, chosen), feature, top, file))
    else:
        lines = chain.from_iterable(map(lines_of, select(records, chosen)))
    with places.main.opened() as writer:
        for line in dropwhile(lambda line: not line, lines):
            writer.text(f"{line}\n")


def _ended(records: Iterable[Record], file: str) -> Iterator[Record]:
    """Pass records on; a line for people where the last run has not come to its verdict."""
    from saeaudit.records import Run, Verdict

    unfinished = False
    for record in records:
        if isinstance(record, (Run, Verdict)):
            unfinished = isinstance(record, Run)
        yield record
    if unfinished:
        options.say(
            f"{file}: there is no verdict at its end: the run was cut short, or is going on"
        )
