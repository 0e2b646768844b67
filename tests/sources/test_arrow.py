"""Caches that others made: Arrow folders as SAELens writes them, Arrow files and Parquet."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq
import pytest
import torch

from saeaudit.errors import AuditError
from saeaudit.sources.activations import read_activations

WIDTH, CONTEXT = 6, 4
HOOK = "blocks.3.hook_resid_post"


def rows(count: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(seed)).half()


def lists(values: pa.Array, size: int, kind: str = "list") -> pa.Array:
    if kind == "fixed":
        return pa.FixedSizeListArray.from_arrays(values, size)
    whole = {"list": (pa.int32(), pa.ListArray), "large": (pa.int64(), pa.LargeListArray)}
    integers, array = whole[kind]
    return array.from_arrays(pa.array(range(0, len(values) + 1, size), integers), values)


def nested(x: torch.Tensor, kind: str = "list") -> pa.Array:
    """Rows of [tokens, d], as `datasets` keeps its Array2D."""
    return lists(lists(pa.array(x.flatten().numpy()), WIDTH, kind), CONTEXT, kind)


def stream(path: Path, table: pa.Table, batch: int = 2, **options) -> None:
    new = options.pop("new", ipc.new_stream)
    with new(str(path), table.schema, options=ipc.IpcWriteOptions(**options)) as writer:
        for piece in table.to_batches(max_chunksize=batch):
            writer.write_batch(piece)


def saelens(folder: Path, x: torch.Tensor) -> None:
    """What SAELens's CacheActivationsRunner leaves: shards, and two files that describe them."""
    folder.mkdir()
    half = len(x) // 2
    for number, part in enumerate((x[:half], x[half:])):
        ids = lists(pa.array(range(len(part)), pa.int64()), CONTEXT)
        table = pa.table({HOOK: nested(part), "token_ids": ids})
        stream(folder / f"data-{number:05d}-of-00002.arrow", table)
    (folder / "state.json").write_text(json.dumps({"_data_files": []}))
    (folder / "dataset_info.json").write_text("{}")


def test_a_folder_of_saelens(tmp_path: Path) -> None:
    x = rows(48)
    saelens(tmp_path / "cache", x)
    activations, tokens, documents = read_activations([tmp_path / "cache"], WIDTH)
    assert torch.equal(activations[:], x) and tokens is None
    order = torch.randint(48, (60,))
    assert torch.equal(activations[order], x[order])
    assert documents is not None
    assert documents.tolist() == [n // CONTEXT for n in range(48)]
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(tmp_path) not in maps.read_text()


@pytest.mark.parametrize("kind", ["list", "large", "fixed"])
def test_every_kind_of_lists(tmp_path: Path, kind: str) -> None:
    x = rows(24)
    table = pa.table({"x": nested(x, kind)})
    stream(tmp_path / "1.arrow", table)
    stream(tmp_path / "2.arrow", table, new=ipc.new_file)
    stream(tmp_path / "3.arrow", table, compression="zstd")
    stream(tmp_path / "4.arrow", table.slice(1, 3), batch=3)
    pq.write_table(table, tmp_path / "5.parquet", row_group_size=4)
    expected = {"4.arrow": x[CONTEXT : 4 * CONTEXT]}
    for path in sorted(tmp_path.iterdir()):
        activations, _, _ = read_activations([path], WIDTH)
        assert torch.equal(activations[:], expected.get(path.name, x)), path.name
    activations, _, documents = read_activations([tmp_path], WIDTH)
    assert documents is not None and len(documents.unique()) == 4 * 6 + 3 == 27
    assert len(activations) == 27 * CONTEXT


def test_rows_that_are_activations_and_texts_of_any_length(tmp_path: Path) -> None:
    x = rows(9).double()
    flat = lists(pa.array(x.flatten().numpy()), WIDTH)
    pq.write_table(pa.table({HOOK: flat, "score": [0.5] * 9}), tmp_path / "flat.parquet")
    activations, _, documents = read_activations([tmp_path / "flat.parquet"], WIDTH)
    assert torch.equal(activations[:], x) and documents is None
    ragged = pa.ListArray.from_arrays(pa.array([0, 2, 2, 9], pa.int32()), flat)
    stream(tmp_path / "ragged.arrow", pa.table({"x": ragged}), batch=3)
    activations, _, documents = read_activations([tmp_path / "ragged.arrow"], WIDTH)
    assert torch.equal(activations[:], x)
    assert documents is not None and documents.tolist() == [0] * 2 + [2] * 7


def spoiled(path: Path, column: pa.Array, **others: object) -> None:
    stream(path, pa.table({"x": column, **others}), batch=64)


def test_what_cannot_be_read(tmp_path: Path) -> None:
    path = tmp_path / "x.arrow"
    for column, message in (
        (pa.array([[0.0] * 6, None]), "has rows without activations"),
        (pa.array([[0.0] * 6, [0.0] * 5 + [None]]), "has activations with empty places"),
        (pa.array([[0.0] * 6, [0.0] * 5]), "has activations of widths 5 and 6"),
        (pa.array([[0.0] * 5] * 2), "width 5; the SAE reads 6"),
        (pa.array([[1] * 6]), "has no column of activations"),
        (pa.array([0.5] * 6).dictionary_encode(), "has no column of activations"),
        (pa.array([], pa.list_(pa.float32())), "0 rows"),
    ):
        spoiled(path, column)
        with pytest.raises(AuditError, match=message) as caught:
            read_activations([path], WIDTH)
        assert "\n" not in caught.value.line()
    twice = pa.array([[0.0] * 6])
    spoiled(path, twice, y=twice)
    with pytest.raises(AuditError, match="several columns of activations"):
        read_activations([path], WIDTH)
    spoiled(path, twice, activations=twice)
    assert read_activations([path], WIDTH).activations.shape == (1, 6)


def test_damaged_files(tmp_path: Path) -> None:
    saelens(tmp_path / "cache", rows(48))
    whole = (tmp_path / "cache" / "data-00000-of-00002.arrow").read_bytes()
    path = tmp_path / "x.arrow"
    for damaged in (b"", b"ARROW1", whole[:100], whole[:-300], b"\xff" * 1000):
        path.write_bytes(damaged)
        with pytest.raises(AuditError, match=r"x\.arrow: "):
            read_activations([path], WIDTH)
    (tmp_path / "x.parquet").write_bytes(whole)
    with pytest.raises(AuditError, match=r"x\.parquet: cannot be read"):
        read_activations([tmp_path / "x.parquet"], WIDTH)
    # Lists that lead behind their numbers: the offsets of one batch are 0, 6, 12, … in int32.
    offsets = b"".join(n.to_bytes(4, "little") for n in range(0, 31, WIDTH))
    assert offsets in whole
    path.write_bytes(whole.replace(offsets, offsets[:-4] + (1 << 30).to_bytes(4, "little")))
    with pytest.raises(AuditError, match=r"x\.arrow: cannot be read"):
        read_activations([path], WIDTH)


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.arrow").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(AuditError, match=r"needs pyarrow .pip install 'saeaudit\[arrow\]'"):
        read_activations([tmp_path / "x.arrow"], WIDTH)


def test_no_more_is_unpacked_than_is_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pq.write_table(pa.table({"x": nested(rows(800))}), tmp_path / "x.parquet")
    monkeypatch.setattr("saeaudit.sources.arrow.UNPACKED", 8000)
    with pytest.raises(AuditError, match="unpacks to more than"):
        read_activations([tmp_path / "x.parquet"], WIDTH)
