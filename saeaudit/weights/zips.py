"""Zip archives of arrays: what numpy and PyTorch write, and nothing else that a zip may be."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

from saeaudit.errors import WeightsError
from saeaudit.weights.limits import Limits

PIECE = 1 << 20
"""Bytes that are read at once."""


HEADER = 30
"""Bytes before a member's name."""
UTF8 = 0x800
"""Flag of a member whose name is UTF-8."""


class Seekable(Protocol):
    """Bytes to seek in: a file, or one that lies on a server."""

    def seek(self, offset: int, /) -> int:
        """Go to a byte, counted from the start."""

    def read(self, size: int, /) -> bytes:
        """The next bytes, fewer at the end alone."""


class Archive(NamedTuple):
    """An open archive."""

    zip: zipfile.ZipFile
    raw: io.BufferedReader
    """The same file."""
    members: dict[str, zipfile.ZipInfo]
    """By name; each stored or deflated, not encrypted."""


@contextmanager
def open_archive(path: Path, limits: Limits) -> Iterator[Archive]:
    """Open an archive and check its list of members.

    Raises:
        WeightsError: too many members, two of one name, or one that only other tools write.
        zipfile.BadZipFile, ValueError: damaged.
    """
    with _Modest(path, limits.directory) as raw, zipfile.ZipFile(raw) as archive:
        infos = archive.infolist()
        members = {info.filename: info for info in infos}
        if len(infos) > limits.tensors:
            raise WeightsError(f"more than {limits.tensors:,} members", where=str(path))
        if len(members) < len(infos):
            raise WeightsError("two members have the same name", where=str(path))
        for info in infos:
            if info.flag_bits & 1:
                raise WeightsError("an encrypted archive", where=str(path))
            # bzip2 and LZMA cannot be unpacked in small pieces, and numpy never writes them.
            if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise WeightsError(
                    f"compressed by method {info.compress_type}; stored or deflated was expected",
                    where=str(path),
                )
        yield Archive(archive, raw, members)


def read_member(archive: Archive, info: zipfile.ZipInfo) -> bytes:
    """All of a member, whose size the caller has checked."""
    with archive.zip.open(info) as stream:
        return b"".join(iter(lambda: stream.read(PIECE), b""))


def data_offset(archive: Seekable, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin.

    Args:
        archive: the bytes of the whole archive.
        info: the member, as the archive's directory has it.

    Raises:
        zipfile.BadZipFile: that member is not where the directory says.
    """
    if info.header_offset < 0:  # what a directory before the file's start makes of it
        raise zipfile.BadZipFile("no member before the file's start")
    archive.seek(info.header_offset)
    header = archive.read(HEADER)
    if len(header) < HEADER or not header.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile("no member where the directory says")
    name, extra = struct.unpack("<HH", header[26:])
    encoding = "utf-8" if info.flag_bits & UTF8 else "cp437"
    if archive.read(name) != info.orig_filename.encode(encoding):
        raise zipfile.BadZipFile("another member where the directory says")
    return info.header_offset + HEADER + int(name) + int(extra)


class _Modest(io.BufferedReader):
    """A file that is read in small pieces only.

    zipfile reads the whole list of members at once, however long the archive says that it is.
    """

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(io.FileIO(path))
        self._where, self._most = str(path), most

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and 0 <= size <= self._most:
            return super().read(size)
        data = super().read(self._most + 1)
        if len(data) > self._most:
            raise WeightsError("its list of members is too long", where=self._where)
        return data
