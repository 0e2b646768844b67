"""Archives, arrays and pickles written byte by byte, so that they can lie."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, 2)
"""How files of PyTorch before 1.6 begin."""


class Member(NamedTuple):
    """A member of an archive, as its directory describes it."""

    name: bytes
    data: bytes
    """As stored: packed, if `method` packs."""
    method: int = 0
    size: int | None = None
    """Unpacked size that is claimed; the packed one where None."""
    flags: int = 0


def write_zip(file: Path, members: list[Member]) -> Path:
    """Write members one after the other, and a directory that says what they claim."""
    directory = bytearray()
    with file.open("wb") as stream:
        for name, data, method, size, flags in members:
            at = stream.tell()
            sizes = (zlib.crc32(data) if method == 0 else 0, len(data), len(data) if size is None
                     else size)  # fmt: skip
            head = struct.pack("<HHHHHIIIHH", 20, flags, method, 0, 33, *sizes, len(name), 0)
            stream.write(b"PK\x03\x04" + head + name + data)
            directory += b"PK\x01\x02\x14\x00" + head
            directory += struct.pack("<HHHII", 0, 0, 0, 0, at) + name
        at = stream.tell()
        stream.write(directory)
        count = min(len(members), 0xFFFF)
        stream.write(b"PK\x05\x06" + struct.pack("<HHHHIIH", 0, 0, count, count, len(directory),
                                                   at, 0))  # fmt: skip
    return file


def npy(shape: tuple[int, ...], descr: Any = "<f4", data: bytes = b"") -> bytes:
    """An array's header and whatever data."""
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        stream, {"descr": descr, "fortran_order": False, "shape": shape}
    )
    return stream.getvalue() + data


def npy_header(header: bytes, version: bytes = b"\x01\x00", length: int | None = None) -> bytes:
    """An array whose header is any text of any claimed length."""
    size = len(header) if length is None else length
    return b"\x93NUMPY" + version + struct.pack("<H" if version[0] == 1 else "<I", size) + header


def deflated(start: bytes, megabytes: int) -> bytes:
    """A raw deflate stream of `start` and so many MiB of zeros, 1 KB each."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + block * megabytes + b"\x03\x00"


def piece(value: Any) -> bytes:
    """The instructions that push a plain value."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(key: str, shape: Any, stride: Any, offset: int = 0, numel: int = 16) -> bytes:
    """The instructions that push a float32 tensor over a storage."""
    storage = b"(" + piece("storage") + b"ctorch\nFloatStorage\n" + piece(key) + piece("cpu")
    storage += piece(numel) + b"tQ"
    rest = piece(offset) + piece(shape) + piece(stride) + b"\x89ccollections\nOrderedDict\n)R"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def dictionary(*entries: tuple[str, bytes]) -> bytes:
    """The instructions that push a dictionary."""
    return b"}(" + b"".join(piece(name) + value for name, value in entries) + b"u"


def torch_zip(file: Path, body: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """A PyTorch file around the instructions of its pickle."""
    members = [Member(b"archive/data.pkl", b"\x80\x02" + body + b".")]
    members += [Member(f"archive/data/{k}".encode(), v) for k, v in (storages or {}).items()]
    members += [Member(b"archive/version", b"3\n"), Member(b"archive/byteorder", b"little")]
    return write_zip(file, members)


def torch_legacy(file: Path, body: bytes, storages: dict[str, bytes] | None = None) -> Path:
    """The same as before PyTorch 1.6."""
    storages = storages or {}
    data = LEGACY + pickle.dumps(1001, 2) + pickle.dumps({"little_endian": True}, 2)
    data += b"\x80\x02" + body + b"." + pickle.dumps(list(storages), 2)
    for value in storages.values():
        data += struct.pack("<q", len(value) // 4) + value
    file.write_bytes(data)
    return file
