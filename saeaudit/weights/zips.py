"""Zip archives of arrays: what numpy and PyTorch write, and nothing else that a zip may be."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from saeaudit.errors import WeightsError
from saeaudit.weights.limits import Limits

PIECE = 1 << 20
"""Bytes that are read at once."""


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


def data_offset(archive: Archive, info: zipfile.ZipInfo) -> int:
    """Where the bytes of a stored member begin.

    Raises:
        zipfile.BadZipFile: there is no such member there.
    """
    archive.raw.seek(info.header_offset)
    local = archive.raw.read(30)
    if len(local) < 30 or not local.startswith(b"PK\x03\x04"):
        raise zipfile.BadZipFile("no member where the directory says")
    names, extra = struct.unpack("<HH", local[26:30])
    return info.header_offset + 30 + int(names) + int(extra)


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
