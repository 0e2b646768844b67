"""Write docs/records.md from the record classes: ``python docs/generate_records.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saeaudit.records import json_schema

INTRO = """# The records

<!-- made by docs/generate_records.py from saeaudit/records.py; edit there -->

One JSON object a line, UTF-8. `saeaudit schema` prints the JSON Schema this page is made from.

- Order: `run`; then for each SAE, in natural order of its id, `dictionary`, the findings sorted by
  type and features, and `summary`; `verdict` last, so that a file without it is incomplete.
- Floats are finite, rounded to 9 significant digits; what is undefined is null.
- Only `run` may differ between two runs on the same input:
  `jq -c 'select(.type != "run")'` of both compares byte for byte, also between machines, devices
  and screens (a screen named with --screen is echoed in `certificate`).
"""


def shown(schema: dict[str, Any]) -> str:
    """Type of a field, in words."""
    if "$ref" in schema:
        return schema["$ref"].rsplit("/", 1)[1]
    if "const" in schema:
        return f'"{schema["const"]}"'
    if "enum" in schema:
        return " or ".join(f'"{value}"' for value in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(shown(option) for option in schema["anyOf"])
    if schema.get("type") == "array":
        parts = schema.get("prefixItems")
        return f"[{', '.join(map(shown, parts))}]" if parts else f"[{shown(schema['items'])}, …]"
    return str(schema.get("type", "any"))


def page() -> str:
    """The whole page."""
    schema = json_schema()["$defs"]
    out = [INTRO]
    for name, definition in schema.items():
        kind = definition["properties"].get("type", {}).get("const")
        out.append(f"## {kind or name}\n\n{definition.get('description', '')}\n")
        out.append("| field | type | meaning |\n|---|---|---|")
        for field, inner in definition["properties"].items():
            meaning = " ".join(inner.get("description", f"See {shown(inner)} below.").split())
            cells = (f"`{field}`", shown(inner), meaning)
            out.append("| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |")
        out.append("")
    return "\n".join(out)


if __name__ == "__main__":
    (Path(__file__).parent / "records.md").write_text(page())
