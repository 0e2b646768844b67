"""Other encoders' codes of the same activations, from files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from saeaudit.errors import AuditError
from saeaudit.weights.dtypes import FLOATS, INTEGERS
from saeaudit.weights.stored import Stored
from saeaudit.weights.tensors import read_tensors

Rows = Callable[[Tensor], Tensor]
"""Rows of some activations ``[m]`` int64, read when asked for."""


def read_codes(path: Path, count: int, features: int) -> Rows:
    """Codes of `count` activations by another encoder, dense or sparse.

    A matrix ``codes`` [N, F] (or the only one), or ``indices`` and ``values`` [N, k], where a
    negative index is an empty place.

    Raises:
        AuditError: another shape. The returned function raises it for codes that are negative or
            not finite.
    """
    where = str(path)
    if not path.exists():
        raise AuditError("no such file", where=where)
    tensors = read_tensors(path).tensors
    if {"indices", "values"} <= tensors.keys():
        read = _sparse(tensors["indices"], tensors["values"], features, where)
        shape: tuple[int, ...] = (tensors["values"].shape[0], features)
    else:
        matrices = {n: t for n, t in tensors.items() if len(t.shape) == 2 and _is_real(t)}
        name = "codes" if "codes" in matrices else next(iter(matrices), "")
        if name not in matrices:
            raise AuditError("holds no matrix of codes", where=where, hint="codes [N, F]")
        dense, shape = matrices[name].load(), tuple(matrices[name].shape)

        def read(tokens: Tensor) -> Tensor:
            return dense[tokens].to(torch.float64)

    if shape != (count, features):
        raise AuditError(
            f"codes of shape {list(shape)} where [{count}, {features}] is needed", where=where
        )

    def checked(tokens: Tensor) -> Tensor:
        return check_codes(read(tokens), where, tokens)

    return checked


def check_codes(codes: Tensor, where: str, tokens: Tensor) -> Tensor:
    """Refuse codes ``[m, F]`` of some tokens ``[m]`` that are not codes.

    Raises:
        AuditError: negative or not finite.
    """
    bad = ~(codes >= 0) | codes.isinf()
    if bool(bad.any()):
        row, feature = bad.nonzero()[0].tolist()
        token, code = int(tokens[row]), float(codes[row, feature])
        raise AuditError(
            f"token {token}, feature {feature}: a code of {code:.4g}",
            where=where,
            hint="codes are finite and not negative",
        )
    return codes


def _sparse(indices: Stored, values: Stored, features: int, where: str) -> Rows:
    if indices.dtype not in INTEGERS or not _is_real(values):
        raise AuditError("indices must be whole numbers, and values real ones", where=where)
    index, value = indices.load(), values.load()
    if index.shape != value.shape or index.dim() != 2:
        raise AuditError("indices and values differ in shape", where=where)
    if index.numel() and int(index.max()) >= features:
        raise AuditError(
            f"names feature {int(index.max())} of {features}", where=where, hint="indices from 0"
        )

    def read(tokens: Tensor) -> Tensor:
        listed, kept = index[tokens].long(), value[tokens].to(torch.float64)
        kept = kept * (listed >= 0)
        return torch.zeros(len(listed), features, dtype=torch.float64).scatter_add_(
            1, listed.clamp(min=0), kept
        )

    return read


def _is_real(stored: Stored) -> bool:
    return stored.dtype in FLOATS or stored.dtype in INTEGERS
