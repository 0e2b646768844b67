"""The fused kernel, run by Triton's interpreter where there is no GPU, against plain products."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from saeaudit.core.budget import Budget
from saeaudit.core.cosines import kernels
from saeaudit.core.cosines.kernels import Config, sweep_int8

if kernels.triton is None:
    pytest.skip("Triton is not installed", allow_module_level=True)

SMALL = Config(64, 64, 64, 4, 2)
TALL = Config(128, 64, 64, 4, 2)
WIDE = Config(32, 128, 128, 4, 2)


def packed(count: int, width: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(-40, 41, (count, width), generator=generator, dtype=torch.int8)
    return rows, torch.randint(0, 60, (count,), generator=generator, dtype=torch.int32)


def check(
    rows: torch.Tensor, margin: torch.Tensor, need: int, device: str, **options: object
) -> int:
    product = rows.long() @ rows.long().T
    passing = (product.abs() + margin[:, None] + margin[None, :] >= need).triu(1)
    want = {(i, j): int(product[i, j]) for i, j in passing.nonzero().tolist()}
    best = torch.zeros(len(rows), dtype=torch.int32, device=device)
    found: dict[tuple[int, int], int] = {}
    share = 0.0
    for done, (i, j, value) in sweep_int8(
        rows.to(device), margin.to(device), need, best, **options
    ):
        pairs = list(zip(i.tolist(), j.tolist(), strict=True))
        assert not found.keys() & set(pairs), "a pair was found twice"
        found |= dict(zip(pairs, value.tolist(), strict=True))
        assert share < done <= 1.0
        share = done
    assert share == pytest.approx(1.0)
    assert found == want
    largest = product.abs().fill_diagonal_(0).amax(1)
    assert torch.equal(best.cpu().long(), largest)
    return len(found)


@pytest.mark.parametrize("config", [SMALL, TALL, WIDE])
@pytest.mark.parametrize(
    ("count", "width"), [(1, 16), (2, 7), (70, 7), (130, 384), (129, 2304), (65, 4097)]
)
def test_equals_plain_products(count: int, width: int, config: Config, device: str) -> None:
    rows, margin = packed(count, width)
    sizes = (rows.long() @ rows.long().T).abs().flatten()
    need = max(121, int(sizes.kthvalue(max(1, len(sizes) * 9 // 10)).values))
    found = check(rows, margin, need, device, config=config)
    assert found or count < 3


@pytest.mark.parametrize(
    ("capacity", "most", "strip"), [(7, 1 << 20, 64), (7, 2000, 64), (1 << 20, 1 << 20, 50)]
)
def test_overflow_repeats_the_strip(capacity: int, most: int, strip: int, device: str) -> None:
    rows, margin = packed(150, 48)
    budget = Budget(hits=capacity, most_hits=most, strip_rows=strip)
    assert check(rows, margin, 2000, device, config=SMALL, budget=budget) > 600


def test_all_rows_equal(device: str) -> None:
    rows, margin = packed(1, 96)
    rows, margin = rows.repeat(140, 1), margin.repeat(140)
    found = check(rows, margin, 200, device, config=SMALL)
    assert found == 140 * 139 // 2


def test_nothing_passes(device: str) -> None:
    rows, margin = packed(100, 64)
    assert check(rows, margin, 1 << 29, device, config=SMALL) == 0


def test_refuses_what_it_cannot_do() -> None:
    rows, margin = packed(10, 64)
    best = torch.zeros(10, dtype=torch.int32)
    for bad in (
        (rows.float(), margin, 500, best),
        (rows.T, margin, 500, best),
        (rows, margin[:5], 500, best),
        (rows, margin[:1].expand(10), 500, best),
        (rows, margin, 100, best),
        (torch.ones(2, 70000, dtype=torch.int8), margin[:2], 500, best[:2]),
    ):
        with pytest.raises(ValueError):
            list(sweep_int8(*bad))


@pytest.mark.parametrize(("capability", "instruction"), [(80, "mma.sync"), (90, "wgmma")])
def test_builds_for_hardware(capability: int, instruction: str) -> None:
    """Compiled for a GPU, products are int8 tensor-core instructions and stay in registers."""
    process = subprocess.run(
        [sys.executable, "-m", "tests.core.cosines.build_kernel", str(capability), "4"],
        env={**os.environ, "TRITON_INTERPRET": "0"},
        cwd=Path(__file__).parents[3], capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr[-2000:]
    built = json.loads(process.stdout)
    assert any(instruction in name and "s8.s8" in name for name in built["products"])
    assert built["shared"] <= built["pipeline"]
