from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from saeaudit.core.cosines.genuine import second_cosine, strong_cosine, useful_cosines


def near_coplanar(rng: np.random.Generator, rho: float) -> np.ndarray:
    """Three unit rows, f3 = f2 - alpha f1 and up to `rho` beside it, |alpha| from 0.3 to 150."""
    f1, f2, beside = rng.normal(size=(3, 4))
    alpha = rng.choice([-1, 1]) * 10 ** rng.uniform(-0.5, 2.2)
    f3 = f2 / np.linalg.norm(f2) - alpha * f1 / np.linalg.norm(f1)
    beside *= rng.uniform(0, 1.5) * min(rho, 1 / max(abs(alpha), 1))
    rows = np.stack([f1, f2, f3 / np.linalg.norm(f3) + beside / np.linalg.norm(beside)])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_second_cosine_is_a_lower_bound(data: st.DataObject) -> None:
    """A random near-coplanar genuine triple satisfies both bounds of the search."""
    rho = data.draw(st.floats(0.01, 0.5))
    gamma = data.draw(st.floats(1.0, 4.0))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    genuine = 0
    for _ in range(20):
        u = near_coplanar(rng, rho)
        cosines = sorted((float(u[a] @ u[b]) for a, b in ((0, 1), (0, 2), (1, 2))), key=abs)
        lo, mid, hi = map(abs, cosines)
        r = math.sqrt(max(np.linalg.det(u @ u.T), 0) / (1 - lo * lo))
        s = math.sqrt(1 - hi * hi)
        if r <= rho and s >= gamma * r and (s > rho or (cosines[2] < 0 and s >= 0.01)):
            genuine += 1
            least, most = useful_cosines(rho)
            assert mid >= second_cosine(hi, rho, gamma) - 1e-9
            assert strong_cosine(rho, gamma) - 1e-9 <= hi
            assert least - 1e-9 <= cosines[2] <= most + 1e-9
    event(f"{genuine > 0}")


def test_second_cosine_is_reached_beside_an_opposite_pair() -> None:
    """The third row is as far from the first as from minus the second, and s / gamma off."""
    for s in (0.01, 0.05, 0.19):
        hi, rise = math.sqrt(1 - s * s), math.sqrt(1 - 1 / 4)
        x = s * rise / math.hypot(1 + hi, s * rise)
        height = math.sqrt(1 - x * x)
        third = np.array([x, height * rise, height / 2])
        pair = np.array([[1, 0, 0], [-hi, s, 0]])
        assert pair @ third == pytest.approx([x, x], abs=1e-12)
        assert second_cosine(hi, 0.2, 2.0) == pytest.approx(x, rel=1e-9)


@pytest.mark.parametrize("rho", (1e-9, 0.05, 0.1, 0.2, 0.3, 0.5))
def test_strong_cosine_is_reached_by_three_equal_cosines(rho: float) -> None:
    """At the bound all three |c| are h with a negative product: r^2 = (1+h)(1-2h)/(1-h)."""
    h = strong_cosine(rho, 1.0)
    assert (1 + h) * (1 - 2 * h) / (1 - h) == pytest.approx(rho * rho, abs=1e-9)
