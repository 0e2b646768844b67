"""Tensors in .npy, .npz, .safetensors and .pt files: mapped where possible, never executed.

Headers are parsed and sizes checked against the file before anything is allocated; pickles are
refused (``allow_pickle=False``, ``weights_only=True``).
"""

from __future__ import annotations

import json
import math
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.lib import format as npy
from torch import Tensor

from saeaudit.errors import WeightsError

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
SAFETENSORS_DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
MAX_HEADER = 100 << 20
MAX_CONFIG = 16 << 20
INFLATION_LIMIT = 1 << 30
"""A compressed member may unpack to this much without having to be in proportion to its size."""
INFLATION_RATIO = 50
"""Beyond `INFLATION_LIMIT`, the largest ratio of unpacked to packed bytes that is believed."""


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: what it is, and how to get it."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]
    """Returns the tensor, mapped where the file allows."""


Tensors = Mapping[str, Stored]


def read_tensors(path: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    """List the tensors of a weight file by name, and its other scalars (`k`, config entries).

    Nested state dictionaries of ``.pt`` files are flattened: ``{"state_dict": {"W_dec": …}}``
    gives ``state_dict.W_dec``.

    Raises:
        WeightsError: not such a file, damaged, or holding Python objects.
    """
    readers: dict[str, Callable[[Path], tuple[dict[str, Stored], dict[str, Any]]]] = {
        ".npy": _read_npy,
        ".npz": _read_npz,
        ".safetensors": _read_safetensors,
        ".pt": _read_torch,
        ".pth": _read_torch,
        ".bin": _read_torch,
        ".ckpt": _read_torch,
    }
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise WeightsError(
            f"unknown kind of weight file {path.suffix or '(no extension)'!r}",
            where=str(path),
            hint="known: .npz, .npy, .safetensors, .pt, .pth",
        )
    if path.stat().st_size == 0:
        raise WeightsError("the file is empty", where=str(path))
    return reader(path)


# --- numpy --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Header:
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def size(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def _npy_header(stream: IO[bytes], where: str) -> _Header:
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, fortran, dtype = read(stream, max_header_size=65536)
    except (ValueError, EOFError, SyntaxError) as error:
        raise WeightsError("not an .npy array, or a damaged one", where=where) from error
    if dtype.hasobject:
        raise WeightsError(
            "holds Python objects, which could run code; refused",
            where=where,
            hint="save plain arrays: np.savez(path, W_dec=W_dec)",
        )
    return _Header(shape, dtype, fortran)


def _numpy_tensor(array: np.ndarray[Any, Any]) -> Tensor:
    if array.dtype.byteorder == ">" or (array.dtype.kind == "V" and array.dtype.itemsize == 2):
        if array.dtype.kind == "V":  # bfloat16 saved through ml_dtypes loses its name
            return _shared(array.view(np.int16)).view(torch.bfloat16)
        array = array.astype(array.dtype.newbyteorder("="))
    return _shared(array)


def _shared(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor over the array's memory, without torch's warning that it is read-only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


def _numpy_dtype(dtype: np.dtype[Any]) -> torch.dtype:
    if dtype.kind == "V" and dtype.itemsize == 2:
        return torch.bfloat16
    try:
        return torch.from_numpy(np.empty(0, dtype.newbyteorder("="))).dtype
    except TypeError:
        return torch.bool  # strings and the like: present, never a decoder


def _mapped(path: Path, header: _Header, offset: int) -> Tensor:
    """Map an array without copying, read-only: writing to the tensor would end the process.

    (A private writable mapping looks safer, but some kernels copy its pages as they are read.)
    """
    if header.size == 0:
        return torch.empty(header.shape, dtype=_numpy_dtype(header.dtype))
    array: np.ndarray[Any, Any] = np.memmap(
        path, header.dtype, "r", offset, header.shape, "F" if header.fortran else "C"
    )
    return _numpy_tensor(np.asarray(array))


def _read_npy(path: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    with path.open("rb") as stream:
        header = _npy_header(stream, str(path))
        offset = stream.tell()
    _check_size(header.size, path.stat().st_size - offset, str(path))
    stored = Stored(header.shape, _numpy_dtype(header.dtype), lambda: _mapped(path, header, offset))
    return {"": stored}, {}


def _check_size(claimed: int, present: int, where: str) -> None:
    if claimed > present:
        raise WeightsError(
            f"truncated: the header promises {claimed:,} bytes of data, {present:,} are there",
            where=where,
            hint="fetch the file again",
        )


def _read_npz(path: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    tensors: dict[str, Stored] = {}
    try:
        with zipfile.ZipFile(path) as archive, path.open("rb") as raw:
            for info in archive.infolist():
                if not info.filename.endswith(".npy"):
                    continue
                name = info.filename.removesuffix(".npy")
                tensors[name] = _npz_member(path, archive, raw, info, f"{path}[{name}]")
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, OSError) as error:
        raise WeightsError(
            "damaged or truncated .npz file", where=str(path), hint="fetch the file again"
        ) from error
    except (NotImplementedError, RuntimeError) as error:  # unknown compression, encryption
        raise WeightsError(f"unreadable .npz file: {error}", where=str(path)) from error
    if not tensors:
        raise WeightsError("no arrays in the .npz file", where=str(path))
    return tensors, {}


def _npz_member(
    path: Path, archive: zipfile.ZipFile, raw: IO[bytes], info: zipfile.ZipInfo, where: str
) -> Stored:
    with archive.open(info) as stream:
        header = _npy_header(stream, where)
        start = stream.tell()
    _check_size(header.size, info.file_size - start, where)
    if info.compress_type == zipfile.ZIP_STORED:
        raw.seek(info.header_offset)
        local = raw.read(30)
        names, extra = struct.unpack("<HH", local[26:30])
        offset = info.header_offset + 30 + names + extra + start
        _check_size(header.size, path.stat().st_size - offset, where)
        return Stored(
            header.shape, _numpy_dtype(header.dtype), lambda: _mapped(path, header, offset)
        )
    limit = max(INFLATION_LIMIT - 1, INFLATION_RATIO * info.compress_size)
    if header.size > limit:
        raise WeightsError(
            f"{info.compress_size:,} packed bytes claim to hold {header.size:,}; refused",
            where=where,
            hint="repack with np.savez, which does not compress",
        )
    return Stored(
        header.shape, _numpy_dtype(header.dtype), lambda: _inflate(path, info, header, where)
    )


def _inflate(path: Path, info: zipfile.ZipInfo, header: _Header, where: str) -> Tensor:
    flat = np.empty(math.prod(header.shape), header.dtype)
    view = flat.view(np.uint8).data if flat.size else memoryview(b"")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
            _npy_header(stream, where)
            done = 0
            while done < len(view):
                got = stream.readinto(view[done : done + (16 << 20)])  # type: ignore[attr-defined]
                if not got:
                    raise EOFError
                done += got
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise WeightsError("damaged .npz member", where=where, hint="fetch it again") from error
    return _numpy_tensor(flat.reshape(header.shape, order="F" if header.fortran else "C"))


# --- safetensors --------------------------------------------------------------------------------


def _read_safetensors(path: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    where = str(path)
    total = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if total < 8 or length > min(total - 8, MAX_HEADER):
            raise WeightsError(
                "not a safetensors file, or a truncated one", where=where, hint="fetch it again"
            )
        try:
            header = json.loads(stream.read(length), object_pairs_hook=_unique)
        except (ValueError, RecursionError) as error:
            raise WeightsError(f"bad safetensors header: {error}", where=where) from error
    if not isinstance(header, dict):
        raise WeightsError("bad safetensors header: not an object", where=where)
    metadata = header.pop("__metadata__", None)
    tensors = {
        name: _safetensor(path, f"{where}[{name}]", entry, 8 + length, total)
        for name, entry in header.items()
    }
    return tensors, dict(metadata) if isinstance(metadata, dict) else {}


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("the same key twice")
    return result


def _safetensor(path: Path, where: str, entry: Any, base: int, total: int) -> Stored:
    try:
        dtype = SAFETENSORS_DTYPES.get(entry["dtype"])
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError("bad safetensors header entry", where=where) from error
    if dtype is None:
        return Stored(shape, torch.bool, lambda: torch.empty(0))
    size = math.prod(shape) * dtype.itemsize
    if end - begin != size:
        raise WeightsError(
            f"safetensors header lies: {list(shape)} {entry['dtype']} needs {size:,} bytes, "
            f"the offsets span {end - begin:,}",
            where=where,
        )
    _check_size(base + end, total, where)

    def load() -> Tensor:
        if size == 0:
            return torch.empty(shape, dtype=dtype)
        data = np.memmap(path, np.uint8, "r", base + begin, (size,))
        return _shared(np.asarray(data)).view(dtype).view(shape)

    return Stored(shape, dtype, load)


# --- torch --------------------------------------------------------------------------------------


def _read_torch(path: Path) -> tuple[dict[str, Stored], dict[str, Any]]:
    with path.open("rb") as stream:
        zipped = stream.read(4) == b"PK\x03\x04"
    if zipped:
        _check_torch_zip(path)
    try:
        with warnings.catch_warnings():  # about pickle protocols: what matters is raised
            warnings.simplefilter("ignore")
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipped or None)
    except pickle.UnpicklingError as error:
        raise WeightsError(
            "holds Python objects, which could run code, or is no PyTorch file; refused",
            where=str(path),
            hint="save tensors only: torch.save(sae.state_dict(), path)",
        ) from error
    except (RuntimeError, EOFError, ValueError, KeyError, IndexError, OSError) as error:
        raise WeightsError(
            "damaged or truncated PyTorch file", where=str(path), hint="fetch the file again"
        ) from error
    tensors: dict[str, Stored] = {}
    scalars: dict[str, Any] = {}
    _flatten(content, "", tensors, scalars)
    if not tensors:
        raise WeightsError("no tensors in the PyTorch file", where=str(path))
    return tensors, scalars


def _check_torch_zip(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(info.file_size for info in archive.infolist())
    except zipfile.BadZipFile as error:
        raise WeightsError(
            "damaged or truncated PyTorch file", where=str(path), hint="fetch the file again"
        ) from error
    if unpacked > path.stat().st_size + (1 << 20):
        raise WeightsError(
            f"claims to unpack to {unpacked:,} bytes; refused",
            where=str(path),
            hint="torch.save writes uncompressed files",
        )


def _flatten(
    content: Any, prefix: str, tensors: dict[str, Stored], scalars: dict[str, Any]
) -> None:
    if isinstance(content, Tensor):
        value = content.detach()
        if value.layout is torch.strided:
            tensors[prefix] = Stored(tuple(value.shape), value.dtype, lambda: value)
    elif isinstance(content, Mapping):
        for key, inner in content.items():
            _flatten(inner, f"{prefix}.{key}" if prefix else str(key), tensors, scalars)
    elif isinstance(content, (int, float, str)):
        scalars[prefix] = content


def read_json(path: Path) -> dict[str, Any]:
    """Parse a small JSON configuration file; an object, or an error that names the file."""
    try:
        if path.stat().st_size > MAX_CONFIG:
            raise ValueError(f"more than {MAX_CONFIG >> 20} MiB")
        value = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise WeightsError(f"bad JSON: {error}", where=str(path)) from error
    if not isinstance(value, dict):
        raise WeightsError("bad JSON: an object was expected", where=str(path))
    return value
