"""SAELens's registry of public SAEs, read as a file of its installed package, never imported.

The file has a megabyte and a half, and takes a second and more to parse. It is cut at the lines
that begin a release, which no other line does, and only the release that is asked for is parsed.
"""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from saeaudit.sources.releases import Release
from saeaudit.untrusted import VALUES, parse_yaml, read_text

HEAD = re.compile(r"^([\w.-]+):[ \t]*$", re.MULTILINE)
"""The line that begins a release."""
FIELD = r"^ +(?:- )?{}: *([^\s'\"{{\[].*?) *$"
"""A line with the value of a key; ids and paths need no quotes."""
FILES = {
    "mntss_clt_layer_transcoder": "W_dec_{}.safetensors",
    "temporal": "{}/latest_ckpt.safetensors",
}
"""Weight files that SAELens's loaders make of a path; elsewhere the path alone says it."""


def registry_file() -> Path | None:
    """The registry of the SAELens that is installed, if one is."""
    try:
        spec = find_spec("sae_lens")
    except (ImportError, ValueError):
        return None
    if spec is None or not spec.origin:
        return None
    file = Path(spec.origin).parent / "pretrained_saes.yaml"
    return file if file.is_file() else None


def registry_names() -> tuple[str, ...]:
    """The names of its releases; none where SAELens is not installed."""
    file = registry_file()
    return tuple(_sections(file)) if file else ()


def registry_release(name: str) -> Release | None:
    """One of its releases, SAEs by id.

    Raises:
        AuditError: the registry cannot be read.
    """
    file = registry_file()
    section = _sections(file).get(name) if file else None
    if section is None:
        return None
    content = parse_yaml(section, f"{file}: {name}", values=VALUES).get(name)
    if not isinstance(content, dict):
        return None
    pattern = FILES.get(str(content.get("conversion_func")), "{}")
    rows = content.get("saes")
    saes = {str(row["id"]): pattern.format(row["path"]) for row in _whole(rows)}
    source = f"hf://{content.get('repo_id')}"
    return Release(name, source, str(content.get("model", "")), saes=saes, closed=True)


def registry_listing() -> list[Release]:
    """All of its releases with the ids of their SAEs, but without their paths: a quick look.

    Raises:
        AuditError: the registry cannot be read.
    """
    file = registry_file()
    return [_glance(name, section) for name, section in (_sections(file) if file else {}).items()]


@lru_cache(maxsize=1)
def _sections(file: Path) -> dict[str, str]:
    """The text of each release, by name."""
    text = read_text(file)
    heads = list(HEAD.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    return {
        head[1]: text[head.start() : end] for head, end in zip(heads, ends, strict=True)
    }  # fmt: skip


def _whole(rows: Any) -> list[dict[str, Any]]:
    """The rows that name an SAE and say where it is."""
    rows = rows if isinstance(rows, list) else []
    return [row for row in rows if isinstance(row, dict) and {"id", "path"} <= row.keys()]


def _glance(name: str, section: str) -> Release:
    def values(key: str) -> list[str]:
        return re.findall(FIELD.format(key), section, re.MULTILINE)

    model, repo = ((values(key) or [""])[0] for key in ("model", "repo_id"))
    return Release(name, f"hf://{repo}", model, saes=dict.fromkeys(values("id"), ""))
