from __future__ import annotations

import pytest
import torch

from saeaudit.core.budget import DEFAULT, Budget, Size
from saeaudit.core.cosines import screen as screen_module
from saeaudit.core.cosines.rotation import Rotation
from saeaudit.core.cosines.screen import (
    estimates,
    fine_screen,
    make_screen,
    make_screens,
    pair_estimates,
)
from saeaudit.core.cosines.sweep import sweep
from saeaudit.core.rows import UnitRows, row_norms

CPU = torch.device("cpu")


def units(rows: torch.Tensor, budget: Budget = DEFAULT) -> UnitRows:
    norms = row_norms(rows)
    live = (norms > 0).nonzero().squeeze(1)
    return UnitRows(rows, live, norms[live], budget)


@pytest.mark.parametrize("width", (1, 2, 7, 64, 384, 2304, 4097))
def test_rotation_keeps_cosines(width: int) -> None:
    rows = torch.eye(width)[: min(width, 40)] + 0.1 * torch.randn(min(width, 40), width)
    rotate = Rotation(width, CPU)
    assert rotate.p * rotate.q == rotate.width >= width
    turned = rotate(rows)
    assert torch.allclose(turned @ turned.T, rows @ rows.T, atol=2e-5)


ADVERSARIES = {
    "gaussian": lambda g: torch.randn(200, 96, generator=g),
    "one-hot": lambda g: torch.eye(96)[torch.randint(0, 96, (200,), generator=g)],
    "outliers": lambda g: torch.randn(200, 96, generator=g) * torch.logspace(-4, 3, 96),
    "equal": lambda g: torch.ones(200, 96),
    "low rank": lambda g: torch.randn(200, 2, generator=g) @ torch.randn(2, 96, generator=g),
    "narrow": lambda g: torch.randn(200, 3, generator=g),
    "huge": lambda g: torch.randn(200, 17, generator=g, dtype=torch.float64) * 1e200,
    "tiny": lambda g: torch.randn(200, 17, generator=g) * 1e-36,
}


@pytest.mark.parametrize("name", ADVERSARIES)
def test_slack_bounds_every_estimate(name: str, screen: str) -> None:
    rows = ADVERSARIES[name](torch.Generator().manual_seed(5))
    if name == "huge":  # squares overflow even float64: such rows count as not finite
        assert not row_norms(rows).isfinite().any()
        return
    made = units(rows, Budget(tile=64, columns=Size(50, 50), whole_entries=1))
    ready = make_screen(made, screen, CPU)
    i, j = torch.triu_indices(made.count, made.count, 1)
    exact = made.cosines(i, j)
    seen = torch.zeros(made.count)
    count = 0
    for hits in sweep(ready, 0.0, seen):
        count += len(hits.i)
        truth = made.cosines(hits.i, hits.j)
        assert float((hits.cosine - truth).abs().max()) <= ready.slack
    assert count == len(i)  # a floor of zero proposes every pair, once
    largest = torch.zeros(made.count, dtype=torch.float64)
    largest.scatter_reduce_(0, i, exact.abs(), "amax")
    largest.scatter_reduce_(0, j, exact.abs(), "amax")
    assert float((seen - largest).abs().max()) <= ready.slack
    some = torch.tensor([0, 7, made.count - 1])
    whole = torch.cat([v for _, v in estimates(ready, some)], 1)
    for n, row in enumerate(some.tolist()):
        truth = made.cosines(torch.full((made.count,), row), torch.arange(made.count))
        truth[row] = 0
        assert float((whole[n] - truth).abs().max()) <= ready.slack


def test_sweep_proposes_each_pair_over_the_threshold(screen: str) -> None:
    rows = torch.randn(700, 48, generator=torch.Generator().manual_seed(1))
    made = units(rows)
    i, j = torch.triu_indices(700, 700, 1)
    exact = made.cosines(i, j)
    wanted = {
        (int(a), int(b)) for a, b in zip(i[exact.abs() >= 0.4], j[exact.abs() >= 0.4], strict=True)
    }
    for tile in (17, 256, 701):
        ready = make_screen(units(rows, Budget(tile=tile)), screen, CPU)
        got = [
            pair
            for hits in sweep(ready, 0.4, torch.zeros(700))
            for pair in zip(hits.i.tolist(), hits.j.tolist(), strict=True)
        ]
        assert len(got) == len(set(got))
        assert wanted <= set(got)
        assert all(a < b for a, b in got)


@pytest.mark.parametrize("name", [name for name in ADVERSARIES if name != "huge"])
def test_rows_multiplied_as_they_are_stored_are_within_the_slack(name: str) -> None:
    rows = ADVERSARIES[name](torch.Generator().manual_seed(6))
    scales = 10.0 ** torch.linspace(-10, 10, len(rows), dtype=torch.float64)
    rows = (rows * scales[:, None]).float()
    rows[3] = 0  # is left out
    made = units(rows, Budget(columns=Size(50, 50)))
    fine = fine_screen(made, CPU)
    assert fine.as_stored == (name != "tiny")  # of these, products leave float32's range
    i, j = torch.triu_indices(made.count, made.count, 1)
    exact = made.cosines(i, j)
    assert float((pair_estimates(fine, i, j) - exact).abs().max()) <= fine.slack
    table = torch.zeros(made.count, made.count)
    for start, values in estimates(fine, torch.arange(made.count)):
        table[:, start : start + values.shape[1]] = values
    assert float((table[i, j] - exact).abs().max()) <= fine.slack
    assert float((table[j, i] - exact).abs().max()) <= fine.slack


def test_only_rows_that_are_not_float32_are_copied_for_a_closer_look() -> None:
    rows = torch.randn(50, 8, generator=torch.Generator().manual_seed(2))
    assert fine_screen(units(rows), CPU).packed is None
    for other in (rows.double(), rows.bfloat16(), rows.T.contiguous().T, rows * 1e20):
        packed = fine_screen(units(other), CPU).packed
        assert packed is not None and packed.shape == rows.shape


def test_rows_that_int8_cannot_screen_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One-hot rows of a dtype that is copied for float32 anyway."""
    rows = torch.eye(1024)[torch.arange(300) % 1024].bfloat16()
    rows[0] += 0.5
    copies = []
    make = screen_module._fp32

    def watched(*arguments: object, **options: object) -> object:
        copies.append(options.get("keep", True))
        return make(*arguments, **options)

    monkeypatch.setattr(screen_module, "_fp32", watched)
    monkeypatch.setattr(screen_module, "SLACK_LIMIT", 1e-6)
    ready = make_screens(units(rows), "int8", CPU)
    assert ready.quick is ready.second is ready.fine and ready.name == "fp32"
    assert copies == [True]
