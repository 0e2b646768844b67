"""Element types without PyTorch are those that PyTorch has."""

from __future__ import annotations

import torch

from saeaudit.weights.dtypes import ALIASES, DTYPES, FLOATS
from saeaudit.weights.suffixes import SUFFIXES
from saeaudit.weights.tensors import READERS

IN_TORCH = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}


def test_names_and_sizes_are_those_of_torch() -> None:
    for name, dtype in DTYPES.items():
        if name in IN_TORCH:  # an older PyTorch lacks the newest
            assert dtype.in_torch() is IN_TORCH[name]
            assert dtype.itemsize == IN_TORCH[name].itemsize, name
            assert dtype.is_complex == IN_TORCH[name].is_complex, name
    for alias, name in ALIASES.items():
        assert IN_TORCH[alias] is IN_TORCH[name]
    assert all(dtype.in_torch().is_floating_point for dtype in FLOATS)


def test_every_kind_of_file_has_a_reader() -> None:
    assert tuple(READERS) == SUFFIXES


def test_what_torch_save_may_name_is_known() -> None:
    common = {
        "float64", "float32", "float16", "bfloat16", "int64", "int32", "int16", "int8", "uint8",
        "uint16", "uint32", "uint64", "bool", "complex64", "complex128", "float8_e4m3fn",
        "float8_e5m2",
    }  # fmt: skip
    assert common <= DTYPES.keys() and common <= IN_TORCH.keys()
