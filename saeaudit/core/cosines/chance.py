"""What rows without structure would show: the least coherence there can be, and random rows'."""

from __future__ import annotations

import math


def welch_bound(count: int, width: int) -> float:
    """Least possible coherence of `count` unit vectors in R^width (Welch 1974); 0 if they fit."""
    if count <= width or count < 2:
        return 0.0
    return math.sqrt((count - width) / (width * (count - 1)))


def random_row_max(count: int, width: int, q: float) -> float:
    """Quantile q of the largest |cosine| of a row among `count` random unit rows of R^width.

    The square of a random cosine is Beta(1/2, (d-1)/2); the count - 1 cosines of one row are
    independent. For q = 0 and 1, the typical least and largest of the `count` row maxima.
    """
    if count < 2:
        return 0.0
    if width < 2:
        return 1.0
    level = min(max(q, 0.5 / count), 1 - 0.5 / count)
    # P(|c| <= t) must equal level ** (1 / (count - 1)); its complement keeps the digits.
    tail = -math.expm1(math.log(level) / (count - 1))
    low, high = 0.0, 1.0
    for _ in range(60):  # halvings, past the digits of float64
        middle = (low + high) / 2
        if _cosine_tail(middle, width) > tail:
            low = middle
        else:
            high = middle
    return high


def _cosine_tail(t: float, width: int) -> float:
    """P(|c| > t) for the cosine of two random directions of R^width: I_{1-t^2}((d-1)/2, 1/2)."""
    x = (1 - t) * (1 + t)
    a, b = (width - 1) / 2, 0.5
    if x <= 0:
        return 0.0
    if x >= 1:
        return 1.0
    log_front = (
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)
    )
    if x < (a + 1) / (a + b + 2):
        return math.exp(log_front) * _beta_fraction(x, a, b) / a
    return 1 - math.exp(log_front) * _beta_fraction(1 - x, b, a) / b


def _beta_fraction(x: float, a: float, b: float) -> float:
    """Continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 10_000):
        even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        for numerator in (even, odd):
            d = 1 + numerator * d
            d = 1 / (d if abs(d) > tiny else tiny)
            c = 1 + numerator / (c if abs(c) > tiny else tiny)
            value *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return value
