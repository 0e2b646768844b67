"""``saeaudit schema``."""

from __future__ import annotations

import typer

from saeaudit.escape import json_line


def schema() -> None:
    """Print the JSON Schema of the records."""
    from saeaudit.records import json_schema

    typer.echo(json_line(json_schema(), indent=2))
