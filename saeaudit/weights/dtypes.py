"""Element types of stored tensors, by PyTorch's names for them.

Headers are read without PyTorch, whose import takes longer than reading a thousand of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import torch


class Dtype(NamedTuple):
    """An element type.

    >>> DTYPES["bfloat16"].itemsize
    2
    """

    name: str
    """As PyTorch calls it."""
    itemsize: int
    """Bytes of an element."""

    @property
    def is_complex(self) -> bool:
        """Whether elements have an imaginary part."""
        return self.name.startswith("complex")

    def in_torch(self) -> torch.dtype:
        """The same type for PyTorch, which is imported here.

        Raises:
            AttributeError: this version of PyTorch does not have it.
        """
        import torch

        dtype: torch.dtype = getattr(torch, self.name)
        return dtype


_NAMES = {
    1: "bool uint8 int8 quint8 qint8 quint4x2 quint2x4 bits8 bits1x8 bits2x4 bits4x2 "
    "float8_e4m3fn float8_e4m3fnuz float8_e5m2 float8_e5m2fnuz float8_e8m0fnu float4_e2m1fn_x2",
    2: "float16 bfloat16 int16 uint16 bits16",
    4: "float32 int32 uint32 qint32 complex32",
    8: "float64 int64 uint64 complex64",
    16: "complex128",
}
DTYPES = {name: Dtype(name, size) for size, names in _NAMES.items() for name in names.split()}
"""Every element type, by name."""
ALIASES = {
    "half": "float16", "float": "float32", "double": "float64", "short": "int16", "int": "int32",
    "long": "int64", "chalf": "complex32", "cfloat": "complex64", "cdouble": "complex128",
}  # fmt: skip
"""PyTorch's second names for some of them."""
BOOL = DTYPES["bool"]
FLOATS = tuple(DTYPES[name] for name in ("float32", "float16", "bfloat16", "float64"))
"""Element types that a decoder may have."""
INTEGERS = tuple(DTYPES[name] for name in ("int64", "int32", "int16", "int8", "uint8"))
"""Element types of whole numbers: indices, documents, tokens."""
