from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from saeaudit.core.cosines.triples import near_cosine, second_cosine, strong_cosine


@settings(max_examples=300)
@given(st.data())
def test_second_cosine_is_a_lower_bound(data: st.DataObject) -> None:
    """A random near-coplanar genuine triple satisfies both bounds of the search."""
    rho = data.draw(st.floats(0.01, 0.5))
    gamma = data.draw(st.floats(1.0, 4.0))
    seed = data.draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(3, 4))
    u[2] = rng.uniform(-2, 2) * u[0] + rng.uniform(-2, 2) * u[1] + rng.uniform(0, 0.5) * u[2]
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    lo, mid, hi = sorted(abs(float(u[a] @ u[b])) for a, b in ((0, 1), (0, 2), (1, 2)))
    gram = np.linalg.det(u @ u.T)
    r = math.sqrt(max(gram, 0) / (1 - lo * lo))
    s = math.sqrt(1 - hi * hi)
    if r <= rho and s > rho and s >= gamma * r:
        assert mid >= second_cosine(hi, rho, gamma) - 1e-9
        assert strong_cosine(rho, gamma) - 1e-9 <= hi < near_cosine(rho) + 1e-9


@pytest.mark.parametrize("rho", (1e-9, 0.05, 0.1, 0.2, 0.3, 0.5))
def test_strong_cosine_is_reached_by_three_equal_cosines(rho: float) -> None:
    """At the bound all three |c| are h with a negative product: r^2 = (1+h)(1-2h)/(1-h)."""
    h = strong_cosine(rho, 1.0)
    assert (1 + h) * (1 - 2 * h) / (1 - h) == pytest.approx(rho * rho, abs=1e-9)
