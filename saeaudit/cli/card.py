"""``saeaudit card``."""

from __future__ import annotations

from typing import Annotated

import typer

from saeaudit import __version__
from saeaudit.cli import options


def card(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE...", help="Records of scan, mediators and score; - for standard input."
        ),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE",
            help="Write the section here, once complete; - is standard output.",
        ),
    ] = None,
    debug: options.Debug = False,
) -> None:  # fmt: skip
    """Print a section for an SAE's model card, with the metadata block that the hub reads.

    \b
    Examples:
      saeaudit scan sample/stitched | saeaudit card -
    """
    from saeaudit.formats.output import destination
    from saeaudit.formats.reading import read_records
    from saeaudit.report.gather import Gatherer
    from saeaudit.report.model_card import model_card

    place = destination(output)
    place.spare(files)
    gatherer = Gatherer()
    for file in files:
        gatherer.file(read_records(file, "", "what scan, mediators or score write"), file)
    with place.opened() as writer:
        writer.text(model_card(gatherer.end(), __version__))
