"""Records load into tables: one name has one type, in the classes and in what commands write."""

from __future__ import annotations

import dataclasses
import json
import types
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import duckdb
import polars

from saeaudit.records import Record
from saeaudit.sample import sample_root
from tests.conftest import Cli

COMMANDS: dict[str, list[str]] = {
    "scan": ["scan", "sample", "sample/stitched", "--triple", "1,2,3", "--pair", "7,9",
             "--fail-on", "pairs>3", "--exit-zero"],
    "baseline": ["baseline", "scan.jsonl"],
    "exchanges": ["mediators", "sample/stitched", "--scan", "scan.jsonl"],
    "mediators": ["mediators", "sample", "--max-tokens", "4", "--codes", "nnomp"],
    "score": ["score", "sample", "--max-tokens", "4", "--similarity", "tfidf", "--canonicalise"],
    "listing": ["fetch", str(sample_root()), "--list"],
}  # fmt: skip
"""What writes each file of records; later commands read earlier ones' files."""


def kinds(hint: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every path below a field, and the JSON type of what stands there; null may stand anywhere."""
    origin = get_origin(hint)
    if origin in (Union, types.UnionType):
        for option in get_args(hint):
            yield from kinds(option, path)
    elif origin is Literal:
        yield from ((path, type(value).__name__) for value in get_args(hint))
    elif origin is tuple:
        yield path, "list"
        for inner in set(get_args(hint)) - {Ellipsis}:
            yield from kinds(inner, f"{path}[]")
    elif dataclasses.is_dataclass(hint):
        yield path, "object"
        for name, inner in get_type_hints(hint).items():
            yield from kinds(inner, f"{path}.{name}")
    elif hint is not type(None):
        yield path, getattr(hint, "__name__", str(hint))


def test_one_name_has_one_type_in_all_records() -> None:
    found: dict[str, set[str]] = defaultdict(set)
    for path, kind in (pair for record in get_args(Record) for pair in kinds(record, "")):
        found[path].add(kind)
    assert len(found) > 150
    assert {path: kind for path, kind in found.items() if len(kind) > 1} == {}


def written(value: Any, path: str) -> Iterator[tuple[str, str]]:
    """Every path in a record as it was written, and its JSON type."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from written(inner, f"{path}.{name}")
    elif isinstance(value, list):
        for inner in value:
            yield from written(inner, f"{path}[]")
    elif value is not None:
        yield path, type(value).__name__


def test_tables_load_what_every_command_writes(cli: Cli, tmp_path: Path) -> None:
    lines: list[str] = []
    for name, command in COMMANDS.items():
        done = cli(*command, "-o", f"{name}.jsonl")
        assert done.returncode == 0, done.stderr
        lines += (tmp_path / f"{name}.jsonl").read_text().splitlines(keepends=True)
        check_loads(tmp_path / f"{name}.jsonl")
    together = tmp_path / "together.jsonl"
    together.write_text("".join(lines))
    check_loads(together, infer_schema_length=None)


def check_loads(file: Path, **how: Any) -> None:
    """Load a file with polars and with DuckDB, and compare with what stands in it."""
    records = [json.loads(line) for line in file.read_text().splitlines()]
    found: dict[str, set[str]] = defaultdict(set)
    for path, kind in (pair for record in records for pair in written(record, "")):
        found[path].add(kind)  # a float that is whole is written as one: 1.0, not 1
    assert {path: kind for path, kind in found.items() if len(kind) > 1} == {}
    assert how or len(records) < 100  # as far as polars looks by itself: docs/records.md
    assert_same(records, polars.read_ndjson(file, **how).to_dicts())
    option = ", map_inference_threshold=-1" if how else ""  # docs/records.md
    relation = duckdb.sql(f"select * from read_json_auto('{file}'{option})")
    rows = relation.fetchall()
    assert_same(records, [dict(zip(relation.columns, row, strict=True)) for row in rows])


TIMES = ("started", "finished")
"""Texts that DuckDB takes for times."""


def assert_same(records: list[dict[str, Any]], rows: list[dict[str, Any]]) -> None:
    """Everything that is not null in records stands in a table's rows, numbers and texts as are."""
    assert len(records) == len(rows)
    for record, row in zip(records, rows, strict=True):
        for name, value in record.items():
            if value is not None:
                assert row[name] is not None, (record["type"], name)
            if isinstance(value, (str, int, float)) and name not in TIMES:
                assert row[name] == value, (record["type"], name)
