"""The search for cheap codes in loops of plain numpy, from its documentation alone."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

PRICES = (0.7, 1.4, 2.8, 64.0)
PASSES, MOVES, BINS = 2, 40, 24


class Case(NamedTuple):
    """One token: unit rows, a support, a target, and what bins cost."""

    unit: np.ndarray
    support: list[int]
    target: np.ndarray
    codes: np.ndarray
    floor: np.ndarray
    width: float
    bits: np.ndarray
    """[F, bins]: bits of every bin that matters, gate included."""

    @property
    def limit(self) -> float:
        error = ((self.target - self.codes @ self.unit[self.support]) ** 2).sum()
        return float(error + 1e-10 * (self.target**2).sum())


class Bin(NamedTuple):
    bits: float
    low: float
    high: float


def fitted(case: Case, rows: list[int]) -> tuple[np.ndarray, float, np.ndarray]:
    """Least-squares codes, their squared error, and the diagonal of the inverse Gram matrix."""
    vectors = case.unit[rows]
    codes = np.linalg.lstsq(vectors.T, case.target, rcond=None)[0]
    error = float(((case.target - codes @ vectors) ** 2).sum())
    return codes, error, np.diag(np.linalg.inv(vectors @ vectors.T))


def windows(case: Case, rows: list[int], centre: np.ndarray, reach: np.ndarray) -> list[list[Bin]]:
    out = []
    for row, middle, far in zip(rows, centre, reach, strict=True):
        count = int(min(2 * far / case.width + 2, BINS))
        floor = case.floor[row]
        first = math.floor((middle - floor) / case.width) - (count - 1) // 2
        bins = [max(first, 0) + n for n in range(count)]
        out.append([
            Bin(
                case.bits[row, b],
                max(floor + b * case.width, 1e-6 * case.width),
                floor + ((b + 1) * (1 - 4e-7) - 2e-6) * case.width,
            )
            for b in bins
        ])  # fmt: skip
    return out


def entered(case: Case, row: int) -> tuple[np.ndarray, float]:
    """Codes on the support and a row that enters, and their bits."""
    support = case.support
    swaps = [[*support[:i], row, *support[i + 1 :]] for i in range(len(support))]
    fits = [fitted(case, swap) for swap in swaps]
    place = min(range(len(support)), key=lambda i: (fits[i][0][i] <= 0, fits[i][1]))
    codes, error, spread = fits[place]
    before, error_before, spread_before = fitted(case, support)
    room, room_before = max(case.limit - error, 0), max(case.limit - error_before, 0)
    centre = np.append(codes, codes[place])
    reach = np.sqrt(room * np.append(spread, spread[place]))
    centre[place], reach[place] = before[place], math.sqrt(room_before * spread_before[place])
    rows = [*support, row]
    floor = case.floor[rows]
    start = np.where(centre > floor / 2, np.maximum(centre, floor), 0.0)
    start[-1] = max(centre[-1], floor[-1])
    start[place] = 0.0
    return solved(case, rows, windows(case, rows, centre, reach), start, error, enters=True)


def kept(case: Case) -> tuple[np.ndarray, float]:
    """Codes on the support itself, and their bits."""
    codes, error, spread = fitted(case, case.support)
    bins = windows(case, case.support, codes, np.sqrt(max(case.limit - error, 0) * spread))
    best = solved(case, case.support, bins, case.codes.copy(), error, enters=False)
    given = sum(
        case.bits[row, math.floor((code - case.floor[row]) / case.width * (1 + 1e-9) + 1e-9)]
        for row, code in zip(case.support, case.codes, strict=True)
    )
    return best if best[1] < given else (case.codes, given)


def solved(
    case: Case, rows: list[int], bins: list[list[Bin]], codes: np.ndarray, error: float, *,
    enters: bool,
) -> tuple[np.ndarray, float]:  # fmt: skip
    vectors = case.unit[rows]

    def error_of(codes: np.ndarray) -> float:
        return float(((case.target - codes @ vectors) ** 2).sum())

    def bits_of(codes: np.ndarray) -> float:
        return sum(at(bins[i], code).bits for i, code in enumerate(codes) if code > 0)

    def centre_of(codes: np.ndarray, i: int) -> float:
        return codes[i] + vectors[i] @ (case.target - codes @ vectors)

    def only_off(codes: np.ndarray, i: int) -> bool:
        """Whether a place of the support must stay off, the only one that is."""
        return enters and i < len(rows) - 1 and not (np.delete(codes[:-1], i) <= 0).any()

    def descend(codes: np.ndarray, price: float) -> None:
        for i in range(len(rows)):
            centre = centre_of(codes, i)
            best, value = price * centre**2, 0.0
            if enters and i == len(rows) - 1:
                best = math.inf
            if not only_off(codes, i):
                for option in bins[i]:
                    inside = min(max(centre, option.low), option.high)
                    cost = option.bits + price * (inside - centre) ** 2
                    if cost < best:
                        best, value = cost, inside
            codes[i] = value

    best, least = codes.copy(), math.inf
    if enters and codes[-1] > 0 and error_of(codes) <= case.limit:
        least = bits_of(codes)
    room = max(case.limit - error, 1e-12 * float((case.target**2).sum()))
    for price in PRICES:
        for _ in range(PASSES):
            descend(codes, price * len(rows) / room)
        if error_of(codes) <= case.limit and bits_of(codes) < least:
            best, least = codes.copy(), bits_of(codes)
    codes = best.copy()
    for _ in range(MOVES if least < math.inf else 0):
        for i in range(len(rows)):
            if codes[i] > 0:
                option = at(bins[i], codes[i])
                codes[i] = min(max(centre_of(codes, i), option.low), option.high)
        move = best_move(case, bins, codes, (error_of, centre_of, only_off), enters)
        if move is None:
            break
        codes[move[0]] = move[1]
    return codes, bits_of(codes) if least < math.inf else math.inf


def best_move(case, bins, codes, functions, enters: bool) -> tuple[int, float] | None:
    error_of, centre_of, only_off = functions
    most, move = 0.0, None
    now = error_of(codes)
    for i, options in enumerate(bins):
        here = at(options, codes[i]).bits if codes[i] > 0 else 0.0
        centre = centre_of(codes, i)
        values = [(o.bits, min(max(centre, o.low), o.high)) for o in options]
        values = [] if codes[i] <= 0 and only_off(codes, i) else values
        if not (enters and i == len(bins) - 1):
            values.append((0.0, 0.0))
        for bits, value in values:
            added = (value - centre) ** 2 - (codes[i] - centre) ** 2
            if here - bits > 1e-9 and now + added <= case.limit:
                worth = (here - bits) / max(added, 1e-300)
                if worth > most:
                    most, move = worth, (i, value)
    return move


def at(options: list[Bin], value: float) -> Bin:
    return [option for option in options if option.low <= value][-1]


def truly_least(case: Case, rows: list[int], below: float, *, enters: bool) -> float:
    """Fewest bits of all codes on some rows, every bin of each tried; `below` if none has fewer.

    Where the last row enters, it must be on and another one off.
    """
    vectors = case.unit[rows]
    gram, moment = vectors @ vectors.T, vectors @ case.target
    codes, error, spread = fitted(case, rows)
    reach = np.sqrt(max(case.limit - error, 0) * spread)
    options = []
    for row, code, far in zip(rows, codes, reach, strict=True):
        ends = (np.array([code - far, code + far]) - case.floor[row]) / case.width
        low, high = np.maximum(np.floor(ends - 1e-9), 0).astype(int)
        options.append([-1, *range(low, high + 1)])
    bins = np.array(list(itertools.product(*options)))
    on = bins >= 0
    if enters:
        bins = bins[on[:, -1] & ~on[:, :-1].all(1)]
        on = bins >= 0
    bits = np.where(on, case.bits[rows, bins], 0.0).sum(1)
    cheaper = bits < below - 1e-9
    bins, on, bits = bins[cheaper], on[cheaper], bits[cheaper]
    low = np.where(on, case.floor[rows] + bins * case.width, 0.0)
    high = np.where(on, low + case.width, 0.0)
    x = np.clip(codes, low, high)
    for _ in range(300):
        for i in range(len(rows)):
            x[:, i] = np.clip(x[:, i] - (x @ gram[i] - moment[i]), low[:, i], high[:, i])
    errors = ((case.target - x @ vectors) ** 2).sum(1)
    return float(bits[errors <= case.limit].min(initial=below))


def least_norm(case: Case, rows: list[int], power: int) -> float:
    """Least L1 (power 1) or squared L2 (power 2) of codes >= 0 on some rows, without floors.

    Every set of features that are on is tried; on it, all that the error allows is spent.
    """
    size = float((case.target**2).sum())
    if size <= case.limit:
        return 0.0
    best = math.inf
    for count in range(1, len(rows) + 1):
        for chosen in itertools.combinations(rows, count):
            vectors = case.unit[list(chosen)]
            gram, moment = vectors @ vectors.T, vectors @ case.target
            codes, error, _ = fitted(case, list(chosen))
            if error > case.limit:
                continue
            if power == 1:
                down = np.linalg.solve(gram, np.ones(count))
                codes = codes - math.sqrt((case.limit - error) / down.sum()) * down
            else:
                low, high = 0.0, 1e9
                for _ in range(200):
                    middle = (low + high) / 2
                    codes = np.linalg.solve(gram + middle * np.eye(count), moment)
                    inside = ((case.target - codes @ vectors) ** 2).sum() <= case.limit
                    low, high = (middle, high) if inside else (low, middle)
            if (codes >= 0).all():
                best = min(best, float((codes**power).sum()))
    return best
