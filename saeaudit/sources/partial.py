"""Decoder-only fetches: ranged reads that leave the encoder on the hub.

An uncompressed .npz or a .safetensors file says where each tensor lies. The decoder and the small
vectors are brought over as they are and kept as one safetensors file, with where they came from in
its metadata, in saeaudit's own cache directory.
"""

from __future__ import annotations

import io
import json
import re
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.lib import format as npy

from saeaudit.errors import AuditError
from saeaudit.sources.cache import DECODER_SUFFIX, check_name, decoder_root
from saeaudit.sources.download import Bytes, RangesUnsupported, get_range
from saeaudit.sources.hub import Repo
from saeaudit.sources.hubapi import hub_errors
from saeaudit.weights.interface import Listed

ENCODER = re.compile(r"(?:[Ww]_enc(?:_\d+)?|W_E|W_skip|affine_skip_connection|encoder.*\.weight)$")
"""Names of the tensors that are left behind."""
NUMPY_DTYPES = {"<f4": "F32", "<f2": "F16", "<f8": "F64", "<i4": "I32", "<i8": "I64"}
BLOCK = 1 << 16
PIECE = 16 << 20


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
    size: int


def decoder_path(repo: Repo, listed: Listed) -> Path:
    """Where a decoder-only copy is kept."""
    name = check_name(listed.file, repo.repo_id) + DECODER_SUFFIX
    return decoder_root() / repo.folder.name / repo.commit / name


def fetch_decoder(repo: Repo, listed: Listed, progress: Bytes | None = None) -> Path:
    """Bring one SAE's decoder and vectors; goes on where an earlier try broke off.

    Raises:
        UnsuitableError: the whole file is needed.
        AuditError: it cannot be fetched.
    """
    place = decoder_path(repo, listed)
    if place.is_file():
        return place
    if repo.offline:
        raise AuditError(
            "the decoder is not in the cache",
            where=repo.uri(listed.name),
            hint="run the same command once without --offline",
        )
    size = repo.files(listed.file.rsplit("/", 1)[0] if "/" in listed.file else "")[listed.file].size
    read = _reader(repo, listed.file)
    segments = [s for s in _segments(listed.file, read, size) if not ENCODER.search(s.name)]
    if not any(len(s.shape) >= 2 for s in segments):
        raise UnsuitableError("no decoder that lies apart from the encoder")
    header = _header(segments, repo, listed)
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f"{place.name}.part")
    have = part.stat().st_size if part.exists() else 0
    with part.open("r+b" if have else "wb") as out:
        if have < len(header):
            out.truncate(0)
            out.write(header)
            have = len(header)
        out.seek(have)
        done = len(header)
        for segment in segments:
            skip = min(max(have - done, 0), segment.size)
            for start in range(segment.start + skip, segment.start + segment.size, PIECE):
                stop = min(start + PIECE, segment.start + segment.size)
                piece = read(start, stop)
                out.write(piece)
                if progress:
                    progress(len(piece))
            done += segment.size
    part.replace(place)
    return place


Read = Callable[[int, int], bytes]


def _reader(repo: Repo, path: str) -> Read:
    """Return a function that fetches a range of bytes of a remote file."""

    def read(start: int, stop: int) -> bytes:
        with hub_errors(repo.uri(path)):
            try:
                return get_range(repo.url(path), start, stop, where=repo.uri(path), note=repo.note)
            except RangesUnsupported as error:
                raise UnsuitableError("the server does not send ranges of bytes") from error

    return read


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
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def read(self, count: int = -1) -> bytes:
        stop = self._size if count < 0 else min(self._at + count, self._size)
        out = bytearray()
        while self._at < stop:
            block = self._at // BLOCK
            if block not in self._blocks:
                first = block * BLOCK
                self._blocks[block] = self._read(first, min(first + BLOCK, self._size))
            inside = self._at - block * BLOCK
            piece = self._blocks[block][inside : inside + stop - self._at]
            out += piece
            self._at += len(piece)
        return bytes(out)


def _segments(path: str, read: Read, size: int) -> list[Segment]:
    stream = _Remote(read, size)
    if path.endswith(".npz"):
        return _npz_segments(stream)
    if path.endswith(".safetensors"):
        return _safetensors_segments(stream)
    raise UnsuitableError(f"a {path.rsplit('.', 1)[-1]} file can only be read whole")


def _npz_segments(stream: _Remote) -> list[Segment]:
    found = []
    try:
        with zipfile.ZipFile(stream) as archive:
            members = archive.infolist()
        for member in members:
            name = member.filename.removesuffix(".npy")
            if ENCODER.search(name):
                continue
            if member.compress_type != zipfile.ZIP_STORED:
                raise UnsuitableError("the file is compressed")
            stream.seek(member.header_offset)
            local = stream.read(30)
            names, extra = struct.unpack("<HH", local[26:30])
            stream.seek(member.header_offset + 30 + names + extra)
            version = npy.read_magic(stream)
            header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
            shape, fortran, dtype = header(stream, max_header_size=65536)
            if (fortran and len(shape) > 1) or dtype.str not in NUMPY_DTYPES:
                raise UnsuitableError(f"{name} is stored as {dtype.str}, order {fortran}")
            count = 1
            for axis in shape:
                count *= axis
            found.append(
                Segment(name, NUMPY_DTYPES[dtype.str], shape, stream.tell(), count * dtype.itemsize)
            )
    except (zipfile.BadZipFile, struct.error, ValueError, EOFError) as error:
        raise UnsuitableError("the archive cannot be read in part") from error
    return found


def _safetensors_segments(stream: _Remote) -> list[Segment]:
    length = int.from_bytes(stream.read(8), "little")
    if length > 100 << 20:
        raise UnsuitableError("not a safetensors header")
    try:
        header: dict[str, Any] = json.loads(stream.read(length))
        return [
            Segment(name, entry["dtype"], tuple(entry["shape"]), 8 + length + begin, end - begin)
            for name, entry in header.items()
            if name != "__metadata__"
            for begin, end in [entry["data_offsets"]]
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UnsuitableError("not a safetensors header") from error


def _header(segments: list[Segment], repo: Repo, listed: Listed) -> bytes:
    entries: dict[str, Any] = {
        "__metadata__": {
            "saeaudit.format": listed.format,
            "saeaudit.uri": repo.uri(listed.file, repo.commit),
            "saeaudit.part": "decoder and vectors, without the encoder",
        }
    }
    offset = 0
    for s in segments:
        span = [offset, offset + s.size]
        entries[s.name] = {"dtype": s.dtype, "shape": s.shape, "data_offsets": span}
        offset += s.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
