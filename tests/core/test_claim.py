"""Claims against least squares by numpy, and against the codes that the claim says there are."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from saeaudit.core.claim import example, fit
from saeaudit.core.rows import UnitRows, row_norms


def placed(rows: np.ndarray) -> tuple[UnitRows, torch.Tensor]:
    decoder = torch.from_numpy(np.asarray(rows))
    live = torch.arange(len(decoder))
    return UnitRows(decoder, live, row_norms(decoder)), live


def units(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def oracle(rows: np.ndarray) -> tuple[float, float, float, float]:
    """a, b, residual and residual without f1 of the unit rows, by numpy."""
    u1, u2, u3 = units(rows)
    plane = np.stack([u1, u2], 1)
    (a, b), *_ = np.linalg.lstsq(plane, u3, rcond=None)
    (c,), *_ = np.linalg.lstsq(u2[:, None], u3, rcond=None)
    return a, b, np.linalg.norm(u3 - plane @ [a, b]), np.linalg.norm(u3 - c * u2)


def best_code(rows: np.ndarray, target: np.ndarray) -> tuple[list[float], float]:
    """Least squares >= 0 on two rows: the best of all choices of those that are positive."""
    options = [([0.0, 0.0], float(np.linalg.norm(target)))]
    for size, chosen in ((n, c) for n in (1, 2) for c in itertools.combinations((0, 1), n)):
        codes, *_ = np.linalg.lstsq(rows[list(chosen)].T, target, rcond=None)
        if (codes >= 0).all() and len(codes) == size:
            full = [0.0, 0.0]
            for position, code in zip(chosen, codes, strict=True):
                full[position] = float(code)
            options.append((full, float(np.linalg.norm(target - full @ rows))))
    return min(options, key=lambda option: option[1])


@pytest.mark.parametrize("seed", range(60))
def test_equals_least_squares(seed: int) -> None:
    rng = np.random.default_rng(seed)
    width = int(rng.choice([2, 3, 8, 64]))
    rows = rng.normal(size=(3, width))
    if seed % 3:  # in the plane, more or less
        alpha, noise = rng.choice([-3, -1, -0.5, 0.01, 1, 40]), rng.choice([0, 1e-6, 0.05, 0.3])
        beta = rng.choice([-2, 1, 3])
        rows[2] = beta * (units(rows)[1] - alpha * units(rows)[0]) + noise * rng.normal(size=width)
    if seed % 4 == 3:  # nearly parallel, or nearly opposite
        rows[1] = rng.choice([-1, 1]) * rows[0] + 1e-6 * rng.normal(size=width)
    rows *= 10 ** rng.uniform(-3, 3, size=(3, 1))
    a, b, residual, without_f1 = oracle(rows)
    told = fit(*placed(rows))
    scale = max(1.0, abs(a), abs(b))
    assert told.residual == pytest.approx(residual, abs=1e-8)
    assert told.without_f1 == pytest.approx(without_f1, abs=1e-8)
    assert told.beta == pytest.approx(b, rel=1e-7, abs=1e-9 * scale**2)
    assert told.alpha == pytest.approx(-a / b, rel=1e-6, abs=1e-9 * scale**2)
    u = units(rows)
    assert told.cosines == pytest.approx((u[0] @ u[1], u[0] @ u[2], u[1] @ u[2]), abs=2e-9)
    shown = example(*placed(rows))
    target = u[0] + u[1]
    errors = [best_code(u[[stays, 2]], target)[1] for stays in (0, 1)]
    size = np.linalg.norm(target)
    assert shown.error == pytest.approx(min(errors) / size, rel=1e-6, abs=1e-9 + 1e-15 / size)
    assert shown.z_prime[shown.leaving] == 0 and min(shown.z_prime) >= 0
    decoded = np.linalg.norm(target - np.array(shown.z_prime) @ u)
    assert decoded == pytest.approx(min(errors), rel=1e-6, abs=1e-8 * max(shown.z_prime))


@pytest.mark.parametrize("alpha", (-0.5, 0.0, 0.01, 1.0, 3.0))
def test_the_code_of_the_post(alpha: float) -> None:
    """z = (1, 1, 0) and z' = (1 + alpha, 0, |f2 - alpha f1|) decode to the same."""
    f1, f2 = np.linalg.qr(np.random.default_rng(7).normal(size=(16, 2)))[0].T
    mixed = f2 - alpha * f1
    rows = np.stack([f1 * 5, f2 / 3, mixed * 100])
    told, shown = fit(*placed(rows)), example(*placed(rows))
    assert told.alpha == pytest.approx(alpha, abs=1e-9) and told.residual < 1e-12
    assert told.beta == pytest.approx(1 / np.linalg.norm(mixed))
    assert shown.z == (1.0, 1.0, 0.0) and shown.leaving == 1
    assert shown.z_prime == pytest.approx((1 + alpha, 0, np.linalg.norm(mixed)), rel=1e-8, abs=1e-9)
    assert shown.error == pytest.approx(0, abs=1e-12)


def test_below_minus_one_it_is_f1_that_leaves() -> None:
    f1, f2 = np.eye(3)[:2]
    told = fit(*placed(np.stack([f1, f2, f2 + 4 * f1])))
    shown = example(*placed(np.stack([f1, f2, f2 + 4 * f1])))
    assert told.alpha == pytest.approx(-4) and told.beta and told.beta > 0
    assert shown.leaving == 0
    assert shown.z_prime == pytest.approx((0, 0.75, np.sqrt(17) / 4))
    assert shown.error == pytest.approx(0, abs=1e-12)


def test_where_f1_and_f2_span_no_plane_there_is_no_alpha() -> None:
    for second in (3.0, -0.5):
        told = fit(*placed(np.array([[1.0, 0, 0], [second, 0, 0], [1, 1, 0]])))
        assert (told.alpha, told.beta) == (None, None)
        assert told.residual == told.without_f1 == pytest.approx(np.sqrt(0.5))
    opposite = example(*placed(np.array([[1.0, 0, 0], [-3, 0, 0], [1, 1, 0]])))
    assert opposite.error is None, "z decodes to zero"
    no_f2 = fit(*placed(np.eye(3)))
    assert (no_f2.alpha, no_f2.beta, no_f2.residual) == (None, 0.0, 1.0)


def test_a_pair() -> None:
    rows = np.array([[2.0, 0], [0.3, 0.4]])
    told, shown = fit(*placed(rows)), example(*placed(rows))
    assert (told.alpha, told.beta, told.residual) == (None, 0.6, 0.8)
    assert (told.without_f1, told.cosines) == (None, (0.6,))
    assert (shown.z, shown.z_prime, shown.error) == ((1, 0), (0, 0.6), 0.8)
    opposite = example(*placed(np.array([[1.0, 0], [-1, 0]])))
    assert opposite.z_prime == (0, 0) and opposite.error == 1.0
