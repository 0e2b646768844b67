"""SECURITY.md names limits and tests; they exist, and the limits are what it says."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
UNITS = {"": 1, "s": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "PiB": 1 << 50}


def rows(heading: str) -> list[list[str]]:
    """Cells of the table below a heading."""
    section = TEXT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[1:]]


def constant(name: str) -> Any:
    """The value of ``saeaudit.module.NAME`` or ``saeaudit.module.NAME.field``."""
    parts = name.split(".")
    first = next(n for n, part in enumerate(parts) if part.isupper())
    value: Any = importlib.import_module(".".join(parts[:first]))
    for part in parts[first:]:
        value = getattr(value, part)
    return value


@pytest.mark.parametrize("row", rows("Limits"), ids=lambda row: row[2])
def test_limits(row: list[str]) -> None:
    _, limit, name = row
    match = re.match(r"([\d,]+) ?(s|[KMGP]iB|)\b", limit)
    assert match, limit
    assert constant(name.strip("`")) == int(match[1].replace(",", "")) * UNITS[match[2]]


@pytest.mark.parametrize("row", rows("How it is tested"), ids=lambda row: row[0])
def test_tests(row: list[str]) -> None:
    names = re.findall(r"`(tests/[^`]+)`", row[1])
    assert names
    for name in names:
        path, _, function = name.partition("::")
        assert (ROOT / path).exists(), path
        if function:
            tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
            defined = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert function in defined, name


def test_every_promise_is_tested() -> None:
    promised = re.findall(r"^(\d)\. \*\*", TEXT, re.M)
    assert [row[0].split(".")[0] for row in rows("How it is tested")] == promised
    assert len(rows("Limits")) > 10
