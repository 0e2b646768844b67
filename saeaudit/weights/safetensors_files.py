"""``.safetensors``: a JSON header that is checked, and tensors that are mapped."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saeaudit.errors import WeightsError
from saeaudit.untrusted import parse_json
from saeaudit.weights.limits import Limits
from saeaudit.weights.stored import Read, Stored, check_size, mapped

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def read_safetensors(path: Path, limits: Limits) -> Read:
    """The tensors of a file by name, and its metadata.

    Raises:
        WeightsError: no such file, truncated, or with a header that lies.
    """
    where = str(path)
    total = path.stat().st_size
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if total < 8 or length > min(total - 8, limits.header):
            raise WeightsError(
                "not a safetensors file, or a truncated one", where=where, hint="fetch it again"
            )
        header = parse_json(stream.read(length), where, limit=limits.header)
    if not isinstance(header, dict):
        raise WeightsError("bad safetensors header: not an object", where=where)
    metadata = header.pop("__metadata__", None)
    if len(header) > limits.tensors:
        raise WeightsError(f"more than {limits.tensors:,} tensors", where=where)
    tensors = {
        name: _tensor(path, f"{where}[{name}]", entry, 8 + length, total)
        for name, entry in header.items()
    }
    spans = (entry["data_offsets"] for entry in header.values())
    check_size(sum(end - begin for begin, end in spans), total - 8 - length, where)  # no overlaps
    return tensors, metadata if isinstance(metadata, dict) else {}


def _tensor(path: Path, where: str, entry: Any, base: int, total: int) -> Stored:
    try:
        dtype = DTYPES.get(entry["dtype"])
        shape = tuple(entry["shape"])
        begin, end = entry["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError("bad safetensors header entry", where=where) from error
    if dtype is None:  # an 8-bit float or the like: present, never a decoder
        return Stored(shape, torch.bool, lambda: torch.empty(0))
    count = math.prod(shape)
    size = count * dtype.itemsize
    if end - begin != size:
        raise WeightsError(
            f"safetensors header lies: {list(shape)} {entry['dtype']} needs {size:,} bytes, "
            f"the offsets span {end - begin:,}",
            where=where,
        )
    check_size(base + end, total, where)

    def load() -> Tensor:
        return mapped(path, base + begin, count, dtype).view(shape)

    return Stored(shape, dtype, load)
