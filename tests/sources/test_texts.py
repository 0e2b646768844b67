from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import pytest

from saeaudit import AuditError
from saeaudit.sources.texts import Document, open_texts
from tests.support.hub import Hub

ROWS = ["one", "", "three \u2028 in a line", "  ", "five"]
DOCUMENTS = [Document(0, ROWS[0]), Document(2, ROWS[2]), Document(4, ROWS[4])]


def parquet(path: Path, **columns: list[object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pa.parquet.write_table(pa.table(columns), path, row_group_size=2)
    return path


def write(kind: str, folder: Path) -> Path:
    path = folder / f"texts.{kind}"
    if kind == "txt":
        path.write_text("".join(f"{row}\n" for row in ROWS))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"id": 1, "text": row}) + "\n" for row in ROWS))
    else:
        parquet(path, id=list(range(5)), text=[row or None for row in ROWS])
    return path


@pytest.mark.parametrize("kind", ("txt", "jsonl", "parquet"))
def test_a_row_is_a_document_and_keeps_its_number(kind: str, tmp_path: Path) -> None:
    texts = open_texts(str(write(kind, tmp_path)))
    assert list(texts.documents()) == DOCUMENTS == list(texts.documents())
    assert texts.identity.startswith("sha256:")


def said(path: Path, field: str = "text") -> str:
    with pytest.raises(AuditError) as raised:
        list(open_texts(str(path), field).documents())
    return raised.value.line()


def test_rows_that_have_no_text_are_named(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"text": "fine"}\n{"content": "x", "id": 3}\n')
    assert "line 2: no field 'text' (--field takes one of: content, id)" in said(lines)
    lines.write_text('{"text": "fine"}\n\n{"text": 3}\n')
    assert "line 3: text is a int; a text was expected" in said(lines)
    lines.write_text('["text"]\n')
    assert "line 1: no object" in said(lines)
    lines.write_text('{"text": \n')
    assert "line 1: bad JSON" in said(lines)
    lines.write_bytes(b'{"text": "\xff"}\n')
    assert "line 1 is not UTF-8" in said(lines)
    table = parquet(tmp_path / "a.parquet", content=["a", "b"], number=[1, 2])
    assert "no field 'text' (--field takes one of: content, number)" in said(table)
    assert "row 0: number is a int" in said(table, "number")
    assert list(open_texts(str(table), "content").documents())[1] == Document(1, "b")


def test_what_is_no_table_is_refused(tmp_path: Path) -> None:
    assert "no such file" in said(tmp_path / "none.txt")
    assert "a file ending in .txt, .jsonl, .parquet" in said(tmp_path / "none.csv")
    table = parquet(tmp_path / "cut.parquet", text=["a"] * 50)
    table.write_bytes(table.read_bytes()[:-20])
    line = said(table)
    assert "cannot be read" in line and "\n" not in line
    with pytest.raises(AuditError, match="not a data set's address"):
        open_texts("hf://datasets/alone")


def test_the_training_split_of_a_data_set_is_fetched_file_by_file(hub: Hub) -> None:
    folder = hub.root / "datasets/o/books/en"
    for name, text in (("train-00", "a"), ("train-01", "b"), ("test-00", "c")):
        parquet(folder / f"{name}.parquet", text=[text, f"{text}{text}"])
    notes: list[str] = []
    texts = open_texts("hf://datasets/o/books", note=notes.append)
    assert notes == ["hf://datasets/o/books: 2 of 3 files, those of the training split"]
    assert texts.identity == f"hf://datasets/o/books@{hub.commit}"
    documents = texts.documents()
    assert next(documents) == Document(0, "a")
    assert not any("train-01" in request for request in hub.requests)
    assert list(documents) == [Document(1, "aa"), Document(2, "b"), Document(3, "bb")]
    hub.requests.clear()
    offline = open_texts("hf://datasets/o/books", offline=True)
    assert len(list(offline.documents())) == 4 and not hub.requests
    one = open_texts("hf://datasets/o/books/en/test-00.parquet")
    assert [document.text for document in one.documents()] == ["c", "cc"]


def test_what_the_hub_has_converted_is_taken_where_there_is_no_other(hub: Hub) -> None:
    (hub.root / "datasets/o/plain").mkdir(parents=True)
    (hub.root / "datasets/o/plain/texts.csv").write_text("text\na\n")
    hub.branches["refs/convert/parquet"] = "b" * 40
    converted = hub.root / f"datasets/o/plain@{'b' * 40}"
    parquet(converted / "default/train/0000.parquet", text=["a"])
    parquet(converted / "default/test/0000.parquet", text=["b"])
    texts = open_texts("hf://datasets/o/plain")
    assert texts.identity == f"hf://datasets/o/plain@{'b' * 40}"
    assert list(texts.documents()) == [Document(0, "a")]
    parquet(converted / "other/train/0000.parquet", text=["c"])
    with pytest.raises(AuditError) as raised:
        open_texts("hf://datasets/o/plain")
    named = "hf://datasets/o/plain@~parquet/other/train"
    assert "2 tables" in raised.value.line() and named in raised.value.line()
    assert list(open_texts(named).documents()) == [Document(0, "c")]


def test_data_sets_that_cannot_be_had(hub: Hub) -> None:
    for name, words in (
        ("hf://datasets/no/where", "no such repository, or it is private"),
        ("hf://datasets/o/gated", "access is gated"),
    ):
        (hub.root / "datasets/o/gated").mkdir(parents=True, exist_ok=True)
        hub.faults["datasets/o/gated"] = ["always", 403]
        with pytest.raises(AuditError, match=words) as raised:
            open_texts(name)
        assert name in raised.value.line()
