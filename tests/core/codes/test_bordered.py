"""Squared errors on supports with one row more, beside matrices made one by one."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.bordered import Bordered, Walk, rectangle

B, C, K, WIDTH = 3, 4, 5, 12


def drawn(seed: int = 0) -> tuple[Bordered, Tensor, Tensor, Tensor]:
    """Problems, their rows ``[m, k + 1, d]``, targets ``[m, d]`` and codes ``[m, k + 1]``."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    support, added, target = draw(B, K, WIDTH), draw(B, C, WIDTH), draw(B, 1, WIDTH)
    support, added = (torch.nn.functional.normalize(rows, dim=-1) for rows in (support, added))
    rows = torch.cat([support[:, None].expand(-1, C, -1, -1), added[:, :, None]], 2).flatten(0, 1)
    targets = target.expand(-1, C, -1).flatten(0, 1)
    moment = (rows @ targets[:, :, None]).squeeze(2)
    systems = Bordered(support @ support.mT, added @ support.mT, moment, targets.square().sum(1))
    return systems, rows, targets, draw(B * C, K + 1)


def residual(rows: Tensor, targets: Tensor, codes: Tensor) -> Tensor:
    return targets - (codes[:, None, :] @ rows).squeeze(1)


def test_errors_and_slopes_are_those_of_residuals() -> None:
    systems, rows, targets, codes = drawn()
    rest = residual(rows, targets, codes)
    assert torch.allclose(systems.error(codes), rest.square().sum(1), rtol=1e-12)
    slope = -(rows @ rest[:, :, None]).squeeze(2)
    assert torch.allclose(systems.slope(codes), slope, rtol=0, atol=1e-12)
    assert torch.allclose(systems.apart().gram, rows @ rows.mT, rtol=0, atol=1e-14)
    assert torch.allclose(systems.apart().error(codes), rest.square().sum(1), rtol=1e-12)


def test_values_of_least_error_follow_a_change_at_any_place() -> None:
    systems, rows, targets, codes = drawn(1)
    walk = Walk(systems, codes)
    expected = codes.clone()
    for place in (0, K - 1, K, 2, K):
        rest = residual(rows, targets, expected)
        least = expected[:, place] + (rows[:, place] * rest).sum(1)
        assert torch.allclose(walk.centre(place), least, rtol=0, atol=1e-12)
        expected[:, place] = torch.linspace(-1, 1, B * C, dtype=torch.float64)
        walk.set(place, expected[:, place])
    assert torch.equal(walk.codes, expected)
    slope = -(rows @ residual(rows, targets, expected)[:, :, None]).squeeze(2)
    assert torch.allclose(walk.slope(expected), slope, rtol=0, atol=1e-12)


def test_some_of_the_problems_are_the_same_problems() -> None:
    systems, _, _, codes = drawn(2)
    marked = torch.zeros(B, C, dtype=torch.bool)
    marked[0, 3] = marked[2, 1] = marked[2, 2] = True
    index = rectangle(marked)
    assert index.shape == (2, 2) and index[0, 0] == 3 and index[1].tolist() == [9, 10]
    part = systems.only(index)
    flat = index.flatten()
    assert torch.allclose(part.slope(codes[flat]), systems.slope(codes)[flat], rtol=0, atol=1e-14)
    assert torch.equal(part.apart().gram, systems.apart().gram[flat])
    assert rectangle(marked & False).shape == (0, 0)
