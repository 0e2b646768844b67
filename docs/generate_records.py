"""Write docs/records.md and docs/rules.md: ``python docs/generate_records.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saeaudit.policy.rules import SUMMARIES, example_of, meaning_of, names
from saeaudit.records import json_schema

INTRO = """# The records

<!-- made by docs/generate_records.py from saeaudit/records.py; edit there -->

One JSON object a line, UTF-8. `saeaudit schema` prints the JSON Schema this page is made from.

- Order: `run`; then for each SAE, in natural order of its id, `dictionary`, the findings sorted by
  type and features, and `summary`; then `run` again, now with `finished` and `seconds`; `verdict`
  last, so that a file without it is incomplete.
- Floats are finite, rounded to 9 significant digits; what is undefined is null.
- Only `run` records may differ between two runs on the same input:
  `jq -c 'select(.type != "run")'` of both compares byte for byte, also between machines, devices
  and screens (a screen named with --screen is echoed in `certificate`).
- One name has one type in all records, null apart, so that tables load the output of every command,
  of several together too. pandas, `datasets` and jq need no option. DuckDB takes files of several
  commands together, whose records have few names in common, for maps, unless told
  `read_json_auto('file.jsonl', map_inference_threshold=-1)`. polars takes its columns from
  the first 100 records and DuckDB from the first 20,480; what only later records have, such as a
  summary's figures, is left out without a word, so for longer files say that all are to be read:
  `polars.read_ndjson(file, infer_schema_length=None)`,
  `read_json_auto('file.jsonl', sample_size=-1)`.
- The `run` and `baseline` records name the `schema`. Files of another one are refused in one line.
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


RULES = """# The numbers that rules can name

<!-- made by docs/generate_records.py from the record classes; edit there -->

`--fail-on 'NAME OPERATOR LIMIT'`, or a key of the configuration's `policy` section; see
[ci.md](ci.md). A number that is undefined (null) does not pass, whatever the rule.
"""


def rules() -> str:
    """The page of rule names, each with an example."""
    out = [RULES]
    for command in SUMMARIES:
        out.append(f"## {command}\n\n| name | meaning | example |\n|---|---|---|")
        for name in names(command):
            meaning = meaning_of(name, command).replace("|", "\\|")
            out.append(f"| `{name}` | {meaning} | `--fail-on '{example_of(name, command)}'` |")
        out.append("")
    return "\n".join(out)


if __name__ == "__main__":
    here = Path(__file__).parent
    (here / "records.md").write_text(page())
    (here / "rules.md").write_text(rules())
