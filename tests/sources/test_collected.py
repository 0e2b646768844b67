from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from saeaudit.errors import AuditError
from saeaudit.sources.collected.manifest import AFTER, BEFORE, read_manifest
from saeaudit.sources.collected.writer import Document, Writer, rows_for
from tests.support.collecting import (
    MANIFEST,
    ORIGIN,
    SMALL,
    WIDTH,
    collect,
    contents,
    documents,
    text_of,
)

ROOT = Path(__file__).parents[2]


def columns(folder: Path) -> dict[str, torch.Tensor]:
    """All shards' tensors one behind the other."""
    shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}


def test_what_is_appended_is_what_is_there(tmp_path: Path) -> None:
    manifest = collect(tmp_path)
    written = columns(tmp_path)
    expected = [(d, p) for d in documents() for p in d.positions.tolist()]
    assert manifest.totals is not None and manifest.totals.rows == len(expected) > 100
    assert torch.equal(
        written["activations"], torch.cat([d.activations for d in documents()]).half()
    )
    for row, (document, position) in enumerate(expected):
        ids = document.ids.tolist()
        assert written["document"][row] == document.number
        assert written["position"][row] == position
        assert written["tokens"][row] == ids[position]
        before = ids[max(position - BEFORE, 0) : position]
        after = ids[position + 1 : position + 1 + AFTER]
        assert written["before"][row].tolist() == [-1] * (BEFORE - len(before)) + before
        assert written["after"][row].tolist() == after + [-1] * (AFTER - len(after))
    dropped = [d.dropped for d in documents()]
    assert manifest.totals.dropped == {
        reason: sum(each[reason] for each in dropped) for reason in ("bos", "sampled")
    }
    assert manifest.totals.documents == 60
    assert read_manifest(tmp_path) == manifest
    ids = {token for name in ("tokens", "before", "after") for token in written[name].unique()}
    texts = json.loads((tmp_path / "vocabulary.json").read_text())
    assert texts == {str(int(token)): text_of(int(token)) for token in ids if token >= 0}


def test_killed_processes_leave_the_same_bytes(tmp_path: Path) -> None:
    """Three here; `python -m tests.support.collecting /tmp/new 1 50` kills as many as are asked."""
    command = [sys.executable, "-m", "tests.support.collecting", str(tmp_path), "5", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("the same bytes; shards at each kill:")


def test_a_complete_folder_is_not_filled_again(tmp_path: Path) -> None:
    collect(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(AuditError, match="holds collected activations already"):
        collect(tmp_path)
    assert collect(tmp_path, resume=True).totals
    assert contents(tmp_path) == before


def begin(folder: Path, manifest=SMALL, count: int = 30) -> None:
    """Collect and stop in between."""
    with Writer(folder, manifest) as writer:
        for document in documents(count=count):
            writer.append(document)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"origin": replace(ORIGIN, model="another/model")}, "model"),
        ({"origin": replace(ORIGIN, texts_identity="sha256:2")}, "texts_identity"),
        ({"origin": replace(ORIGIN, options={**ORIGIN.options, "context": 64})}, "context"),
        ({"origin": replace(ORIGIN, options={**ORIGIN.options, "seed": 1})}, "seed"),
        ({"origin": replace(ORIGIN, versions={**ORIGIN.versions, "torch": "3"})}, "torch"),
        ({"dtype": "bfloat16"}, "dtype"),
        ({"width": 8}, "width"),
    ],
)
def test_other_arguments_do_not_go_on(tmp_path: Path, change: dict, field: str) -> None:
    begin(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(AuditError, match=f"was begun with {field} "):
        collect(tmp_path, replace(SMALL, **change), resume=True)
    assert contents(tmp_path) == before


def test_folders_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "activations-00000.safetensors").write_text("somebody's")
    for resume in (False, True):
        with pytest.raises(AuditError, match="holds other files"):
            collect(tmp_path, resume=resume)
    assert len(contents(tmp_path)) == 2


def test_a_damaged_shard_and_what_follows_is_collected_again(tmp_path: Path) -> None:
    collect(tmp_path / "whole", SMALL)
    begin(tmp_path / "going")
    (tmp_path / "going" / "note.txt").write_text("mine")
    damaged = tmp_path / "going" / "activations-00007.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-100])
    with Writer(tmp_path / "going", SMALL, resume=True) as writer:
        earlier = [len(d.positions) for d in documents() if d.number < writer.document]
        assert writer.rows == sum(earlier) <= 70 < sum(earlier) + 30
    collect(tmp_path / "going", SMALL, resume=True)
    assert contents(tmp_path / "going").pop("note.txt") == b"mine"
    (tmp_path / "going" / "note.txt").unlink()
    assert contents(tmp_path / "going") == contents(tmp_path / "whole")


def test_two_processes_do_not_fill_one_folder(tmp_path: Path) -> None:
    with Writer(tmp_path, MANIFEST), pytest.raises(AuditError, match="another process"):
        Writer(tmp_path, MANIFEST, resume=True)


def test_what_cannot_be_kept_is_refused(tmp_path: Path) -> None:
    ids, positions = torch.arange(3), torch.tensor([1, 2])
    rows = torch.ones(2, WIDTH)
    rows[1, 0] = 70_000
    with Writer(tmp_path, MANIFEST) as writer:
        with pytest.raises(AuditError, match="position 2 is not finite in float16"):
            writer.append(Document(0, ids, positions, rows, {}))
        with pytest.raises(AuditError, match=r"shape \[2, 8\] where \[2, 16\] is needed"):
            writer.append(Document(0, ids, positions, torch.ones(2, 8), {}))
        writer.append(Document(4, ids, positions, torch.ones(2, WIDTH), {}))
        with pytest.raises(ValueError, match="document 3 after 4"):
            writer.append(Document(3, ids, positions, torch.ones(2, WIDTH), {}))


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: Path, __: bytes) -> int:
        raise OSError(28, "No space left on device")

    with Writer(tmp_path, SMALL) as writer:
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(AuditError, match="the disk is full"):
            for document in documents():
                writer.append(document)


def test_shards_of_usual_widths() -> None:
    assert rows_for(2304, 2) == 14563
    assert rows_for(1 << 30, 4) == 1
