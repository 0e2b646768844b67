"""Zip archives that may lie in any field, and whose checksums are right unless told otherwise."""

from __future__ import annotations

import bz2
import lzma
import random
import zlib
from dataclasses import dataclass, field, replace

from tests.fuzz.mutate import chance, mutate_bytes, nearby, packed

STORED, DEFLATED, DEFLATE64, BZIP2, LZMA, ZSTD = 0, 8, 9, 12, 14, 93
LOCAL = (("version", 2), ("flags", 2), ("method", 2), ("time", 4), ("crc", 4), ("packed", 4),
         ("unpacked", 4), ("name_length", 2), ("extra_length", 2))  # fmt: skip
CENTRAL = (("made_by", 2), *LOCAL, ("comment_length", 2), ("disk", 2), ("internal", 2),
           ("external", 4), ("offset", 4))  # fmt: skip
END = (("disk", 2), ("start_disk", 2), ("entries_here", 2), ("entries", 2), ("size", 4),
       ("offset", 4), ("comment_length", 2))  # fmt: skip


@dataclass
class Member:
    """One file of an archive."""

    name: bytes
    data: bytes
    """Unpacked."""
    method: int = STORED
    extra: bytes = b""
    local: dict[str, int] = field(default_factory=dict)
    """Fields of the local header that say something else, by the names in `LOCAL`."""
    content: bytes | None = None
    """Packed, where that is not what `method` makes of `data`."""
    central: dict[str, int] = field(default_factory=dict)
    """... and of the central directory, by the names in `CENTRAL`."""


def compressed(data: bytes, method: int) -> bytes:
    """Data as a method packs it; as it is where Python cannot."""
    if method == DEFLATED:
        deflate = zlib.compressobj(wbits=-15)
        return deflate.compress(data) + deflate.flush()
    if method == BZIP2:
        return bz2.compress(data)
    if method == LZMA:
        filters = [{"id": lzma.FILTER_LZMA1}]
        properties = b"\x09\x04\x05\x00\x5d\x00\x00\x80\x00"
        return properties + lzma.compress(data, lzma.FORMAT_RAW, filters=filters)
    return data


def archive(
    members: list[Member], *, end: dict[str, int] | None = None, comment: bytes = b"",
    before: bytes = b"",
) -> bytes:  # fmt: skip
    """An archive of these members; `end` overrides fields of its last record."""
    out, directory = bytearray(before), bytearray()
    for member in members:
        content = member.content or compressed(member.data, member.method)
        true = {
            "made_by": 20, "version": 20, "method": member.method, "crc": zlib.crc32(member.data),
            "packed": len(content), "unpacked": len(member.data), "name_length": len(member.name),
            "extra_length": len(member.extra), "offset": len(out),
        }  # fmt: skip
        out += b"PK\x03\x04" + _fields(LOCAL, true | member.local) + member.name + member.extra
        out += content
        entry = _fields(CENTRAL, true | member.central)
        directory += b"PK\x01\x02" + entry + member.name + member.extra
    last = {"entries": len(members), "entries_here": len(members), "size": len(directory),
            "offset": len(out), "comment_length": len(comment)}  # fmt: skip
    return bytes(out + directory) + b"PK\x05\x06" + _fields(END, last | (end or {})) + comment


def _fields(layout: tuple[tuple[str, int], ...], values: dict[str, int]) -> bytes:
    return b"".join(packed(values.get(name, 0), width) for name, width in layout)


def bomb(name: bytes, head: bytes, megabytes: int) -> Member:
    """A member of `head` and this many megabytes of zeros, deflated and with the right checksum."""
    deflate = zlib.compressobj(1, wbits=-15)
    start = deflate.compress(head) + deflate.flush(zlib.Z_FULL_FLUSH)
    block = deflate.compress(bytes(1 << 20)) + deflate.flush(zlib.Z_FULL_FLUSH)
    content = start + block * megabytes + deflate.flush()
    crc = zlib.crc32(head)
    for _ in range(megabytes):
        crc = zlib.crc32(bytes(1 << 20), crc)
    true = {"crc": crc, "unpacked": len(head) + (megabytes << 20)}
    return Member(name, b"", DEFLATED, b"", true, content, dict(true))


def mutate_members(rng: random.Random, members: list[Member]) -> bytes:
    """An archive of members of which some lie, are packed oddly, doubled or left out."""
    chosen = [replace(m, local=dict(m.local), central=dict(m.central)) for m in members]
    for member in chosen:
        if chance(rng, 0.3):
            member.method = rng.choice((STORED, DEFLATED, DEFLATED, BZIP2, LZMA, ZSTD, DEFLATE64))
        if chance(rng, 0.15):
            _lie(rng, member.central, CENTRAL)
        if chance(rng, 0.15):
            _lie(rng, member.local, LOCAL)
        if chance(rng, 0.05):
            member.extra = packed(1, 2) + packed(24, 2) + rng.randbytes(24)  # zip64 sizes
        if chance(rng, 0.05):
            member.name = mutate_bytes(rng, member.name, most=1)
            member.central["flags"] = member.local["flags"] = rng.choice((0, 0x800))
    if chance(rng, 0.1):
        chosen.append(rng.choice(chosen))
    if chance(rng, 0.1):
        del chosen[rng.randrange(len(chosen))]
    if chance(rng, 0.1):
        rng.shuffle(chosen)
    end: dict[str, int] = {}
    if chance(rng, 0.1):
        _lie(rng, end, END)
    comment = b"PK\x05\x06" * 10 if chance(rng, 0.03) else b""
    before = b"#!" * 20 if chance(rng, 0.03) else b""
    data = archive(chosen, end=end, comment=comment, before=before)
    return mutate_bytes(rng, data) if chance(rng, 0.15) else data


def _lie(rng: random.Random, fields: dict[str, int], layout: tuple[tuple[str, int], ...]) -> None:
    name, _ = rng.choice(layout)
    fields[name] = nearby(rng, rng.choice((0, 1, 100, 2000)))
