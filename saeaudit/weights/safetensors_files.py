"""``.safetensors``: a JSON header that is checked, and tensors that are mapped."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from saeaudit.errors import AuditError, WeightsError
from saeaudit.untrusted import parse_json
from saeaudit.weights.dtypes import BOOL, Dtype
from saeaudit.weights.dtypes import DTYPES as BY_NAME
from saeaudit.weights.limits import Limits
from saeaudit.weights.stored import Read, Stored, check_size, mapped

if TYPE_CHECKING:
    from torch import Tensor

DTYPES = {
    "F64": BY_NAME["float64"], "F32": BY_NAME["float32"], "F16": BY_NAME["float16"],
    "BF16": BY_NAME["bfloat16"], "I64": BY_NAME["int64"], "I32": BY_NAME["int32"],
    "I16": BY_NAME["int16"], "I8": BY_NAME["int8"], "U8": BY_NAME["uint8"], "BOOL": BOOL,
}  # fmt: skip


class Header(NamedTuple):
    """What a file begins with."""

    entries: dict[str, Any]
    """By tensor, as JSON has them."""
    metadata: dict[str, Any]
    length: int
    """Bytes before those of the tensors."""


class Entry(NamedTuple):
    """Where a tensor lies, and what it is."""

    name: str
    """Of its element type."""
    dtype: Dtype | None
    """None where the element type is not known here."""
    shape: tuple[int, ...]
    begin: int
    """Bytes from the header's end."""
    end: int
    """As `begin`: the first byte behind it."""


def read_safetensors(path: Path, limits: Limits) -> Read:
    """The tensors of a file by name, and its metadata.

    Raises:
        WeightsError: no such file, truncated, or with a header that lies.
    """
    where = str(path)
    total = path.stat().st_size
    with path.open("rb") as stream:
        header = read_header(stream, total, limits.header, where)
    if len(header.entries) > limits.tensors:
        raise WeightsError(f"more than {limits.tensors:,} tensors", where=where)
    tensors = {
        name: _tensor(path, f"{where}[{name}]", entry, header.length, total)
        for name, entry in header.entries.items()
    }
    spans = (entry["data_offsets"] for entry in header.entries.values())
    present = total - header.length
    check_size(sum(end - begin for begin, end in spans), present, where)  # no overlaps
    return tensors, header.metadata


def read_header(stream: IO[bytes] | io.RawIOBase, total: int, limit: int, where: str) -> Header:
    """Read the header that a file begins with; its entries are still unchecked.

    Args:
        stream: the file, at its start.
        total: bytes of the whole file.
        limit: most bytes of the header.
        where: the file, for messages.

    Raises:
        WeightsError: truncated, or not such a header.
    """
    length = int.from_bytes(stream.read(8), "little")
    if total < 8 or length > min(total - 8, limit):
        raise WeightsError(
            "not a safetensors file, or a truncated one", where=where, hint="fetch it again"
        )
    try:
        entries = parse_json(stream.read(length), where, limit=length)
    except AuditError as error:
        raise WeightsError(f"bad safetensors header: {error.what}", where=where) from error
    if not isinstance(entries, dict):
        raise WeightsError("bad safetensors header: not an object", where=where)
    metadata = entries.pop("__metadata__", None)
    return Header(entries, metadata if isinstance(metadata, dict) else {}, 8 + length)


def parse_entry(value: Any, where: str = "") -> Entry:
    """One tensor's entry in a header.

    Raises:
        WeightsError: another kind of value, or numbers that are negative or not whole.
    """
    try:
        shape, (begin, end) = tuple(value["shape"]), value["data_offsets"]
        if not all(type(n) is int and n >= 0 for n in (*shape, begin, end)):
            raise ValueError
        return Entry(value["dtype"], DTYPES.get(value["dtype"]), shape, begin, end)
    except (KeyError, TypeError, ValueError) as error:
        raise WeightsError("bad safetensors header entry", where=where) from error


def _tensor(path: Path, where: str, value: Any, base: int, total: int) -> Stored:
    entry = parse_entry(value, where)
    dtype, shape = entry.dtype, entry.shape
    if dtype is None:  # an 8-bit float or the like: present, never a decoder
        return Stored(shape, BOOL, lambda: mapped(path, 0, 0, BOOL))
    count = math.prod(shape)
    size = count * dtype.itemsize
    if entry.end - entry.begin != size:
        raise WeightsError(
            f"safetensors header lies: {list(shape)} {entry.name} needs {size:,} bytes, "
            f"the offsets span {entry.end - entry.begin:,}",
            where=where,
        )
    check_size(base + entry.end, total, where)

    def load() -> Tensor:
        return mapped(path, base + entry.begin, count, dtype).view(shape)

    return Stored(shape, dtype, load)
