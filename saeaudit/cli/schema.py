"""``saeaudit schema``."""

from __future__ import annotations

from saeaudit.escape import json_line


def schema() -> None:
    """Print the JSON Schema of the records."""
    from saeaudit.formats.output import destination
    from saeaudit.records import json_schema

    with destination(None).opened() as writer:
        writer.text(f"{json_line(json_schema(), indent=2)}\n")
