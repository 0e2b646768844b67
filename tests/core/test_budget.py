from __future__ import annotations

import torch

from saeaudit.core.budget import Budget, Size

CPU, CUDA = torch.device("cpu"), torch.device("cuda:0")


def test_sizes_suit_the_device() -> None:
    assert Size(3, 7).on(CPU) == 3 and Size(3, 7).on(CUDA) == 7
    assert Budget().tile_side(CPU) < Budget().tile_side(CUDA)
    assert Budget(tile=5).tile_side(CPU) == Budget(tile=5).tile_side(CUDA) == 5


def test_something_is_always_taken_in_a_step() -> None:
    tiny = Budget(
        exact_bytes=Size(1, 1), stored_bytes=1, whole_entries=1, swap_cells=Size(1, 1),
        system_bytes=Size(1, 1),
    )  # fmt: skip
    assert tiny.exact_rows(4096, CPU) == tiny.systems(80, CPU) == 1
    assert tiny.stored_rows(4096, 4) == 256
    assert tiny.whole_rows(1 << 20) == 8
    assert tiny.swap_columns(1 << 20, CPU) == 64


def test_bytes_are_counted_in_float64() -> None:
    budget = Budget(exact_bytes=Size(8000, 8000), system_bytes=Size(8000, 8000))
    assert budget.exact_rows(10, CPU) == 100
    assert budget.systems(10, CPU) == 10
    assert budget.exact_rows(0, CPU) == 1000
