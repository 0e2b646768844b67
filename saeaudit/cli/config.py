"""``saeaudit config check``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from saeaudit.cli import options, policy
from saeaudit.cli.usage import Command
from saeaudit.escape import NAME, escape

config_app = typer.Typer(short_help="Check configuration files.", invoke_without_command=True)


@config_app.callback()
def _config(ctx: typer.Context) -> None:
    """Check configuration files."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


@config_app.command(cls=Command, short_help="Check keys, types, ranges, rules and the baseline.")
def check(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE", help="Configuration or release files.")
    ],
    debug: options.Debug = False,
) -> None:
    """Check configuration files: keys, types, ranges, rules, and that the baseline is there.

    \b
    Examples:
      saeaudit config check saeaudit.yaml
    """
    from saeaudit.formats.output import destination

    with destination(None).opened() as writer:
        for file in files:
            config = policy.read_config(file)
            policy.make_policy("scan", config, None)
            writer.text(f"{escape(str(file), NAME)}: fine\n")
