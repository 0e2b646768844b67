"""Products in float32 that are what they say, on every device."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

UNIT_ERROR = 3e-7
"""Relative error of a float32 unit row (see `saeaudit.core.rows.UnitRows.block`)."""


@contextmanager
def exact_float32() -> Iterator[None]:
    """Products in float32: no TF32, and sums of bfloat16 and float16 products in float32."""
    precision = torch.get_float32_matmul_precision()
    matmul = torch.backends.cuda.matmul
    bfloat16 = matmul.allow_bf16_reduced_precision_reduction
    float16 = matmul.allow_fp16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    matmul.allow_bf16_reduced_precision_reduction = False
    matmul.allow_fp16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(precision)
        matmul.allow_bf16_reduced_precision_reduction = bfloat16
        matmul.allow_fp16_reduced_precision_reduction = float16
