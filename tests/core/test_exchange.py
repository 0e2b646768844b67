from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from saeaudit.core.exchange import exchange_classes, kernel, sign_pattern


@settings(max_examples=300, deadline=None)
@given(st.floats(-2, 2), st.floats(-2, 2), st.integers(0, 2**32 - 1))
def test_exchange_classes_by_moving_codes(a: float, b: float, seed: int) -> None:
    if min(abs(a), abs(b)) < 1e-3:
        return
    rng = np.random.default_rng(seed)
    k = np.array(kernel(a, b))
    for support, said in zip(((0, 1), (0, 2), (1, 2)), exchange_classes(a, b), strict=True):
        (entering,) = {0, 1, 2} - set(support)
        outcomes = set()
        for _ in range(20):
            z = np.zeros(3)
            z[list(support)] = rng.uniform(0.1, 5, 2)
            step = k * np.sign(k[entering])
            falling = [p for p in support if step[p] < 0]
            moved = [z + step * (z[p] / -step[p]) for p in falling]
            outcomes.add(any((m > -1e-12).all() and m[entering] > 0 for m in moved))
        assert outcomes == {said == "always"}


def test_patterns() -> None:
    assert sign_pattern(-1, 1) == ("2,1", 1)  # u3 = u2 - u1: u2 is u1 + u3
    assert sign_pattern(0.5, 0.5) == ("2,1", 2)
    assert sign_pattern(1, -1) == ("2,1", 0)
    assert sign_pattern(-1, -1) == ("3,0", None)
    assert exchange_classes(-1, -1) == ("never", "never", "never")
