"""``saeaudit card``."""

from __future__ import annotations

from typing import Annotated

import typer

from saeaudit import __version__
from saeaudit.cli import options


def card(
    files: options.Saved,
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
    from saeaudit.report.gather import gather
    from saeaudit.report.model_card import model_card

    place = destination(output)
    place.spare(files)
    gathered = gather(files)
    with place.opened() as writer:
        writer.text(model_card(gathered, __version__))
