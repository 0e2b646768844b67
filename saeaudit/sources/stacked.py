"""Activations that are read when they are asked for, from one file or many.

A mapping counts as resident memory for every page that was touched, so none is kept: a file is
mapped for as long as rows are copied out of it. What has to be unpacked is, once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from saeaudit.errors import AuditError
from saeaudit.weights.stored import Stored


class Activations(Protocol):
    """``[N, d]`` of any float dtype: a tensor, or what can be asked for rows as one can."""

    @property
    def shape(self) -> tuple[int, ...]:
        """``(N, d)``."""

    @property
    def dtype(self) -> torch.dtype:
        """Of each activation."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        """Rows ``[m]`` int64 on the processor, or a slice, as a tensor ``[m, d]``."""


class Part(NamedTuple):
    """A matrix in a file."""

    stored: Stored
    """``[n, d]``, or ``[documents, tokens, d]``."""
    where: str
    """The file, for messages."""

    @property
    def rows(self) -> int:
        """How many there are."""
        return math.prod(self.stored.shape[:-1])


class Stacked:
    """Matrices of one width and dtype, one behind the other.

    >>> from saeaudit.weights.dtypes import DTYPES
    >>> rows = torch.tensor([[1.0], [2.0]])
    >>> part = Part(Stored((2, 1), DTYPES["float32"], lambda: rows), "a.npy")
    >>> Stacked([part, part])[torch.tensor([3, 0])]
    tensor([[2.],
            [1.]])
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        """Take the parts in their order; none is read.

        Raises:
            AuditError: they differ in width or dtype.
        """
        first = parts[0].stored
        for part in parts:
            if (part.stored.shape[-1], part.stored.dtype) != (first.shape[-1], first.dtype):
                raise AuditError(
                    f"{part.stored.dtype.name} of width {part.stored.shape[-1]}; "
                    f"{parts[0].where} has {first.dtype.name} of width {first.shape[-1]}",
                    where=part.where,
                )
        self._loads = [
            part.stored.load if part.stored.is_mapped else cache(part.stored.load) for part in parts
        ]
        self._ends = torch.tensor([part.rows for part in parts]).cumsum(0)
        self.shape = (int(self._ends[-1]), first.shape[-1])
        self.dtype = first.dtype.in_torch()

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor:
        if isinstance(rows, slice):
            rows = torch.arange(*rows.indices(len(self)))
        place = torch.searchsorted(self._ends, rows, right=True)
        out = torch.empty(len(rows), self.shape[1], dtype=self.dtype)
        for number in torch.unique(place).tolist():
            asked = (place == number).nonzero().squeeze(1)
            start = int(self._ends[number - 1]) if number else 0
            out[asked] = _rows(self._loads[number](), rows[asked] - start)
        return out


def _rows(matrix: Tensor, rows: Tensor) -> Tensor:
    """Rows of a mapped ``[n, d]`` or ``[documents, tokens, d]``, copied."""
    if matrix.dim() == 2:
        return matrix[rows]
    return matrix[rows // matrix.shape[1], rows % matrix.shape[1]]
