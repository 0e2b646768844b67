"""``.npy`` and ``.npz``: mapped where they are not compressed, never unpickled."""

from __future__ import annotations

import io
import math
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.lib import format as npy

from saeaudit.errors import WeightsError
from saeaudit.weights.dtypes import BOOL, DTYPES, Dtype
from saeaudit.weights.limits import Limits
from saeaudit.weights.stored import Read, Stored, check_size, mapped, over
from saeaudit.weights.zips import PIECE, Archive, data_offset, open_archive

if TYPE_CHECKING:
    from torch import Tensor

MOST_BRACKETS = 64
"""Brackets of a header: a plain array's has two, one of many named fields some more; at 200 within
each other Python's parser takes its memory for exhausted."""
LONGEST_HEADER = 10_000
"""Characters of an array's header, numpy's own limit: it is parsed as a Python literal."""


@dataclass(frozen=True)
class Header:
    """What an .npy header says."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def size(self) -> int:
        """Bytes of the elements."""
        return math.prod(self.shape) * self.dtype.itemsize

    @property
    def order(self) -> Any:
        """As numpy calls it."""
        return "F" if self.fortran else "C"


def read_npy(path: Path, limits: Limits) -> Read:
    """One array, under the name ``""``.

    Raises:
        WeightsError: it is none, damaged, or holds Python objects.
    """
    with path.open("rb") as stream:
        header = _read_header(stream, str(path))
        offset = stream.tell()
    check_size(header.size, path.stat().st_size - offset, str(path))
    return {"": _placed(path, header, offset)}, {}


def read_npz(path: Path, limits: Limits) -> Read:
    """The arrays of an archive by name.

    Raises:
        WeightsError: damaged, holding Python objects, or unpacking to more than `limits` allow.
    """
    tensors: dict[str, Stored] = {}
    inflated, most = 0, max(limits.inflated - 1, limits.ratio * path.stat().st_size)
    with open_archive(path, limits) as archive:
        for filename, info in archive.members.items():
            if not filename.endswith(".npy"):
                continue
            name = filename.removesuffix(".npy")
            where = f"{path}[{name}]"
            with archive.zip.open(info) as stream:
                header = _read_header(stream, where)
                start = stream.tell()
            check_size(header.size, info.file_size - start, where)
            if info.compress_type == zipfile.ZIP_STORED:
                tensors[name] = _member(path, archive, info, header, start)
                continue
            inflated += header.size
            if inflated > most:
                raise WeightsError(
                    f"{path.stat().st_size:,} bytes claim to unpack to more than {most:,}; refused",
                    where=str(path),
                    hint="repack with np.savez, which does not compress",
                )
            tensors[name] = _deflated(path, info, header, where)
    if not tensors:
        raise WeightsError("no arrays in the .npz file", where=str(path))
    return tensors, {}


def _read_header(stream: IO[bytes], where: str) -> Header:
    try:
        header = parse_header(stream)
        if any(n < 0 for n in header.shape):
            raise ValueError(f"shape {header.shape}")
    except Exception as error:
        raise WeightsError("not an .npy array, or a damaged one", where=where) from error
    if header.dtype.hasobject:
        raise WeightsError(
            "holds Python objects, which could run code; refused",
            where=where,
            hint="save plain arrays: np.savez(path, W_dec=W_dec)",
        )
    return header


def parse_header(stream: IO[bytes] | io.RawIOBase) -> Header:
    """Read an array's header, behind which the stream then stands.

    Raises:
        Exception: it is none. numpy evaluates it as a literal and may raise nearly anything.
    """
    version = npy.read_magic(stream)
    if version not in ((1, 0), (2, 0), (3, 0)):
        raise ValueError(f"version {version}")
    length = stream.read(2 if version == (1, 0) else 4)
    size = int.from_bytes(length, "little")
    if size > LONGEST_HEADER:  # numpy would read all of it before it checks
        raise ValueError(f"a header of {size} bytes")
    text = stream.read(size)
    if sum(map(text.count, (b"(", b"[", b"{"))) > MOST_BRACKETS:
        raise ValueError("a header of nested lists")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():  # headers of Python 2; what matters is raised
        warnings.simplefilter("ignore")
        shape, fortran, dtype = read(io.BytesIO(length + text))
    return Header(shape, dtype, fortran)


def _member(
    path: Path, archive: Archive, info: zipfile.ZipInfo, header: Header, start: int
) -> Stored:
    """An uncompressed member, `start` bytes after whose beginning its elements lie."""
    offset = data_offset(archive.raw, info) + start
    check_size(header.size, path.stat().st_size - offset, f"{path}[{info.filename}]")
    return _placed(path, header, offset)


def _placed(path: Path, header: Header, offset: int) -> Stored:
    def load() -> Tensor:
        if header.size == 0:
            return mapped(path, 0, 0, _dtype(header.dtype)).view(header.shape)
        array: np.ndarray[Any, Any] = np.memmap(
            path, header.dtype, "r", offset, header.shape, header.order
        )
        return _tensor(np.asarray(array))

    return Stored(header.shape, _dtype(header.dtype), load, header.dtype.byteorder != ">")


def _deflated(path: Path, info: zipfile.ZipInfo, header: Header, where: str) -> Stored:
    def load() -> Tensor:
        flat = np.empty(math.prod(header.shape), header.dtype)
        view = flat.view(np.uint8).data if flat.size else memoryview(b"")
        with zipfile.ZipFile(path) as archive, archive.open(info) as stream:
            _read_header(stream, where)
            done = 0
            while done < len(view):
                piece = stream.read(min(PIECE, len(view) - done))
                if not piece:
                    raise EOFError("fewer bytes than the directory says")
                view[done : done + len(piece)] = piece
                done += len(piece)
        return _tensor(flat.reshape(header.shape, order=header.order))

    return Stored(header.shape, _dtype(header.dtype), load, is_mapped=False)


def _tensor(array: np.ndarray[Any, Any]) -> Tensor:
    if _is_bfloat16(array.dtype):
        return over(array.view(np.int16)).view(DTYPES["bfloat16"].in_torch())
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    return over(array)


def _is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Whether it was bfloat16, which loses its name when saved through ml_dtypes."""
    return dtype.kind == "V" and dtype.itemsize == 2 and dtype.names is None


def _dtype(dtype: np.dtype[Any]) -> Dtype:
    """The same for a tensor; strings, dates and records are present, but never a decoder."""
    return DTYPES["bfloat16"] if _is_bfloat16(dtype) else DTYPES.get(dtype.name, BOOL)
