"""Small programs that make files which are broken or mean harm; `test_hostile.py` opens them."""

from __future__ import annotations

import bz2
import json
import os
import pickle
import socket
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.hostile.archives import (
    Member,
    deflated,
    dictionary,
    npy,
    npy_header,
    piece,
    tensor,
    torch_legacy,
    torch_zip,
    write_zip,
)

ROWS = np.random.default_rng(0).normal(size=(64, 16)).astype(np.float32)


class Touch:
    """Unpickling this runs a command."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (os.system, (f"touch {self.target}",))


def npz_truncated(folder: Path) -> Path:
    file = folder / "params.npz"
    np.savez(file, W_dec=ROWS)
    file.write_bytes(file.read_bytes()[:2000])
    return file


def npz_flipped(folder: Path) -> Path:
    """A deflated member with a damaged byte: the stream or its checksum is wrong."""
    file = folder / "params.npz"
    np.savez_compressed(file, W_dec=ROWS)
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(bytes(data))
    return file


def npz_objects(folder: Path) -> Path:
    file = folder / "params.npz"
    np.savez(file, W_dec=np.array([Touch(folder / "ran"), 1], dtype=object))
    return file


def npz_bomb(folder: Path) -> Path:
    """About 1 MB that inflates to 1 GiB."""
    member = Member(b"W_dec.npy", deflated(npy((1 << 18, 1 << 10)), 1024), 8, (1 << 30) + 128)
    return write_zip(folder / "params.npz", [member])


def npy_huge(folder: Path) -> Path:
    """A few bytes that ask for 373 GiB."""
    file = folder / "huge.npy"
    with file.open("wb") as stream:
        np.lib.format.write_array_header_1_0(
            stream, {"descr": "<f4", "fortran_order": False, "shape": (100_000_000, 1000)}
        )
    return file


def npy_text(folder: Path) -> Path:
    (folder / "text.npy").write_text("these are no numbers\n")
    return folder / "text.npy"


def pt_code(folder: Path) -> Path:
    torch.save({"W_dec": Touch(folder / "ran")}, folder / "evil.pt")
    return folder / "evil.pt"


def pt_raw_pickle(folder: Path) -> Path:
    (folder / "evil.pt").write_bytes(pickle.dumps(Touch(folder / "ran")))
    return folder / "evil.pt"


def pt_truncated(folder: Path) -> Path:
    file = folder / "sae.pt"
    torch.save({"W_dec": torch.from_numpy(ROWS)}, file)
    file.write_bytes(file.read_bytes()[:1500])
    return file


def pt_empty(folder: Path) -> Path:
    torch.save({"step": 3}, folder / "sae.pt")
    return folder / "sae.pt"


def _safetensors(folder: Path, header: bytes, data: bytes) -> Path:
    file = folder / "sae.safetensors"
    file.write_bytes(struct.pack("<Q", len(header)) + header + data)
    return file


def _entry(shape: list[int], offsets: list[int]) -> dict[str, object]:
    return {"dtype": "F32", "shape": shape, "data_offsets": offsets}


def safetensors_lying_shape(folder: Path) -> Path:
    header = json.dumps({"W_dec": _entry([1 << 20, 1 << 14], [0, 64])}).encode()
    return _safetensors(folder, header, bytes(64))


def safetensors_lying_offsets(folder: Path) -> Path:
    header = json.dumps({"W_dec": _entry([1 << 20, 1 << 14], [0, 1 << 36])}).encode()
    return _safetensors(folder, header, bytes(64))


def safetensors_negative(folder: Path) -> Path:
    header = json.dumps({"W_dec": _entry([-4, -4], [0, 64])}).encode()
    return _safetensors(folder, header, bytes(64))


def safetensors_twice(folder: Path) -> Path:
    entry = json.dumps(_entry([4, 4], [0, 64]))
    return _safetensors(folder, f'{{"W_dec":{entry},"W_dec":{entry}}}'.encode(), bytes(64))


def safetensors_long_header(folder: Path) -> Path:
    file = folder / "sae.safetensors"
    file.write_bytes(struct.pack("<Q", 1 << 60) + b"{}")
    return file


def safetensors_deep(folder: Path) -> Path:
    return _safetensors(folder, b"[" * 100_000, b"")


def safetensors_overlap(folder: Path) -> Path:
    header = {f"W_{n}": _entry([4, 4], [0, 64]) for n in range(3)}
    return _safetensors(folder, json.dumps(header).encode(), bytes(64))


def safetensors_brackets(folder: Path) -> Path:
    """A header of the size that the format allows: 95 MB of lists."""
    file = folder / "sae.safetensors"
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", 95_000_000))
        stream.truncate(8 + 95_000_000)
    return file


def safetensors_lists(folder: Path) -> Path:
    return _safetensors(folder, b'{"W_dec":[' + b"[]," * 5_000_000, b"")


def safetensors_many(folder: Path) -> Path:
    header = {f"W_{n}": _entry([0], [0, 0]) for n in range(10_001)}
    return _safetensors(folder, json.dumps(header).encode(), b"")


def safetensors_wide(folder: Path) -> Path:
    header = {"W_dec": _entry([1 << 70, 0], [0, 0])}
    return _safetensors(folder, json.dumps(header).encode(), b"")


def npz_vectors(folder: Path) -> Path:
    """Three vectors of 400 MB in 1.2 MB; each alone would be believed."""
    data = deflated(npy((100 << 20,)), 400)
    long = [
        Member(name, data, 8, (400 << 20) + 128)
        for name in (b"b_enc.npy", b"threshold.npy", b"b_dec.npy")
    ]
    rows = npy((64, 16), data=ROWS.tobytes())
    return write_zip(folder / "params.npz", [Member(b"W_dec.npy", rows), *long])


def npz_short(folder: Path) -> Path:
    """A member that promises 400 MB and holds 1 MB."""
    header = npy((100 << 14, 1 << 6))
    packer = zlib.compressobj(wbits=-15)
    data = packer.compress(header + bytes(1 << 20)) + packer.flush()
    member = Member(b"W_dec.npy", data, 8, len(header) + (400 << 20))
    return write_zip(folder / "params.npz", [member])


def npz_long_header(folder: Path) -> Path:
    """An array's header of 512 MB."""
    data = deflated(npy_header(b"", b"\x02\x00", 512 << 20), 512)
    return write_zip(folder / "a.npz", [Member(b"W_dec.npy", data, 8, 513 << 20)])


