"""Sources of codes whose entropy is known in closed form."""

from __future__ import annotations

import numpy as np

TOKENS = 100_000


def binary(p: np.ndarray) -> np.ndarray:
    return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))


def source(kind: str, rng: np.random.Generator) -> tuple[np.ndarray, float, float]:
    """Codes [N, F], the bin width, and the true entropy of a token in bits."""
    features = 24
    on = rng.uniform(0.02, 0.3, features)
    active = rng.random((TOKENS, features)) < on
    gates = binary(on).sum()
    if kind == "geometric":
        stop = rng.uniform(0.2, 0.7, features)
        values = 0.1 * rng.geometric(stop, (TOKENS, features))
        return active * values, 0.1, gates + (on * binary(stop) / stop).sum()
    if kind == "uniform":
        values = rng.uniform(1e-9, 1, (TOKENS, features))
        return active * values, 1 / 32, gates + on.sum() * 5
    return active * 0.5, 1.0, gates
