"""Nulls: what they keep and what they do away with, again in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saeaudit.core.null import permuted_along_axes, random_rows


def test_random_rows_are_normals_of_the_second_moment() -> None:
    rng = np.random.default_rng(5)
    units = rng.normal(size=(40, 6)) * [3, 1, 1, 0.3, 0, 0]
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    rows = random_rows(torch.from_numpy(units), 30_000, seed=4).numpy()
    normal = torch.randn(30_000, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    values, axes = np.linalg.eigh(units.T @ units / 40)
    expected = normal.numpy() @ axes @ np.diag(values.clip(0) ** 0.5) @ axes.T
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert rows == pytest.approx(expected, abs=1e-9)
    assert np.abs(rows[:, 4:]).max() < 1e-6  # no more dimensions than the decoder has
    # One direction that all share is shared by the random rows too.
    shared = np.eye(6)[:1].repeat(40, 0) + 0.01 * rng.normal(size=(40, 6))
    shared /= np.linalg.norm(shared, axis=1, keepdims=True)
    assert np.abs(random_rows(torch.from_numpy(shared), 50, seed=0).numpy()[:, 0]).min() > 0.9


def test_random_rows_of_an_even_decoder_have_its_second_moment() -> None:
    rows = random_rows(torch.eye(8, dtype=torch.float64), 40_000, seed=1).numpy()
    assert rows.T @ rows / len(rows) == pytest.approx(np.eye(8) / 8, abs=4e-3)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_permuted_activations_keep_mean_spectrum_and_marginals(dtype: torch.dtype) -> None:
    rng = np.random.default_rng(0)
    mixing = rng.normal(size=(5, 5))
    # Features that fire together or not at all: what the permutation is to do away with.
    on = rng.random((3000, 1)) < 0.1
    x = torch.from_numpy(np.where(on, rng.exponential(1, (3000, 5)), 0) @ mixing + 3).to(dtype)
    x[7] = 1000.0
    kept = torch.tensor([n for n in range(3000) if n != 7])
    before = x.to(torch.float64).numpy()
    out = permuted_along_axes(x, kept, seed=9)
    assert out.dtype == torch.promote_types(dtype, torch.float32)
    assert (out[7] == 1000).all()
    old, new = before[kept], out.double().numpy()[kept]
    assert new.mean(0) == pytest.approx(old.mean(0), abs=1e-5)
    _, axes = np.linalg.eigh(np.cov(old.T))
    along = [np.sort((v - old.mean(0)) @ axes, axis=0) for v in (old, new)]
    assert along[1] == pytest.approx(along[0], abs=1e-4)
    # Variances stay, covariances of permuted coordinates are chance: 1/sqrt(3000) = 0.018.
    turned = np.corrcoef(((new - old.mean(0)) @ axes).T)
    assert np.abs(turned - np.eye(5)).max() < 0.09
    moved = (np.abs(new - old).max(1) > 1e-3).mean()
    assert moved > 0.4  # a token stays where all of its coordinates were those of silence

    def together(v: np.ndarray) -> float:
        """Mean correlation of squared coordinates on different axes."""
        squares = np.corrcoef(((v - old.mean(0)) @ axes).T ** 2)
        return float(squares[~np.eye(5, dtype=bool)].mean())

    assert together(old) > 0.3 and abs(together(new)) < 0.05


def test_a_permutation_is_of_one_axis_and_of_its_seed() -> None:
    x = torch.from_numpy(np.random.default_rng(2).normal(size=(200, 3)) * [5, 2, 1])
    out = permuted_along_axes(x, torch.arange(200), seed=3)
    generator = torch.Generator().manual_seed(3)
    orders = [torch.randperm(200, generator=generator).numpy() for _ in range(3)]
    values = x.numpy() - x.numpy().mean(0)
    _, axes = np.linalg.eigh(values.T @ values)
    turned = values @ axes
    expected = np.stack([turned[order, n] for n, order in enumerate(orders)], 1) @ axes.T
    assert out.numpy() == pytest.approx(expected + x.numpy().mean(0), abs=1e-9)
    assert not torch.equal(out, permuted_along_axes(x, torch.arange(200), seed=4))