def _npz_of(folder: Path, **fields: Any) -> Path:
    member = Member(b"W_dec.npy", npy((64, 16), data=ROWS.tobytes()))._replace(**fields)
    return write_zip(folder / "params.npz", [member])


def npz_twice(folder: Path) -> Path:
    member = Member(b"W_dec.npy", npy((64, 16), data=ROWS.tobytes()))
    return write_zip(folder / "params.npz", [member, member])


def npz_lzma(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.npz", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("W_dec.npy", npy((64, 16), data=ROWS.tobytes()))
    return folder / "a.npz"


def npz_bzip2(folder: Path) -> Path:
    """64 MB in 150 bytes: bzip2 packs without bound, and cannot be unpacked in small pieces."""
    data = bz2.compress(npy((1 << 20, 16), data=bytes(64 << 20)))
    return _npz_of(folder, data=data, method=12, size=(64 << 20) + 128)


def npz_deflate64(folder: Path) -> Path:
    return _npz_of(folder, method=9)


def npz_encrypted(folder: Path) -> Path:
    return _npz_of(folder, flags=1)


def npz_name(folder: Path) -> Path:
    """A name that says that it is UTF-8, and is not."""
    return _npz_of(folder, name=b"W_dec\xff.npy", flags=0x800)


def npz_members(folder: Path) -> Path:
    return write_zip(folder / "a.npz", [Member(b"%d.npy" % n, b"") for n in range(10_001)])


def npz_directory(folder: Path) -> Path:
    """A directory of 6 MB."""
    names = (b"%0600d.npy" % n for n in range(10_000))
    return write_zip(folder / "a.npz", [Member(name, b"") for name in names])


def npz_elsewhere(folder: Path) -> Path:
    """A directory that points to where no member is."""
    file = _npz_of(folder)
    data = bytearray(file.read_bytes())
    at = data.index(b"PK\x01\x02") + 42
    data[at : at + 4] = struct.pack("<I", 200)
    file.write_bytes(bytes(data))
    return file


def npz_end_record(folder: Path) -> Path:
    """An end record that claims a directory of 4 GB."""
    file = _npz_of(folder)
    data = bytearray(file.read_bytes())
    at = data.index(b"PK\x05\x06") + 12
    data[at : at + 8] = b"\xfe\xff\xff\xff" * 2
    file.write_bytes(bytes(data))
    return file


def _npy(folder: Path, data: bytes) -> Path:
    (folder / "a.npy").write_bytes(data)
    return folder / "a.npy"


def npy_overflow(folder: Path) -> Path:
    """A shape whose product is zero in 64 bits."""
    return _npy(folder, npy((1 << 62, 1 << 62), data=bytes(64)))


def npy_negative(folder: Path) -> Path:
    text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (-4, -4), }"
    return _npy(folder, npy_header(text) + bytes(64))


