"""Activations in Arrow files, such as SAELens caches, and in Parquet, by pyarrow.

A column holds lists of floats, ``[d]`` a row, or lists of such lists, ``[tokens, d]`` a row: then a
row is a document. What an Arrow file does not compress stays where it is, and only its place is
taken from pyarrow; all else is unpacked into memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from saeaudit.errors import AuditError
from saeaudit.sources.paths import PARQUET
from saeaudit.weights.dtypes import DTYPES, Dtype
from saeaudit.weights.stored import Stored, mapped

if TYPE_CHECKING:
    from pyarrow import Array, DataType, RecordBatch, Schema

UNPACKED = 8 << 30
"""Bytes of activations that are unpacked into memory."""
ROWS = 64
"""Rows unpacked at once: each may hold the tokens of a document."""
FILE_FORMAT = b"ARROW1"
"""What an Arrow file begins with that is not a stream."""
FLOAT_TYPES = {"halffloat": "float16", "float": "float32", "double": "float64"}
"""Names of element types, by those that Arrow gives them."""


class Column(NamedTuple):
    """Some rows of a column of activations."""

    stored: Stored
    """``[n, d]``."""
    lengths: Tensor | None
    """``[rows]`` int64: activations of each row; None where a row is an activation."""


class _Values(NamedTuple):
    """The numbers in some rows."""

    flat: Array
    """All of them."""
    width: int
    lengths: Tensor | None

    @property
    def shape(self) -> tuple[int, int]:
        return len(self.flat) // max(self.width, 1), self.width


def read_columns(path: Path) -> list[Column]:
    """The activations of an .arrow or .parquet file, in pieces of whole rows.

    Taken is the column named ``activations``, else the only one of lists of floats.

    Raises:
        AuditError: pyarrow is not there; the file is damaged, has no such column or several, rows
            of different widths, or more than can be unpacked.
    """
    try:
        import pyarrow
    except ImportError as error:
        raise AuditError(
            "reading it needs pyarrow", where=str(path), hint="pip install 'saeaudit[arrow]'"
        ) from error
    try:
        return list(_parquet(path) if path.suffix.lower() == PARQUET else _arrow(path))
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        line = str(error).strip().split("\n")[0]
        raise AuditError(f"cannot be read: {line}", where=str(path)) from error


def _arrow(path: Path) -> Iterator[Column]:
    import pyarrow

    unpacked = 0
    with pyarrow.memory_map(str(path)) as source:
        data = source.read_buffer(source.size())
        is_file = data[: len(FILE_FORMAT)].to_pybytes() == FILE_FORMAT
        opened = pyarrow.ipc.open_file(data) if is_file else pyarrow.ipc.open_stream(data)
        name, dtype = _find(opened.schema, path)
        for batch in _batches(opened):
            batch.validate(full=True)  # offsets of a stranger's lists may lead anywhere
            values = _values(batch.column(name), path)
            buffer = values.flat.buffers()[1]
            place = buffer.address - data.address if buffer else 0
            if 0 <= place <= data.size:
                place += values.flat.offset * dtype.itemsize
                yield Column(_placed(path, place, values.shape, dtype), values.lengths)
            else:
                unpacked += len(values.flat) * dtype.itemsize
                _check_unpacked(unpacked, path)
                yield _in_memory(values, dtype)


def _batches(opened: Any) -> Iterator[RecordBatch]:
    count = getattr(opened, "num_record_batches", None)  # of a file; a stream does not know
    return iter(opened) if count is None else map(opened.get_batch, range(count))


def _parquet(path: Path) -> Iterator[Column]:
    from pyarrow.parquet import ParquetFile

    unpacked = 0
    with ParquetFile(path) as table:
        name, dtype = _find(table.schema_arrow, path)
        # The counts of its column chunks are not asked for: pyarrow ends the process on bad ones.
        for batch in table.iter_batches(ROWS, columns=[name]):
            values = _values(batch.column(name), path)
            unpacked += len(values.flat) * dtype.itemsize
            _check_unpacked(unpacked, path)
            yield _in_memory(values, dtype)


def _find(schema: Schema, path: Path) -> tuple[str, Dtype]:
    """Name and element type of the column of activations."""
    columns = {}
    for field in schema:
        depth, inner = 0, _plain(field.type)
        while _is_list(inner):
            depth, inner = depth + 1, inner.value_type
        if depth in (1, 2) and str(inner) in FLOAT_TYPES:
            columns[field.name] = DTYPES[FLOAT_TYPES[str(inner)]]
    name = "activations" if "activations" in columns else next(iter(columns), "")
    if not columns or (name != "activations" and len(columns) > 1):
        raise AuditError(
            "has several columns of activations" if columns else "has no column of activations",
            where=str(path),
            hint="lists of floats [d] or [tokens, d], or several columns of which one is named "
            "'activations'",
        )
    return name, columns[name]


def _plain(kind: DataType) -> DataType:
    """What an extension, such as `datasets` has for matrices, is kept as."""
    return getattr(kind, "storage_type", kind)


def _is_list(kind: DataType) -> bool:
    from pyarrow import types

    tests = types.is_list, types.is_large_list, types.is_fixed_size_list
    return any(test(kind) for test in tests)


def _values(array: Array, path: Path) -> _Values:
    """Take lists apart."""
    from pyarrow.compute import list_value_length

    lengths = []
    array = getattr(array, "storage", array)
    while _is_list(array.type):
        if array.null_count:
            raise AuditError("has rows without activations", where=str(path))
        lengths.append(torch.tensor(list_value_length(array).to_numpy(zero_copy_only=False)).long())
        array = array.flatten()
    if array.null_count:
        raise AuditError("has activations with empty places", where=str(path))
    widths = torch.unique(lengths[-1]).tolist()
    if len(widths) > 1:
        raise AuditError(f"has activations of widths {widths[0]} and {widths[1]}", where=str(path))
    return _Values(array, widths[0] if widths else 0, lengths[0] if len(lengths) == 2 else None)


def _placed(path: Path, place: int, shape: tuple[int, int], dtype: Dtype) -> Stored:
    return Stored(shape, dtype, lambda: mapped(path, place, shape[0] * shape[1], dtype).view(shape))


def _in_memory(values: _Values, dtype: Dtype) -> Column:
    matrix = torch.tensor(values.flat.to_numpy(zero_copy_only=False)).view(values.shape)
    return Column(Stored(values.shape, dtype, lambda: matrix), values.lengths)


def _check_unpacked(size: int, path: Path) -> None:
    if size > UNPACKED:
        raise AuditError(
            f"unpacks to more than {UNPACKED >> 30} GiB",
            where=str(path),
            hint="as .npy or .safetensors it need not be unpacked",
        )
