"""Matrix products that screening is made of. They propose; they never decide."""

from __future__ import annotations

import warnings

import numpy as np
import torch
from torch import Tensor

from saeaudit.core.budget import Size
from saeaudit.core.rows import spans


class Tile:
    """Products of blocks of packed rows, in buffers that are used again for every tile."""

    def __init__(self, side: int, like: Tensor) -> None:
        exact = like.dtype == torch.int8
        self._product = torch.empty(
            side * side, dtype=torch.int32 if exact else torch.float32, device=like.device
        )
        self._magnitude = torch.empty_like(self._product)

    def __call__(self, a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """``a @ b.T`` and its magnitude, ``[len(a), len(b)]``, int32 from int8, else float32."""
        size = len(a) * len(b)
        product = self._product[:size].view(len(a), len(b))
        if a.dtype == torch.float32:
            torch.mm(a, b.T, out=product)
        elif a.dtype == torch.int8:
            product = int_product(a, b)
        else:
            product.copy_(a @ b.T)
        return product, torch.abs(product, out=self._magnitude[:size].view(len(a), len(b)))


def product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` of packed rows: int32 from int8, else float32; the result may be overwritten."""
    if a.dtype == torch.int8:
        return int_product(a, b)
    return (a @ b.T).to(torch.float32)


def entries_above(values: Tensor, least: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Entries of a matrix that reach a least value each row has of its own.

    Args:
        values: ``[m, c]`` of any dtype, not negative.
        least: ``[m]`` float64, rounded to the values' dtype.

    Returns:
        Row numbers, column numbers (int64) and values (float32), ``[e]`` each where `least` is.
    """
    passing = values >= least.to(values.device, values.dtype)[:, None]
    if values.device.type == "cpu":  # several times as fast as the same in torch
        flat = torch.from_numpy(np.flatnonzero(passing.numpy()))
    else:
        flat = passing.reshape(-1).nonzero().squeeze(1)
    entry = values.reshape(-1)[flat].to(least.device, torch.float32)
    flat = flat.to(least.device)
    return torch.div(flat, values.shape[1], rounding_mode="floor"), flat % values.shape[1], entry


def int_product(a: Tensor, b: Tensor) -> Tensor:
    """``a @ b.T`` of int8 rows, ``[len(a), len(b)]`` int32, exact."""
    if a.device.type == "cpu":
        return torch._int_mm(a, b.T)
    # cuBLASLt wants more than 16 rows and multiples of 8 columns.
    m, n = len(a), len(b)
    if m <= 16:
        a = torch.nn.functional.pad(a, (0, 0, 0, 17 - m))
    if n % 8:
        b = torch.nn.functional.pad(b, (0, 0, 0, -n % 8))
    return torch._int_mm(a, b.T)[:m, :n]


def sampled_products(rows: Tensor, i: Tensor, j: Tensor, step: Size) -> Tensor:
    """Dot products of pairs of rows.

    On a CPU as one sampled dense-dense product, so that nothing is gathered.

    Args:
        rows: ``[n, d]`` float32 or float64.
        i: ``[m]`` int64 row numbers.
        j: ``[m]`` int64 row numbers.
        step: pairs gathered at once.

    Returns:
        ``[m]`` in the rows' dtype.
    """
    if rows.device.type != "cpu":
        out = torch.empty(len(i), dtype=rows.dtype, device=rows.device)
        for start, stop in spans(len(i), step.on(rows.device)):
            out[start:stop] = torch.linalg.vecdot(rows[i[start:stop]], rows[j[start:stop]])
        return out
    count = len(rows)
    order = torch.argsort(i, stable=True)
    starts = torch.zeros(count + 1, dtype=torch.int64)
    starts[1:] = torch.bincount(i, minlength=count).cumsum(0)
    out = torch.empty(len(i), dtype=rows.dtype)
    with warnings.catch_warnings():  # torch calls its CSR layout a beta feature
        warnings.simplefilter("ignore")
        pattern = torch.sparse_csr_tensor(
            starts, j[order], torch.zeros(len(i), dtype=rows.dtype), (count, count)
        )
        products = torch.sparse.sampled_addmm(pattern, rows, rows.T, beta=0.0)
    out[order] = products.values()
    return out
