"""Brute force in float64: what the definitions say, with nothing clever about it."""

from __future__ import annotations

import itertools

import numpy as np


def usable(decoder: np.ndarray, *, include_collapsed: bool = False) -> np.ndarray:
    rows = np.asarray(decoder, dtype=np.float64)
    norms = np.linalg.norm(rows, axis=1)
    fine = np.isfinite(norms) & (norms > 0)
    if not include_collapsed:
        ordered = np.sort(norms[fine])
        reference = ordered[int(np.ceil(0.99 * len(ordered))) - 1]
        fine &= ~(norms < 1e-3 * reference)
    return np.flatnonzero(fine)


def gram(decoder: np.ndarray, live: np.ndarray) -> np.ndarray:
    rows = np.asarray(decoder, dtype=np.float64)[live]
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return np.clip(units @ units.T, -1, 1)


def pairs(decoder: np.ndarray, tau: float, **options: bool) -> dict[tuple[int, int], float]:
    live = usable(decoder, **options)
    cosines = gram(decoder, live)
    i, j = np.triu_indices(len(live), 1)
    hit = np.abs(cosines[i, j]) >= tau
    return {
        (int(live[a]), int(live[b])): float(cosines[a, b])
        for a, b in zip(i[hit], j[hit], strict=True)
    }


def triples(
    decoder: np.ndarray, rho: float, gamma: float, **options: bool
) -> dict[frozenset[int], float]:
    """Genuine triples: the set of features, and the residual of its best target.

    One feature alone explains a target when it leaves at most rho; a negative multiple, of which
    a non-negative code has no use, when it leaves less than 0.01.
    """
    live = usable(decoder, **options)
    cosines = gram(decoder, live)
    sets = np.array(list(itertools.combinations(range(len(live)), 3)), dtype=np.int32)
    if not len(sets):
        return {}
    residual, single, opposite, negative = [], [], [], []
    for target in range(3):
        i, j = (sets[:, other] for other in range(3) if other != target)
        k = sets[:, target]
        c, ci, cj = cosines[i, j], cosines[i, k], cosines[j, k]
        with np.errstate(divide="ignore", invalid="ignore"):
            square = 1 - (ci**2 + cj**2 - 2 * c * ci * cj) / (1 - c**2)
        square = np.where(np.abs(c) >= 1, np.inf, square)
        residual.append(np.sqrt(np.maximum(square, 0)))
        single.append(np.sqrt(np.maximum(np.minimum(1 - ci**2, 1 - cj**2), 0)))
        opposite.append(np.round(np.abs(c), 9))
        negative.append(np.round(-np.minimum(ci, cj), 9) > np.round(np.maximum(ci, cj), 9))
    residual, single, opposite = np.array(residual), np.array(single), np.array(opposite)
    # r_k^2 = det(G) / (1 - c_ij^2): the least residual faces the least |cosine|, also where all
    # three are zero up to rounding; of equal ones the largest index.
    best = 2 - opposite[::-1].argmin(0)
    at = np.arange(len(sets))
    r, s = residual[best, at], single[best, at]
    more_than_a_pair = (s > rho) | (np.array(negative)[best, at] & (s >= 0.01))
    hit = (r <= rho) & more_than_a_pair & (s >= gamma * r)
    return {frozenset(int(live[x]) for x in sets[n]): float(r[n]) for n in np.flatnonzero(hit)}


def disputed_triples(
    decoder: np.ndarray,
    listed: set[frozenset[int]],
    wanted: set[frozenset[int]],
    rho: float,
    gamma: float,
) -> list[frozenset[int]]:
    """Sets in one collection alone that rounding at a threshold does not account for."""

    def holds(features: frozenset[int], loosened: float) -> bool:
        three = decoder[sorted(features)]
        return bool(triples(three, rho + loosened, gamma - loosened, include_collapsed=True))

    false = [features for features in listed - wanted if not holds(features, 1e-6)]
    return false + [features for features in wanted - listed if holds(features, -1e-6)]


def row_maxima(decoder: np.ndarray, **options: bool) -> np.ndarray:
    cosines = np.abs(gram(decoder, usable(decoder, **options)))
    np.fill_diagonal(cosines, 0)
    return cosines.max(1)


def babel(decoder: np.ndarray, k: int, **options: bool) -> float:
    cosines = np.abs(gram(decoder, usable(decoder, **options)))
    np.fill_diagonal(cosines, 0)
    return float(np.sort(cosines, axis=1)[:, ::-1][:, :k].sum(1).max())
