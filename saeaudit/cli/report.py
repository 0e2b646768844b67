"""``saeaudit report``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from saeaudit import __version__
from saeaudit.cli import options
from saeaudit.errors import AuditError

if TYPE_CHECKING:
    from saeaudit.report.marks import Picture


def report(
    files: options.Saved,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE",
            help="Write the page here, once complete; - is standard output.",
        ),
    ] = None,
    figures: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the charts here as well, as SVG and PNG."),
    ] = None,
    debug: options.Debug = False,
) -> None:  # fmt: skip
    """Make one page for people of the records of one SAE, several, or a release.

    The page asks for nothing from any network. Without JavaScript it shows the charts and the
    first 200 findings; with it, all of them, sorted and filtered.

    \b
    Examples:
      saeaudit report scan.jsonl mediators.jsonl score.jsonl -o report.html
    """
    from saeaudit.formats.output import destination
    from saeaudit.report.draw import check_libraries, pictures, svg
    from saeaudit.report.gather import gather
    from saeaudit.report.page import page

    if output is None and sys.stdout is not None and sys.stdout.isatty():
        raise AuditError("the page is not for a terminal", where="report", hint="-o report.html")
    check_libraries()
    place = destination(output)
    place.spare(files)
    if figures is not None and not figures.is_dir():
        _make(figures)
    gathered = gather(files)
    drawn = [(picture, svg(picture)) for picture in pictures(gathered)]
    with place.opened() as writer:
        writer.text(page(gathered, drawn, __version__))
    if figures is not None:
        _write(figures, drawn)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise AuditError(
            f"cannot be made: {error.strerror or error}", where=f"--figures {folder}"
        ) from error


def _write(folder: Path, drawn: list[tuple[Picture, str]]) -> None:
    """Write each chart as SVG and PNG."""
    from saeaudit.formats.output import destination
    from saeaudit.report.draw import png
    from saeaudit.report.marks import fallback_colours

    for picture, text in drawn:
        with destination(str(folder / f"{picture.name}.svg")).opened() as writer:
            writer.text(fallback_colours(text))
        with destination(str(folder / f"{picture.name}.png")).opened() as writer:
            writer.binary(png(text))