def npy_wide(folder: Path) -> Path:
    return _npy(folder, npy((1 << 50, 0)))


def npy_records(folder: Path) -> Path:
    """Records of two bytes, the size of a bfloat16."""
    return _npy(folder, npy((4, 4), [("a", "u1"), ("b", "u1")], bytes(32)))


def npy_arrays(folder: Path) -> Path:
    text = b"{'descr': ('<f4', (2, 2)), 'fortran_order': False, 'shape': (4, 4), }"
    return _npy(folder, npy_header(text) + bytes(256))


def npy_dates(folder: Path) -> Path:
    return _npy(folder, npy((4, 4), "<M8[s]", bytes(128)))


def npy_strings(folder: Path) -> Path:
    return _npy(folder, npy((4, 4), "<U3", bytes(192)))


def npy_nested(folder: Path) -> Path:
    return _npy(folder, npy_header(b"(" * 9000))


def npy_minus(folder: Path) -> Path:
    return _npy(folder, npy_header(b"{'descr': " + b"-" * 9000 + b"1}"))


def npy_version(folder: Path) -> Path:
    return _npy(folder, npy_header(b"{}", b"\x09\x00"))


def npy_fifo(folder: Path) -> Path:
    os.mkfifo(folder / "a.npy")
    return folder / "a.npy"


def npy_socket(folder: Path) -> Path:
    with socket.socket(socket.AF_UNIX) as listening:
        here = Path.cwd()
        os.chdir(folder)  # the names of sockets are short
        listening.bind("a.npy")
        os.chdir(here)
    return folder / "a.npy"


def npy_loop(folder: Path) -> Path:
    (folder / "a.npy").symlink_to(folder / "a.npy")
    return folder / "a.npy"


def pt_shared(folder: Path) -> Path:
    """Dictionaries that hold another one twice, 40 deep: 2**40 entries."""
    content: dict[str, Any] = {"a": 1}
    for _ in range(40):
        content = {"a": content, "b": content}
    torch.save(content, folder / "a.pt")
    return folder / "a.pt"


def pt_cyclic(folder: Path) -> Path:
    content: dict[str, Any] = {"W_dec": torch.from_numpy(ROWS)}
    content["again"] = content
    torch.save(content, folder / "a.pt")
    return folder / "a.pt"


def pt_deep(folder: Path) -> Path:
    body = b"".join(b"}" + piece("a") for _ in range(100_000)) + b"K\x01" + b"s" * 100_000
    return torch_zip(folder / "a.pt", body)


def pt_expanded(folder: Path) -> Path:
    """One stored number that claims to be a terabyte."""
    torch.save({"W_dec": torch.ones(1).expand(1 << 28, 1 << 10)}, folder / "a.pt")
    return folder / "a.pt"


def pt_overlapping(folder: Path) -> Path:
    """Rows that begin one number after the other: 4 GB over 128 KB."""
    body = dictionary(("W_dec", tensor("0", (1 << 15, 1 << 15), (1, 1), numel=1 << 16)))
    return torch_zip(folder / "a.pt", body, {"0": bytes(1 << 18)})


