"""``.pt`` and the like, zipped or as before PyTorch 1.6: described, checked, and mapped.

Nested state dictionaries are flattened: ``{"state_dict": {"W_dec": …}}`` gives
``state_dict.W_dec``.
"""

from __future__ import annotations

import io
import math
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from saeaudit.errors import WeightsError
from saeaudit.untrusted import DEPTH
from saeaudit.weights.limits import Limits
from saeaudit.weights.pickled import Described, Sketch, run
from saeaudit.weights.stored import Read, Stored, check_size, mapped
from saeaudit.weights.zips import data_offset, open_archive, read_member

if TYPE_CHECKING:
    from torch import Tensor

ZIP = b"PK\x03\x04"
LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""torch.save's magic number, pickled."""


class _Place(NamedTuple):
    """Where a storage's bytes lie in the file."""

    offset: int
    size: int


def read_torch(path: Path, limits: Limits) -> Read:
    """The tensors of a file by name, and its other scalars.

    Raises:
        WeightsError: no such file, damaged, holding Python objects, or claiming more than it has.
    """
    with path.open("rb") as stream:
        start = stream.read(len(LEGACY))
    if start.startswith(ZIP):
        described, places = _read_zip(path, limits)
    elif start == LEGACY:
        described, places = _read_legacy(path, limits)
    else:
        raise WeightsError(
            "holds Python objects, which could run code, or is no PyTorch file; refused",
            where=str(path),
            hint="save tensors only: torch.save(sae.state_dict(), path)",
        )
    tensors: dict[str, Stored] = {}
    scalars: dict[str, Any] = {}
    for number, (name, value) in enumerate(_walk(described.content, str(path))):
        if number > limits.steps or len(tensors) > limits.tensors:
            raise WeightsError("more entries in its dictionaries than can be read", where=str(path))
        if len(name) > limits.name:
            raise WeightsError(f"a name of {len(name):,} characters", where=str(path))
        if isinstance(value, Sketch):
            if name in tensors:
                raise WeightsError(f"two tensors are called {name}", where=str(path))
            tensors[name] = _stored(path, name, value, places[value.storage.key])
        elif isinstance(value, (int, float, str)):
            scalars[name] = value
    if not tensors:
        raise WeightsError("no tensors in the PyTorch file", where=str(path))
    return tensors, scalars


def _read_zip(path: Path, limits: Limits) -> tuple[Described, dict[str, _Place]]:
    where = str(path)
    with open_archive(path, limits) as archive:
        described_by = [name for name in archive.members if name.endswith("/data.pkl")]
        if len(described_by) != 1:
            raise WeightsError("no PyTorch file: an archive without data.pkl", where=where)
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.members.values()):
            raise WeightsError(
                "a compressed PyTorch file; refused",
                where=where,
                hint="torch.save writes uncompressed files",
            )
        root = described_by[0].removesuffix("data.pkl")
        info = archive.members[described_by[0]]
        if info.file_size > limits.header:
            raise WeightsError(
                f"its pickle has {info.file_size:,} bytes; at most {limits.header:,} are read",
                where=where,
            )
        order = archive.members.get(f"{root}byteorder")
        if order is not None and read_member(archive, order) != b"little":
            raise WeightsError("written on a big-endian machine", where=where)
        described = run(io.BytesIO(read_member(archive, info)), where, limits)
        places = {}
        for key in described.storages:
            member = archive.members[f"{root}data/{key}"]
            places[key] = _Place(data_offset(archive.raw, member), member.file_size)
    return described, places


def _read_legacy(path: Path, limits: Limits) -> tuple[Described, dict[str, _Place]]:
    """Magic number, version, machine, content and the keys of storages; then the storages."""
    where = str(path)
    total = path.stat().st_size
    with path.open("rb") as stream:
        start = io.BytesIO(stream.read(limits.header))
        _, _, machine, described, keys = (run(start, where, limits) for _ in range(5))
        if machine.content.get("little_endian") is not True:
            raise WeightsError("written on a big-endian machine", where=where)
        if set(keys.content) != set(described.storages):
            raise WeightsError("damaged: its storages are not those it lists", where=where)
        places = {}
        at = start.tell()
        for key in keys.content:
            stream.seek(at)
            size = int.from_bytes(stream.read(8), "little")
            size *= described.storages[key].dtype.itemsize
            places[key] = _Place(at + 8, size)
            at += 8 + size
            check_size(at, total, where)
    return described, places


def _walk(value: Any, where: str, name: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    """Every entry of nested dictionaries, those that are dictionaries themselves included.

    A dictionary that occurs twice is entered twice; whoever walks must count.
    """
    yield name, value
    if isinstance(value, dict):
        if depth == DEPTH:
            raise WeightsError(f"dictionaries nested more than {DEPTH} deep", where=where)
        for key, inner in value.items():
            yield from _walk(inner, where, f"{name}.{key}" if name else key, depth + 1)


def _stored(path: Path, name: str, sketch: Sketch, place: _Place) -> Stored:
    """Check a tensor against its storage and the file."""
    where = f"{path}[{name}]"
    shape, stride = _whole(sketch.shape), _whole(sketch.stride)
    (offset,) = _whole((sketch.offset,))
    if len(shape) != len(stride):
        raise ValueError("as many strides as axes were expected")
    offset += sketch.storage.first
    count, itemsize = math.prod(shape), sketch.dtype.itemsize
    extent = 1 + sum((n - 1) * step for n, step in zip(shape, stride, strict=True)) if count else 0
    check_size((offset + extent) * itemsize, place.size, where)
    if count * itemsize > path.stat().st_size:
        raise WeightsError(
            f"claims {count * itemsize:,} bytes, more than the file has: an expanded tensor",
            where=where,
            hint="save it with .contiguous()",
        )

    def load() -> Tensor:
        whole = mapped(path, place.offset, place.size // itemsize, sketch.dtype)
        return whole.as_strided(shape, stride, offset)

    return Stored(shape, sketch.dtype, load)


def _whole(values: Any) -> tuple[int, ...]:
    if type(values) is not tuple or not all(type(n) is int and n >= 0 for n in values):
        raise ValueError("whole numbers were expected")
    return values
