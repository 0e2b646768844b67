"""A tensor in a file: what it is, where it lies, and how to get it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from saeaudit.errors import WeightsError
from saeaudit.weights.dtypes import Dtype

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Stored:
    """A tensor in a file: what it is, and how to get it."""

    shape: tuple[int, ...]
    dtype: Dtype
    load: Callable[[], Tensor]
    """Returns the tensor, mapped where the file allows."""
    is_mapped: bool = True
    """Whether it does; else each load reads and unpacks the whole tensor."""


Tensors = Mapping[str, Stored]
Read = tuple[dict[str, Stored], dict[str, Any]]
"""What a reader of one kind of file returns: tensors by name, and other scalars."""


@dataclass(frozen=True)
class Contents:
    """What a file holds: its header, parsed and checked; no tensor is loaded."""

    tensors: Tensors
    """By name."""
    scalars: Mapping[str, Any]
    """Numbers and texts beside them (`k`, metadata), by name."""
    state: FileState
    """Of the file when it was parsed."""

    def is_of(self, file: Path) -> bool:
        """Whether the file is still the one that was parsed.

        Raises:
            OSError: it is not there any more.
        """
        return FileState.of(file.stat()) == self.state


class FileState(NamedTuple):
    """What changes where a file is written anew or replaced."""

    inode: int
    size: int
    """Bytes."""
    modified: int
    """Nanoseconds."""

    @classmethod
    def of(cls, status: os.stat_result) -> FileState:
        """The state that a file's status tells."""
        return cls(status.st_ino, status.st_size, status.st_mtime_ns)


def check_size(claimed: int, present: int, where: str) -> None:
    """Refuse a header that promises more than is there.

    Raises:
        WeightsError: it does.
    """
    if claimed > present:
        raise WeightsError(
            f"truncated: the header promises {claimed:,} bytes of data, {max(present, 0):,} are "
            "there",
            where=where,
            hint="fetch the file again",
        )


def over(array: np.ndarray[Any, Any]) -> Tensor:
    """A tensor over the array's memory, without torch's warning that it is read-only."""
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.from_numpy(array)


def mapped(path: Path, offset: int, count: int, dtype: Dtype) -> Tensor:
    """Map `count` elements of a file, ``[count]``, read-only: writing would end the process.

    (A private writable mapping looks safer, but some kernels copy its pages as they are read.)
    """
    import torch

    if count == 0:
        return torch.empty(0, dtype=dtype.in_torch())
    data = np.memmap(path, np.uint8, "r", offset, (count * dtype.itemsize,))
    return over(np.asarray(data)).view(dtype.in_torch())