def pt_lying_shape(folder: Path) -> Path:
    body = dictionary(("W_dec", tensor("0", (1 << 20, 1 << 14), (1 << 14, 1))))
    return torch_zip(folder / "a.pt", body, {"0": bytes(64)})


def pt_lying_offset(folder: Path) -> Path:
    body = dictionary(("W_dec", tensor("0", (4, 4), (4, 1), 1 << 40)))
    return torch_zip(folder / "a.pt", body, {"0": bytes(64)})


def pt_negative(folder: Path) -> Path:
    body = dictionary(("W_dec", tensor("0", (4, 4), (-4, 1), 12)))
    return torch_zip(folder / "a.pt", body, {"0": bytes(64)})


def pt_views(folder: Path) -> Path:
    """5,000 tensors over one storage."""
    entries = ((f"w{n}", tensor("0", (4, 4), (4, 1))) for n in range(5_000))
    return torch_zip(folder / "a.pt", dictionary(*entries), {"0": bytes(64)})


def pt_many(folder: Path) -> Path:
    entries = ((f"w{n}", tensor("0", (4, 4), (4, 1))) for n in range(10_002))
    return torch_zip(folder / "a.pt", dictionary(*entries), {"0": bytes(64)})


def pt_same_name(folder: Path) -> Path:
    inner = dictionary(("b", tensor("0", (4, 4), (4, 1))))
    body = dictionary(("a", inner), ("a.b", tensor("0", (4, 4), (4, 1))))
    return torch_zip(folder / "a.pt", body, {"0": bytes(64)})


def pt_long_name(folder: Path) -> Path:
    return torch_zip(folder / "a.pt", dictionary(("a" * 10_000_000, b"K\x01")))


def pt_instructions(folder: Path) -> Path:
    """16 MB of dictionaries, a byte each."""
    return torch_zip(folder / "a.pt", b"}" * 16_000_000)


def pt_large_pickle(folder: Path) -> Path:
    return torch_zip(folder / "a.pt", piece("a" * (17 << 20)))


def pt_compressed(folder: Path) -> Path:
    """data.pkl that unpacks to 512 MB."""
    member = Member(b"archive/data.pkl", deflated(b"", 512), 8, 512 << 20)
    return write_zip(folder / "a.pt", [member])


def pt_bytearray(folder: Path) -> Path:
    """A call that PyTorch allows: bytearray(8 GB)."""
    return torch_zip(folder / "a.pt", b"c__builtin__\nbytearray\n\x8a\x05\0\0\0\0\x02\x85R")


def pt_copies(folder: Path) -> Path:
    """Another one: 30,000 copies of a dictionary of 30,000 entries."""
    large = dictionary(*((f"{n}", b"N") for n in range(30_000))) + b"q\x01"
    copy = b"ccollections\nOrderedDict\nh\x01\x85R"
    return torch_zip(folder / "a.pt", b"(" + large + copy * 30_000 + b"t")


def pt_memo(folder: Path) -> Path:
    """A memo of four billion entries, of which the last is set."""
    return torch_zip(folder / "a.pt", b"}r\xff\xff\xff\xff")


def pt_collisions(folder: Path) -> Path:
    """Keys of one hash: a dictionary of them takes the square of its length."""
    keys = (n * ((1 << 61) - 1) for n in range(1, 50_000))
    body = b"}(" + b"".join(piece(key) + b"N" for key in keys) + b"u"
    return torch_zip(folder / "a.pt", body)


def pt_tuples(folder: Path) -> Path:
    """A key of 200,000 nested tuples, whose hash would recurse."""
    return torch_zip(folder / "a.pt", b"})" + b"\x85" * 200_000 + b"Ns")


def _pt_opcode(folder: Path, code: bytes) -> Path:
    return torch_legacy(folder / "a.pt", code)


def pt_long4(folder: Path) -> Path:
    return _pt_opcode(folder, b"\x8b\xff\xff\xff\x7f")


