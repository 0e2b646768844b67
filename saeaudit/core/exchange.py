"""Exchanges of a dependent triple: which codes have another code with the same support size.

For unit rows with kernel vector k (k_1 u_1 + k_2 u_2 + k_3 u_3 = 0) a code z >= 0 on two of the
rows moves along +-k until one of the two reaches zero and the third has entered. With k scaled so
that the entering feature's entry is positive, that needs a negative entry among the two that
stay; with two of them, exactly one of the two moves is valid for any given z.
"""

from __future__ import annotations

from typing import NamedTuple

from saeaudit.vocabulary import Exchange, SignPattern

SUPPORTS = ((0, 1), (0, 2), (1, 2))
"""The three two-feature supports of a triple, in the order in which classes are reported."""


class Pattern(NamedTuple):
    """Signs of a triple's kernel vector."""

    name: SignPattern
    """How many entries share a sign: two against one, or all three."""
    inner: int | None
    """Position (0, 1, 2) of the feature that is a conic mix of the other two, for "2,1"."""


def kernel(a: float, b: float) -> tuple[float, float, float]:
    """Kernel vector of the unit rows of a triple u_3 = a u_1 + b u_2 (+ residual)."""
    return (-a, -b, 1.0)


def sign_pattern(a: float, b: float) -> Pattern:
    """Classify a triple by the signs of its kernel vector; a zero counts as positive.

    Example: a = -1, b = 1 (u_3 = u_2 - u_1) gives ``Pattern("2,1", inner=1)``: u_2 = u_1 + u_3.
    """
    positive = [entry >= 0 for entry in kernel(a, b)]
    if all(positive):
        return Pattern("3,0", None)
    odd = [p for p in range(3) if positive.count(positive[p]) == 1]
    return Pattern("2,1", odd[0])


def exchange_classes(a: float, b: float) -> tuple[Exchange, Exchange, Exchange]:
    """For each of `SUPPORTS`: do codes on it have an equal-size exchange that lets the third in?

    "always" for every positive code on that support, "never" for none. "sometimes" is part of the
    record's vocabulary for a single named move (which does depend on the ratio of the two codes);
    for a whole support the algebra above leaves only the other two.
    """
    entries = kernel(a, b)
    classes: list[Exchange] = []
    for support in SUPPORTS:
        (entering,) = {0, 1, 2} - set(support)
        if entries[entering] == 0:
            classes.append("never")
            continue
        sign = 1.0 if entries[entering] > 0 else -1.0
        falling = [p for p in support if sign * entries[p] < 0]
        classes.append("always" if falling else "never")
    return (classes[0], classes[1], classes[2])
