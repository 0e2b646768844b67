"""Remote files that lie about where their tensors are: one line, little read, nothing kept."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from saeaudit.records import ErrorRecord
from tests.support.copies import fetch, left_over
from tests.support.hub import Hub


def safetensors(header: str, data: int = 512, length: int | None = None) -> bytes:
    text = header.encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(data)


def tensors(**entries: tuple[list[Any], list[Any]]) -> str:
    made = {n: {"dtype": "F32", "shape": s, "data_offsets": o} for n, (s, o) in entries.items()}
    return json.dumps(made)


def archive(**edits: Callable[[bytearray], object]) -> bytes:
    """An .npz of 4 x 8 weights, its bytes edited afterwards."""
    stream = io.BytesIO()
    np.savez(stream, W_dec=np.ones((8, 4), np.float32), W_enc=np.ones((4, 8), np.float32))
    content = bytearray(stream.getvalue())
    for edit in edits.values():
        edit(content)
    return bytes(content)


def replaced(old: bytes, new: bytes, count: int = -1) -> bytes:
    return archive(edit=lambda content: content.__init__(content.replace(old, new, count)))  # type: ignore[misc]


def many_members() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for number in range(25_000):
            made.writestr(zipfile.ZipInfo(f"{number}.npy"), b"")
    return stream.getvalue()


def same_name_twice() -> bytes:
    stream = io.BytesIO()
    array = io.BytesIO()
    np.save(array, np.ones((8, 4), np.float32))
    with zipfile.ZipFile(stream, "w") as made, pytest.warns(UserWarning, match="Duplicate"):
        made.writestr("W_dec.npy", array.getvalue())
        made.writestr("W_dec.npy", array.getvalue())
    return stream.getvalue()


LIES: dict[str, tuple[bytes, str]] = {
    "overlap": (safetensors(tensors(a=([4, 4], [0, 64]), b=([4, 4], [60, 124]))), "overlaps"),
    "beyond the end": (safetensors(tensors(a=([4, 40], [0, 640]))), "would end at byte"),
    "far beyond the end": (safetensors(tensors(a=([4, 4], [10**18, 10**18 + 64]))), "would end"),
    "negative": (safetensors(tensors(a=([4, 4], [-64, 0]))), "bad safetensors header entry"),
    "fractions": (safetensors(tensors(a=([4, 4], [0.0, 64.0]))), "bad safetensors header entry"),
    "truth values": (safetensors(tensors(a=([True, 4], [0, 16]))), "header entry"),
    "too long": (safetensors(tensors(a=([4, 4], [0, 512]))), "contradict"),
    "huge shape": (safetensors(tensors(a=([10**9] * 8, [0, 64]))), "no tensor of this file"),
    "ranks": (safetensors(tensors(a=([1] * 5000, [0, 4]))), "no tensor of this file"),
    "long number": (safetensors('{"a":{"shape":[' + "9" * 5000 + "]}}"), "bad safetensors header"),
    "brackets": (safetensors("[" * (1 << 20)), "bad safetensors header"),
    "the same key": (safetensors('{"a":1,"a":2}'), "bad safetensors header"),
    "no object": (safetensors("[1,2]"), "not an object"),
    "length": (safetensors(tensors(a=([4, 4], [0, 64])), length=1 << 60), "truncated"),
    "no directory": (archive()[:-22], "directory cannot be read"),
    "other shape": (replaced(b"(8, 4)", b"(9, 4)"), "contradict each other"),
    "negative shape": (replaced(b"(8, 4)", b"(8,-4)"), "no tensor of this file"),
    "no header": (replaced(b"NUMPY", b"NUMPI"), "not an array"),
    "nested header": (replaced(b"{'descr'", b"((((((((", 1), "not an array"),
    "local header of another": (replaced(b"W_dec", b"W_xxx", 1), "points elsewhere"),
    "no local header": (replaced(b"PK\x03\x04", b"PK\x03\x05", 1), "points elsewhere"),
    "the same name": (same_name_twice(), "two tensors of the same name"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_a_file_that_lies_is_one_line_and_leaves_nothing(
    lie: str, hub: Hub, tmp_path: Path
) -> None:  # fmt: skip
    content, says = LIES[lie]
    suffix = "npz" if b"NUMP" in content or content[:2] == b"PK" else "safetensors"
    folder = hub.root / "a/liar/sae"
    folder.mkdir(parents=True)
    (folder / f"params.{suffix}").write_bytes(content)
    record = fetch("hf://a/liar/sae")
    assert isinstance(record, ErrorRecord) and says in record.reason, record
    assert "a/liar" in record.reason and "\n" not in record.reason and record.hint
    assert not left_over(tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("params.npz", many_members()),
        ("sae.safetensors", safetensors("[" * (5 << 20))),
        ("sae.safetensors", safetensors("{" + '"a":1,' * 800_000 + '"b":2}')),
    ],
    ids=["members", "brackets", "keys"],
)
def test_a_directory_without_end_is_not_read(
    file: str, content: bytes, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    folder = hub.root / "a/liar/sae"
    folder.mkdir(parents=True)
    (folder / file).write_bytes(content)
    monkeypatch.setattr("saeaudit.sources.hub.Repo.fetch", stop)
    with pytest.raises(Stopped) as whole:  # is asked for instead, which has its own limits
        fetch("hf://a/liar/sae")
    assert "longer than 1 MiB" in str(whole.value.__context__)
    assert sum(hub.sent.values()) <= 3 * (1 << 16)


class Stopped(Exception):
    pass


def stop(_: object, paths: Sequence[str], *__: object) -> None:
    if paths:
        raise Stopped


def test_many_places_are_not_read(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    """An archive whose arrays lie far from each other: a block of 64 KiB for each header."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as made:
        for number in range(40):
            made.writestr(zipfile.ZipInfo(f"{number}.npy"), vector(1 << 14))
    folder = hub.root / "a/liar/sae"
    folder.mkdir(parents=True)
    (folder / "params.npz").write_bytes(stream.getvalue())
    monkeypatch.setattr("saeaudit.sources.hub.Repo.fetch", stop)
    monkeypatch.setattr("saeaudit.sources.segments.MAX_BLOCKS", 16)
    with pytest.raises(Stopped) as whole:
        fetch("hf://a/liar/sae")
    assert "too many places" in str(whole.value.__context__)
    assert sum(hub.sent.values()) <= 16 << 16


def vector(length: int) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.zeros(length, np.float32))
    return stream.getvalue()
