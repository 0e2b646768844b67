"""Weight files of every format, and SAE folders of every family."""

from __future__ import annotations

import io
import json
import random
import tempfile
import zipfile
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from saeaudit.audit.codes import make_encoder
from saeaudit.audit.open import open_layers
from saeaudit.sources.target import resolve
from tests.fuzz import pickles, zips
from tests.fuzz.engine import Case, read_case
from tests.fuzz.mutate import chance, mutate_bytes, mutate_json, nearby, packed
from tests.weights.layouts import LAYOUTS

ROWS = np.random.default_rng(3).normal(size=(12, 5)).astype(np.float32)
DESCRIPTIONS = (
    "'<f4'", "'>f4'", "'<f2'", "'<f8'", "'|V2'", "'|V0'", "'<i8'", "'|b1'", "'|O'", "'<U4'",
    "'|S0'", "'<M8[s]'", "'<c8'", "'<f16'", "'|V1000000000'", "[('a','<f4')]", "[('a','|O')]",
    "('<f4',(2,))", "'f4,f4'", "[]", "''", "None", "{}", "'<f4'*99", "'not a type'",
    "('<f4', (1000000000, 1000000000))", "[" * 200 + "]" * 200, "'|V9223372036854775807'",
)  # fmt: skip
SHAPES = (
    "(12, 5)", "(12,)", "()", "(0, 5)", "(-1, 5)", "(12, 5, 1)", "[12, 5]", "(True, 5)",
    "(4294967296, 4294967296)", "(9223372036854775807, 2)", "(1" + "0" * 30 + ",)", "(12.0, 5)",
    "(1,)*99", "(" + "1," * 70 + ")", "(12, -5)", "None", "'x'", "(3000000, 5)", "(2, 5)",
)  # fmt: skip
NO_HEADERS = ("{}", "x" * 70_000, "(" * 5000, "9" * 5000, "-" * 3000 + "1", "{'a':" * 500, "1**9")


class FileTarget(NamedTuple):
    """A weight file that is opened as `scan` and `mediators` open it."""

    name: str
    file: str
    content: Callable[[random.Random], bytes]

    def make(self, rng: random.Random) -> Case:
        return {self.file: self.content(rng)}

    def run(self, folder: Path) -> None:
        open_all(folder / self.file)
        open_all(folder)  # what merely lies in a folder


class FolderTarget(NamedTuple):
    """An SAE's folder of any family, its configuration and weights changed."""

    name: str = "folders"

    def make(self, rng: random.Random) -> Case:
        files = dict(rng.choice(_layouts()))
        name = rng.choice(sorted(files))
        if chance(rng, 0.1):
            del files[name]
        elif name.endswith(".json"):
            files[name] = mutate_json(rng, json.loads(files[name])).encode("utf-8", "surrogatepass")
        elif name.endswith(".safetensors"):
            files[name] = mutate_safetensors(rng, files[name])
        elif name.endswith((".pt", ".pth")):
            files[name] = pt_zip(rng)
        else:
            files[name] = mutate_bytes(rng, files[name])
        return files

    def run(self, folder: Path) -> None:
        open_all(folder)


def open_all(target: Path) -> None:
    """Open every SAE in a file or folder, its encoder as well, and encode an activation."""
    for local in resolve(str(target), offline=True):
        for dictionary in open_layers(local):
            if dictionary.encoder is not None:
                encoder = make_encoder(dictionary, device="cpu", dtype=torch.float32)
                encoder.codes(torch.ones(2, dictionary.encoder.shape[0]))


# --- numpy --------------------------------------------------------------------------------------


def npy(rng: random.Random) -> bytes:
    """An array whose header may say anything."""
    description, shape, fortran = "'<f4'", "(12, 5)", "False"
    kind = rng.randrange(6)
    if kind in (0, 3):
        description = rng.choice(DESCRIPTIONS)
    if kind in (1, 3):
        shape = rng.choice(SHAPES)
    if kind == 2:
        fortran = rng.choice(("True", "1", "None", "'x'", "[]"))
    text = f"{{'descr': {description}, 'fortran_order': {fortran}, 'shape': {shape}, }}"
    if kind == 4:
        more, twice = text.replace("}", ", 'more': 1}"), text.replace("descr", "shape")
        text = rng.choice((text[:-3], more, twice, *NO_HEADERS))
    data = npy_bytes(text, ROWS.tobytes(), version=rng.choice((1, 1, 1, 2, 3, 4, 0)))
    return mutate_bytes(rng, data) if kind == 5 or chance(rng, 0.1) else data


def npy_bytes(header: str, data: bytes, *, version: int = 1) -> bytes:
    """An .npy file with this header."""
    text = header.encode("utf-8", "surrogatepass")
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return (
        b"\x93NUMPY"
        + bytes([version, 0])
        + packed(len(text), 2 if version == 1 else 4)
        + text
        + data
    )


def npz(rng: random.Random) -> bytes:
    """An archive of arrays: its fields lie, its members are odd, its checksums are right."""
    names = [b"W_dec.npy", b"W_enc.npy", b"b_enc.npy", b"b_dec.npy", b"threshold.npy"]
    arrays = [
        ROWS,
        np.ascontiguousarray(ROWS.T),
        ROWS[:, 0].copy(),
        ROWS[0].copy(),
        ROWS[:, 1].copy(),
    ]
    members = []
    for name, array in zip(names, arrays, strict=True):
        stream = io.BytesIO()
        np.save(stream, array)
        data = npy(rng) if chance(rng, 0.1) else stream.getvalue()
        members.append(zips.Member(name, data))
    if chance(rng, 0.01):
        members += [replace(m, local=dict(m.local), central=dict(m.central)) for m in _bombs()]
    return zips.mutate_members(rng, members)


