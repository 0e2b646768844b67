"""Small programs that make files which are broken or mean harm; `test_hostile.py` opens them."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch

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
    file = folder / "params.npz"
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1 << 18, 1 << 10)}
    )
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("W_dec.npy", "w", force_zip64=True) as member:
            member.write(header.getvalue())
            for _ in range(64):
                member.write(bytes(16 << 20))
    return file


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
    safetensors_deep: "bad safetensors", nothing: "empty",
}  # fmt: skip
"""Each program, and what the error must say."""
