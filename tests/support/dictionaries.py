"""Random and structured dictionaries, by seed, with something to find in them."""

from __future__ import annotations

import numpy as np
import torch

from saeaudit.dictionary import Dictionary

KINDS = ("random", "planted", "clusters", "plane", "integer", "degenerate")


def make(seed: int) -> np.ndarray:
    """A decoder [F, d] float32: up to 250 rows of width 2 to 64, scaled by 1e-3 to 1e3."""
    rng = np.random.default_rng(seed)
    kind = KINDS[seed % len(KINDS)]
    width = int(rng.choice([2, 3, 5, 8, 16, 31, 48, 64]))
    count = int(rng.integers(3, 120 if width < 6 else 251))
    rows = rng.normal(size=(count, width))
    if kind == "clusters":
        centres = rng.normal(size=(max(1, count // 8), width))
        rows = centres[rng.integers(len(centres), size=count)] + rng.uniform(0.05, 1) * rows
    elif kind == "plane":
        rows[:, 2:] *= rng.uniform(0.01, 0.4)
    elif kind == "integer":
        rows = rng.integers(-1, 2, size=(count, width)).astype(float)
    if kind in ("planted", "degenerate") and count >= 12:
        units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        for n in range(count // 12):
            i, j, k, copy = rng.choice(count, 4, replace=False)
            noise = rng.choice([0, 0.03, 0.1, 0.2, 0.3]) / np.sqrt(width)
            rows[k] = units[j] - rng.uniform(-0.9, 2) * units[i] + noise * rng.normal(size=width)
            rows[copy] = rng.choice([-1, 1]) * rows[n] + noise * rng.normal(size=width)
    rows *= 10 ** rng.uniform(-3, 3, size=(count, 1))
    if kind == "degenerate":
        rows[rng.integers(count)] = 0
        rows[rng.integers(count), 0] = np.nan
        rows[rng.integers(count), -1] = np.inf
    return rows.astype(np.float32)


def opposed(seed: int) -> np.ndarray:
    """A decoder [F, d] float32 with triples beside pairs that are nearly opposite.

    Up to 150 rows of width 3 to 64: random ones, f2 - alpha f1 with alpha from -30 to 100 and more
    or less noise, exact opposites, and from every third seed on two crowds that face each other.
    """
    rng = np.random.default_rng(10_000 + seed)
    width = int(rng.choice([3, 4, 6, 8, 16, 33, 64]))
    rows = rng.normal(size=(int(rng.integers(40, 151)), width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    order = rng.permutation(len(rows)).reshape(-1)
    for i, j, k in order[: len(order) // 6 * 3].reshape(-1, 3):
        alpha = rng.choice([-30, -8, -5, 3, 5, 8, 30, 99, 100, 300])
        noise = rng.choice([0, 0, 0.2, 0.5, 0.9]) / np.sqrt(width)
        rows[k] = rows[j] - alpha * rows[i] + noise * rng.normal(size=width)
    rest = order[len(order) // 6 * 3 :]
    rows[rest[0]] = -3 * rows[rest[1]]
    if seed % 3 == 2:
        crowd = rest[2:18]
        sides = rng.choice([-1, 1], size=(len(crowd), 1))
        rows[crowd] = sides * (rows[rest[2]] + rng.uniform(0.01, 0.3) * rows[crowd])
    rows *= 10 ** rng.uniform(-3, 3, size=(len(rows), 1))
    return rows.astype(np.float32)


def clustered(
    count: int, width: int, seed: int = 0, *, copies: float = 8.7, opposite: float = 0.0
) -> np.ndarray:
    """A decoder [F, d] float32 of near-copies: rows about F / copies centres, each its own way off.

    A share `opposite` of the rows is turned round. One row in 50 is a mix of two others, and one
    the difference of two copies. With 16,384 rows of width 256 some 65,000 pairs in 1,850 groups
    have cosines of 0.9 or more.
    """
    rng = np.random.default_rng(20_000 + seed)
    centres = rng.normal(size=(max(1, round(count / copies)), width))
    group = rng.integers(len(centres), size=count)
    rows = centres[group] + rng.uniform(0.05, 0.35, size=(count, 1)) * rng.normal(
        size=(count, width)
    )
    rows[rng.random(count) < opposite] *= -1
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    for n, (i, k) in enumerate(rng.permutation(count)[: count // 50 * 4].reshape(-1, 2)):
        noise = rng.choice([0, 0.03, 0.1]) / np.sqrt(width) * rng.normal(size=width)
        if n % 2:
            rows[k] = units[i] - rng.uniform(-0.9, 2) * units[rng.integers(count)] + noise
        else:
            copy = rng.choice(np.flatnonzero(group == group[i]))
            rows[k] = units[i] - (units[copy] if copy != i else units[i - 1]) + 0.1 * noise
    rows *= 10 ** rng.uniform(-2, 2, size=(count, 1))
    return rows.astype(np.float32)


def opened(rows: np.ndarray | torch.Tensor, **weights: object) -> Dictionary:
    return Dictionary.from_rows(rows, **weights)


def sae(rows: np.ndarray, encoder: np.ndarray | None = None, **weights):
    """An SAE that encodes by the pseudo-inverse, or by a matrix given."""
    made = torch.from_numpy(np.linalg.pinv(rows) if encoder is None else encoder)
    count, width = rows.shape
    weights = {
        "architecture": "standard", "encoder": lambda: made, "b_enc": torch.zeros(count),
        "b_dec": torch.zeros(width), **weights,
    }  # fmt: skip
    return opened(rows.astype(np.float32), **weights)