@cache
def _bombs() -> tuple[zips.Member, ...]:
    """Vectors of 600 MB each: one is within a limit of 1 GB, three are not."""
    head = npy_bytes("{'descr': '<f4', 'fortran_order': False, 'shape': (157286400,)}", b"")
    names = (b"b_enc.npy", b"b_dec.npy", b"threshold.npy")
    return tuple(zips.bomb(name, head, 600) for name in names)


# --- safetensors --------------------------------------------------------------------------------


def safetensors(rng: random.Random) -> bytes:
    """A file of a decoder, an encoder and vectors, with a changed header."""
    sizes = {"W_dec": [12, 5], "W_enc": [5, 12], "b_enc": [12], "b_dec": [5], "threshold": [12]}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    place = 0
    for name, shape in sizes.items():
        size = 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    return mutate_safetensors(rng, safetensors_bytes(json.dumps(header), bytes(range(256)) * 4))


def safetensors_bytes(header: str, data: bytes, *, length: int | None = None) -> bytes:
    """A file with this header, which may claim another length."""
    text = header.encode("utf-8", "surrogatepass")
    return packed(len(text) if length is None else length, 8) + text + data


def mutate_safetensors(rng: random.Random, data: bytes) -> bytes:
    """Change a file's header value by value, its length, or bytes anywhere."""
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    if chance(rng, 0.2):
        entry = header[rng.choice(sorted(set(header) - {"__metadata__"}))]
        entry["dtype"] = rng.choice(("F64", "F16", "BF16", "F8_E4M3", "I64", "U64", "BOOL", "F4"))
        entry["shape"] = rng.choice(
            ([1 << 40, 1 << 40], [0], [], [1 << 62, 4], [0, 1 << 63], [1] * 70)
        )
    text = mutate_json(rng, header)
    claimed = nearby(rng, len(text.encode("utf-8", "replace"))) if chance(rng, 0.1) else None
    out = safetensors_bytes(text, data[8 + length :], length=claimed)
    return mutate_bytes(rng, out) if chance(rng, 0.1) else out


# --- torch --------------------------------------------------------------------------------------


@cache
def _state_pickles() -> tuple[bytes, ...]:
    """What torch.save writes of some states."""
    rows = torch.from_numpy(ROWS)
    states: tuple[Any, ...] = (
        {"W_dec": rows, "W_enc": rows.T, "b_enc": rows[:, 0], "b_dec": rows[0], "k": 3},
        {"state_dict": {"decoder.weight": rows.T, "encoder.weight": rows, "k": torch.tensor(3)}},
        {"cfg": {"k": 3, "name": "x"}, "W_dec": torch.nn.Parameter(rows), "list": [rows, (1, 2.5)]},
        {"W_dec": rows.to_sparse(), "meta": rows.to("meta"), "half": rows.half()},
    )
    out = []
    for state in states:
        stream = io.BytesIO()
        torch.save(state, stream)
        stream.seek(0)
        with zipfile.ZipFile(stream) as archive:
            out.append(archive.read("archive/data.pkl"))
    return tuple(out)


def _state(rng: random.Random) -> bytes:
    if chance(rng, 0.5):
        return pickles.mutate_pickle(rng, rng.choice(_state_pickles()), _state_pickles())
    if chance(rng, 0.1):
        return pickles.dump(pickles.bomb(rng))
    made = pickles.dump(pickles.random_state(rng))
    return pickles.mutate_pickle(rng, made, _state_pickles()) if chance(rng, 0.3) else made


def pt_zip(rng: random.Random) -> bytes:
    """torch.save's archive around a pickle of operations that were changed or made up."""
    storages = {f"archive/data/{n}".encode(): ROWS.tobytes() for n in range(4)}
    members = [zips.Member(b"archive/data.pkl", _state(rng))]
    members += [
        zips.Member(b"archive/byteorder", rng.choice((b"little", b"little", b"big", b"x", b"")))
    ]
    members += [zips.Member(name, data) for name, data in storages.items()]
    members += [
        zips.Member(b"archive/version", rng.choice((b"3\n", b"3\n", b"1\n", b"99\n", b"x")))
    ]
    if chance(rng, 0.7):
        return zips.archive(members)
    return zips.mutate_members(rng, members)


def pt_legacy(rng: random.Random) -> bytes:
    """The form before archives: pickles in a row, then the storages, each behind its length."""
    magic = pickles.dump(0x1950A86A20F9469CFC6C)
    system = pickles.dump(
        {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2}}
    )
    keys = pickles.dump([str(n) for n in range(rng.choice((0, 1, 3, 4)))])
    parts = [magic, pickles.dump(1001), system, _state(rng), keys]
    for n, part in enumerate(parts):
        if chance(rng, 0.05):
            parts[n] = pickles.mutate_pickle(rng, part, _state_pickles())
    for _ in range(4):
        count = nearby(rng, 60) if chance(rng, 0.1) else 60
        parts.append(packed(count, 8) + ROWS.tobytes())
    data = b"".join(parts)
    return mutate_bytes(rng, data) if chance(rng, 0.15) else data


# --- folders ------------------------------------------------------------------------------------


@cache
def _layouts() -> tuple[Case, ...]:
    made = []
    for make, *_ in LAYOUTS.values():
        with tempfile.TemporaryDirectory() as folder:
            make(Path(folder))
            made.append(read_case(Path(folder)))
    return tuple(made)


TARGETS = (
    FileTarget("npy", "decoder.npy", npy),
    FileTarget("npz", "params.npz", npz),
    FileTarget("safetensors", "sae.safetensors", safetensors),
    FileTarget("pt", "sae.pt", pt_zip),
    FileTarget("pt-legacy", "sae.pt", pt_legacy),
    FolderTarget(),
)
