"""Where each tensor lies in a remote .npz or .safetensors file, found by ranged reads of its ends.

Nothing that such a file says is believed before it is checked against the file's announced size:
tensors lie inside the file and apart from each other, and are as long as their shapes say. What
is read to find that out is bounded, whatever the file claims.
"""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from saeaudit.errors import AuditError, WeightsError
from saeaudit.weights.numpy_files import parse_header
from saeaudit.weights.safetensors_files import parse_entry, read_header
from saeaudit.weights.zips import data_offset

NUMPY_DTYPES = {"<f4": "F32", "<f2": "F16", "<f8": "F64", "<i4": "I32", "<i8": "I64"}
BLOCK = 1 << 16
MAX_DIRECTORY = 1 << 20
"""Longest header or directory, in bytes: that of ten thousand tensors."""
MAX_BLOCKS = 256
"""Blocks read to find the tensors, at most: 16 MiB."""
MAX_RANK = 8

Read = Callable[[int, int], bytes]
"""Returns the bytes ``[start, stop)`` of the remote file, all of them."""


class UnsuitableError(Exception):
    """The layout does not allow a partial fetch; the message says why."""


@dataclass(frozen=True)
class Segment:
    """A tensor's place in the remote file."""

    name: str
    dtype: str
    """As safetensors calls it."""
    shape: tuple[int, ...]
    start: int
    """Bytes from the file's start."""
    size: int
    """Bytes."""


def find_segments(path: str, read: Read, size: int, wanted: Callable[[str], bool]) -> list[Segment]:
    """Find the tensors whose names are wanted.

    Args:
        path: of the file; its extension says how to read it.
        read: fetches a range of the file.
        size: of the whole file, in bytes, as it was announced.
        wanted: whether a tensor of this name is; the others are not looked at in an .npz.

    Returns:
        In the order of the file's directory; inside the file, apart from each other.

    Raises:
        UnsuitableError: the file has to be read whole.
        WeightsError: it contradicts itself or its size.
    """
    stream = _Remote(read, size)
    if path.endswith(".npz"):
        segments = _npz_segments(stream, wanted)
    elif path.endswith(".safetensors"):
        segments = [s for s in _safetensors_segments(stream, size) if wanted(s.name)]
    else:
        raise UnsuitableError(f"a {path.rsplit('.', 1)[-1]} file can only be read whole")
    _check_places(segments, size)
    return segments


def _check_places(segments: Sequence[Segment], size: int) -> None:
    if len({s.name for s in segments}) < len(segments):
        raise WeightsError("two tensors of the same name")
    before = 0
    for s in sorted(segments, key=lambda s: (s.start, s.size)):
        if s.start < before:
            raise WeightsError(f"{s.name!r:.80} overlaps another tensor")
        before = s.start + s.size
        if before > size:
            raise WeightsError(f"{s.name!r:.80} would end at byte {before:,} of {size:,}")


class _Remote(io.RawIOBase):
    """A remote file to seek in, read in blocks that are kept."""

    def __init__(self, read: Read, size: int) -> None:
        self._read, self._size, self._at = read, size, 0
        self._blocks: dict[int, bytes] = {}

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0) -> int:
        target = offset + (0, self._at, self._size)[whence]
        if target < 0:
            raise ValueError("before the file's start")
        self._at = target
        return target

    def read(self, count: int | None = -1) -> bytes:
        """Raises UnsuitableError where more is asked for than a directory has."""
        stop = self._size if count is None or count < 0 else min(self._at + count, self._size)
        if stop - self._at > MAX_DIRECTORY:
            raise UnsuitableError(f"its directory is longer than {MAX_DIRECTORY >> 20} MiB")
        out = bytearray()
        while self._at < stop:
            number = self._at // BLOCK
            inside = self._at - number * BLOCK
            piece = self._block(number)[inside : inside + stop - self._at]
            out += piece
            self._at += len(piece)
        return bytes(out)

    def _block(self, number: int) -> bytes:
        if number not in self._blocks:
            if len(self._blocks) == MAX_BLOCKS:
                raise UnsuitableError("its tensors are described in too many places")
            first = number * BLOCK
            self._blocks[number] = self._read(first, min(first + BLOCK, self._size))
        return self._blocks[number]


def _npz_segments(stream: _Remote, wanted: Callable[[str], bool]) -> list[Segment]:
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, struct.error, ValueError) as error:
        raise WeightsError("damaged .npz file: its directory cannot be read") from error
    arrays = [m for m in members if m.filename.endswith(".npy")]
    named = [(member.filename.removesuffix(".npy"), member) for member in arrays]
    return [_npz_segment(stream, name, member) for name, member in named if wanted(name)]


def _npz_segment(stream: _Remote, name: str, member: zipfile.ZipInfo) -> Segment:
    if member.compress_type != zipfile.ZIP_STORED or member.flag_bits & 1:
        raise UnsuitableError("the file is compressed or encrypted")
    try:
        start = data_offset(stream, member)
    except zipfile.BadZipFile as error:
        raise WeightsError(f"{name!r:.80}: the archive's directory points elsewhere") from error
    stream.seek(start)
    try:
        array = parse_header(stream)
    except (UnsuitableError, AuditError):
        raise  # from the network
    except Exception as error:
        raise WeightsError(f"{name!r:.80}: not an array, or damaged") from error
    header = stream.tell() - start
    if (array.fortran and len(array.shape) > 1) or array.dtype.str not in NUMPY_DTYPES:
        raise UnsuitableError(f"{name!r:.80} is stored as {array.dtype.str}, order {array.fortran}")
    size = _bytes(array.shape, array.dtype.itemsize, member.file_size, name)
    if not header + size == member.file_size == member.compress_size:
        raise WeightsError(f"{name!r:.80}: its shape and its size contradict each other")
    shape = tuple(map(int, array.shape))
    return Segment(name, NUMPY_DTYPES[array.dtype.str], shape, start + header, size)


def _safetensors_segments(stream: _Remote, total: int) -> list[Segment]:
    header = read_header(stream, total, total, "")
    return [
        _safetensor(name, value, header.length, total) for name, value in header.entries.items()
    ]


def _safetensor(name: str, value: Any, base: int, total: int) -> Segment:
    try:
        entry = parse_entry(value)
    except WeightsError as error:
        raise WeightsError(f"{name!r:.80}: {error.what}") from error
    if entry.dtype is None:
        raise UnsuitableError(f"{name!r:.80} is stored as {entry.name!r:.40}")
    size = _bytes(entry.shape, entry.dtype.itemsize, total, name)
    if entry.end - entry.begin != size:
        raise WeightsError(f"{name!r:.80}: its shape and its offsets contradict each other")
    return Segment(name, entry.name, entry.shape, base + entry.begin, size)


def _bytes(shape: tuple[int, ...], itemsize: int, most: int, name: str) -> int:
    """Bytes of a tensor, of which its file has `most`."""
    if len(shape) > MAX_RANK or not all(0 <= n <= most for n in shape):
        raise WeightsError(f"{name!r:.80}: no tensor of this file has such a shape")
    return math.prod(shape) * itemsize
