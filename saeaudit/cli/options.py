"""Options that commands share: the same name, help and check everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Targets = Annotated[
    list[str],
    typer.Argument(
        metavar="TARGET...",
        help="A weight file, an SAE's folder, a folder of such folders, or "
        "`sample` / `sample/stitched`.",
    ),
]
Sae = Annotated[
    list[str] | None,
    typer.Option("--sae", metavar="GLOB", help="Only SAEs whose id matches; repeatable."),
]
Output = Annotated[
    Path | None,
    typer.Option("--output", "-o", metavar="FILE", help="Write records here, once complete."),
]
Device = Annotated[str, typer.Option("--device", metavar="D", help="auto, cpu, cuda or cuda:N.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing but errors on standard error.")]
NoProgress = Annotated[bool, typer.Option("--no-progress", help="No progress display.")]
Debug = Annotated[bool, typer.Option("--debug", help="A traceback for every error.")]
ExitZero = Annotated[bool, typer.Option("--exit-zero", help="Exit 0 where the policy is broken.")]