def pt_binbytes8(folder: Path) -> Path:
    return _pt_opcode(folder, b"\x8e" + struct.pack("<Q", 1 << 40))


def pt_binunicode8(folder: Path) -> Path:
    return _pt_opcode(folder, b"\x8d" + struct.pack("<Q", 1 << 40))


def pt_legacy_lies(folder: Path) -> Path:
    """A storage that claims a terabyte, in the form before PyTorch 1.6."""
    file = torch_legacy(folder / "a.pt", tensor("0", (4, 4), (4, 1)), {"0": bytes(64)})
    data = file.read_bytes()
    file.write_bytes(data[: -64 - 8] + struct.pack("<q", 1 << 38) + data[-64:])
    return file


def pt_legacy_keys(folder: Path) -> Path:
    return torch_legacy(folder / "a.pt", tensor("0", (4, 4), (4, 1)), {"1": bytes(64)})


def pt_no_storage(folder: Path) -> Path:
    return torch_zip(folder / "a.pt", tensor("0", (4, 4), (4, 1)))


def pt_big_endian(folder: Path) -> Path:
    members = [Member(b"archive/data.pkl", b"\x80\x02}."), Member(b"archive/byteorder", b"big")]
    return write_zip(folder / "a.pt", members)


def nothing(folder: Path) -> Path:
    (folder / "empty.npz").touch()
    return folder / "empty.npz"


MAKERS = {
    npz_truncated: "truncated", npz_flipped: "damaged", npz_objects: "Python objects",
    npz_bomb: "refused", npy_huge: "truncated", npy_text: "not an .npy array",
    pt_code: "Python objects", pt_raw_pickle: "Python objects", pt_truncated: "truncated",
    pt_empty: "no tensors", safetensors_lying_shape: "lies",
    safetensors_lying_offsets: "truncated", safetensors_negative: "bad safetensors",
    safetensors_twice: "same key twice", safetensors_long_header: "truncated",
    safetensors_deep: "nested more than 64", nothing: "empty",
    safetensors_overlap: "truncated", safetensors_brackets: "not a safetensors",
    safetensors_lists: "more than 1,000,000 values", safetensors_many: "more than 10,000 tensors",
    safetensors_wide: "empty",
    npz_vectors: "claim to unpack", npz_short: "damaged", npz_long_header: "not an .npy",
    npz_twice: "same name", npz_lzma: "method 14", npz_bzip2: "method 12",
    npz_deflate64: "method 9", npz_encrypted: "encrypted", npz_name: "damaged",
    npz_members: "more than 10,000", npz_directory: "too long", npz_elsewhere: "damaged",
    npz_end_record: "damaged",
    npy_overflow: "truncated", npy_negative: "not an .npy", npy_wide: "empty",
    npy_records: "dtype", npy_arrays: "dtype", npy_dates: "dtype", npy_strings: "dtype",
    npy_nested: "not an .npy", npy_minus: "not an .npy", npy_version: "not an .npy",
    npy_fifo: "a FIFO, not a file", npy_socket: "a socket, not a file",
    npy_loop: "no such file",
    pt_shared: "more entries", pt_cyclic: "nested more than 64", pt_deep: "nested more than 64",
    pt_expanded: "an expanded tensor", pt_overlapping: "an expanded tensor",
    pt_lying_shape: "truncated", pt_lying_offset: "truncated", pt_negative: "damaged",
    pt_views: "no obvious decoder", pt_many: "more entries", pt_same_name: "two tensors",
    pt_long_name: "a name of 10,000,000", pt_instructions: "more than 500,000 instructions",
    pt_large_pickle: "its pickle has", pt_compressed: "a compressed PyTorch file",
    pt_bytearray: "no tensors", pt_copies: "no tensors",
    pt_memo: "no tensors", pt_collisions: "no tensors", pt_tuples: "no tensors",
    pt_long4: "damaged", pt_binbytes8: "damaged", pt_binunicode8: "damaged",
    pt_legacy_lies: "truncated", pt_legacy_keys: "damaged", pt_no_storage: "damaged",
    pt_big_endian: "big-endian",
}  # fmt: skip
"""Each program, and what the error must say."""
