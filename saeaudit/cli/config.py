"""``saeaudit config check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeaudit.cli import options, policy
from saeaudit.escape import NAME, escape

config_app = typer.Typer(help="Check configuration files.", no_args_is_help=True)


@config_app.callback()
def _config() -> None:
    """Check configuration files."""


@config_app.command()
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Configuration or release files.")
    ],
    debug: options.Debug = False,
) -> None:
    """Check configuration files: keys, types, ranges, rules, and that the baseline is there.

    Example: saeaudit config check saeaudit.yaml
    """
    from saeaudit.formats.output import destination

    with destination(None).opened() as writer:
        for file in files:
            config = policy.read_config(file)
            policy.make_policy("scan", config, None)
            writer.text(f"{escape(str(file), NAME)}: fine\n")
