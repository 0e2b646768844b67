"""Coherence figures of a whole dictionary: every row's largest cosine, the Babel function, bounds.

All figures are exact although the sweep only estimates: estimates with their slack say which
entries and rows can matter, and those are recomputed.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.pairs import Edges, sorted_in_place
from saeaudit.core.products import sampled_products
from saeaudit.core.rows import UnitRows, fold, round9, spans
from saeaudit.core.screen import Screen, estimates, pair_estimates

CROWD_BYTES = 1 << 30
"""Unit rows in float64 are held when they take no more than this."""


class Ranked(NamedTuple):
    """The listed entries of every row, largest |cosine| first."""

    row: Tensor
    """``[m]`` int32, ascending."""
    partner: Tensor
    """``[m]`` int32."""
    magnitude: Tensor
    """``[m]`` float32 estimates of |cosine| within `RANK_ERROR`, descending within a row."""
    rank: Tensor
    """``[m]`` int32: position within the row, from 0."""
    sizes: Tensor
    """``[n]`` int64: entries of each row."""


RANK_ERROR = 2.0**-16
"""What ranking costs an estimate: it is kept as one of 65,536 levels."""


def rank_entries(edges: Edges, count: int) -> Ranked:
    """List the edges row by row (each edge in both its rows), largest first.

    An entry is packed in one integer, row above level above partner, so that one sort in place
    orders them.
    """
    side = max(count.bit_length(), 1)
    level = 65535 - (edges.cosine.abs().clamp(max=1.0) * 65535).round_().long()
    level <<= side
    ends = ((edges.i, edges.j), (edges.j, edges.i))
    keys = torch.cat([(row.long() << (side + 16)) + level + partner for row, partner in ends])
    keys = sorted_in_place(keys)
    partner = (keys & ((1 << side) - 1)).to(torch.int32)
    keys >>= side
    magnitude = (65535 - (keys & 65535)).to(torch.float32) / 65535
    keys >>= 16
    row = keys.to(torch.int32)
    del keys
    sizes = torch.bincount(row, minlength=count)
    rank = torch.arange(len(row), dtype=torch.int32, device=row.device)
    rank -= torch.repeat_interleave((sizes.cumsum(0) - sizes).to(torch.int32), sizes)
    return Ranked(row, partner, magnitude, rank, sizes)


def row_maxima(
    screen: Screen, whole: Screen, edges: Edges, ranked: Ranked, estimate: Tensor
) -> Tensor:
    """Exact largest |cosine| of every row with any other row.

    Args:
        screen: the screen that `edges` came from.
        whole: a float32 screen of the same rows.
        edges: every pair with |cosine| >= ``edges.floor``, but for crowded rows.
        ranked: the same edges by row.
        estimate: ``[n]`` float32, the largest |estimate| of every row in the sweep.

    Returns:
        ``[n]`` float64, rounded to 9 significant digits (zero where there is one row only).
    """
    units = screen.units
    best = torch.zeros(units.count, dtype=torch.float64, device=units.device)
    top = ranked.rank == 0
    _raise_to_cosines(units, best, ranked.row[top].long(), ranked.partner[top].long())
    found = []
    for start, stop in spans(len(edges.i), 1 << 22):
        i, j = edges.i[start:stop], edges.j[start:stop]
        lesser = torch.minimum(best[i], best[j])
        # A cosine of 1 cannot be beaten: copies need no further look.
        least = lesser - screen.slack - 1e-6
        rivals = (edges.cosine[start:stop].abs() >= least) & (lesser < 1.0)
        found.append(torch.stack([i[rivals], j[rivals]]).long())
    if found:
        _raise_to_rivals(screen, whole, best, *torch.cat(found, 1))
    unsure = ((best < edges.floor) | edges.crowded).nonzero().squeeze(1)
    for start, stop in spans(len(unsure), 4 * _rows_at_once(units.count)):
        _whole_maxima(screen, whole, unsure[start:stop], best, estimate)
    return best


def _raise_to_rivals(
    screen: Screen, whole: Screen, best: Tensor, row: Tensor, partner: Tensor
) -> None:
    """Raise both rows of each pair, looking closer first where the screen's slack is wide."""
    if screen.slack > 10 * whole.slack:
        low = torch.minimum(best[row], best[partner]) - whole.slack
        keep = pair_estimates(whole, row, partner).abs() >= low
        row, partner = row[keep], partner[keep]
    if len(row) > 4 * screen.units.count:
        row, partner = _closest(screen.units, best, row, partner)
    _raise_to_cosines(screen.units, best, row, partner)


def _closest(units: UnitRows, best: Tensor, row: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Of pairs in a crowd of near-copies, those that may be the largest of either row.

    A float64 product is exact to 1e-12, so next to nothing within rounding of the largest is left.
    """
    used, back = torch.unique(torch.cat([row, partner]), return_inverse=True)
    if 8 * len(used) * units.width > CROWD_BYTES:
        return row, partner
    rows = units.raw(used) / units.norms[used, None]
    value = sampled_products(rows, back[: len(row)], back[len(row) :]).abs()
    top = best.clone()
    top.scatter_reduce_(0, row, value, "amax")
    top.scatter_reduce_(0, partner, value, "amax")
    keep = value >= torch.minimum(top[row], top[partner]) - 2e-9
    return row[keep], partner[keep]


def _raise_to_cosines(units: UnitRows, best: Tensor, row: Tensor, partner: Tensor) -> None:
    """Raise both rows of each pair to their exact |cosine|, in place."""
    if not len(row):
        return
    low, high = torch.minimum(row, partner), torch.maximum(row, partner)
    key = torch.unique(low * units.count + high)
    low, high = torch.div(key, units.count, rounding_mode="floor"), key % units.count
    cosine = round9(units.cosines(low, high).abs())
    best.scatter_reduce_(0, low, cosine, "amax")
    best.scatter_reduce_(0, high, cosine, "amax")


def _whole_maxima(
    screen: Screen, whole: Screen, some: Tensor, best: Tensor, estimate: Tensor
) -> None:
    """Raise rows to their largest |cosine| with any row; listed entries do not settle them."""
    some = some[best[some] < 1.0]
    # The largest is estimated at most a slack low, and the largest estimate at most one high.
    least = (estimate[some] - 2 * screen.slack - 1e-6)[:, None]
    rows, partners = [], []
    for start, values in estimates(screen, some):
        at = (values.abs() >= least).nonzero()
        rows.append(some[at[:, 0]])
        partners.append(at[:, 1] + start)
    row, partner = torch.cat(rows), torch.cat(partners)
    others = row != partner
    _raise_to_rivals(screen, whole, best, row[others], partner[others])


def _whole_rows(screen: Screen, index: Tensor) -> Tensor:
    """|cosine| estimates ``[m, n]`` of some rows with all rows (0 with themselves)."""
    return torch.cat([values.abs() for _, values in estimates(screen, index)], 1)


def _rows_at_once(count: int) -> int:
    return max(8, min(256, (1 << 24) // max(count, 1)))


def babel(
    screen: Screen, whole: Screen, edges: Edges, ranked: Ranked, best: Tensor, k: int
) -> float:
    """Babel function mu_1(k): the largest sum of a row's k largest |cosines| (Tropp 2004).

    Upper bounds from the listed edges order the rows; whole rows are computed, largest bound
    first, until no remaining bound exceeds the largest exact sum.

    Args:
        screen, whole, edges, ranked: as for `row_maxima`.
        best: ``[n]`` float64, the exact row maxima.
        k: number of other rows; all of them where there are fewer.
    """
    count = screen.units.count
    k = min(k, count - 1)
    if k < 1:
        return 0.0
    slack = screen.slack + RANK_ERROR
    bound = _upper_bounds(slack, edges, ranked, best, k)
    kth = torch.zeros(count, device=best.device)
    at_k = ranked.rank == k - 1
    kth[ranked.row[at_k].long()] = ranked.magnitude[at_k]
    # The k largest are all listed where the k-th listed one certainly lies above the floor.
    listed = (kth - slack >= edges.floor) & ~edges.crowded
    order = torch.argsort(bound, descending=True, stable=True)
    largest, size = 0.0, 8
    while len(order) and float(bound[order[0]]) > largest:
        some, order = order[:size], order[size:]
        some = some[bound[some] > largest]
        sums = _listed_sums(screen, whole, ranked, some[listed[some]], kth, k, largest)
        largest = max(largest, sums)
        largest = _whole_sums(whole, some[~listed[some]], best, k, largest)
        size = _rows_at_once(count)
    return largest


def _listed_sums(
    screen: Screen, whole: Screen, ranked: Ranked, rows: Tensor, kth: Tensor, k: int, least: float
) -> float:
    """Largest exact sum of k over rows whose k largest are listed, or `least` if that is more."""
    units = screen.units
    mine = torch.zeros(units.count, dtype=torch.bool, device=rows.device)
    mine[rows] = True
    keep = mine[ranked.row].nonzero().squeeze(1)
    row, partner = ranked.row[keep].long(), ranked.partner[keep].long()
    large = ranked.magnitude[keep] >= kth[row] - 2 * (screen.slack + RANK_ERROR) - 1e-6
    row, partner = row[large], partner[large]
    if screen.slack > 10 * whole.slack:
        near = pair_estimates(whole, row, partner).abs().double()
        upper = _top_sums(row, near + whole.slack, units.count, k)
        keep = upper[row] > least
        row, partner = row[keep], partner[keep]
    if not len(row):
        return least
    sums = _top_sums(row, round9(units.cosines(row, partner).abs()), units.count, k)
    return max(least, float(round9(sums).max()))


def _top_sums(row: Tensor, value: Tensor, count: int, k: int) -> Tensor:
    """Sum of each row's k largest values, ``[count]`` float64, summed in one fixed order."""
    order = torch.argsort(value, descending=True, stable=True)
    order = order[torch.argsort(row[order], stable=True)]
    row, value = row[order], value[order]
    sizes = torch.bincount(row, minlength=count)
    rank = torch.arange(len(row), device=row.device)
    rank -= torch.repeat_interleave(sizes.cumsum(0) - sizes, sizes)
    used, at = torch.unique_consecutive(row, return_inverse=True)
    table = torch.zeros(len(used), k, dtype=torch.float64, device=row.device)
    top = rank < k
    table[at[top], rank[top]] = value[top]
    sums = torch.zeros(count, dtype=torch.float64, device=row.device)
    sums[used] = fold(table)
    return sums


def _whole_sums(whole: Screen, rows: Tensor, best: Tensor, k: int, largest: float) -> float:
    """The same for rows that must be computed whole."""
    if not len(rows):
        return largest
    values = _whole_rows(whole, rows)
    tight = values.topk(k, dim=1).values.double()
    tight = (tight + whole.slack).minimum(best[rows][:, None]).sum(1)
    for position in torch.argsort(tight, descending=True).tolist():
        if float(tight[position]) <= largest:
            break
        exact = _exact_sum(whole.units, int(rows[position]), values[position], whole.slack, k)
        largest = max(largest, exact)
    return largest


def _upper_bounds(slack: float, edges: Edges, ranked: Ranked, best: Tensor, k: int) -> Tensor:
    """Upper bound on the sum of each row's k largest |cosines|, ``[n]`` float64."""
    first = ranked.rank < k
    row = ranked.row[first].long()
    entries = (ranked.magnitude[first].double() + slack + 1e-6).minimum(best[row])
    total = torch.zeros_like(best).index_add_(0, row, entries)
    missing = (k - ranked.sizes).clamp(min=0)
    total += missing * best.clamp(max=edges.floor)
    return torch.where(edges.crowded, k * best, total)


def _exact_sum(units: UnitRows, row: int, values: Tensor, slack: float, k: int) -> float:
    least = float(values.topk(k).values[-1]) - 2 * slack
    partner = (values >= least).nonzero().squeeze(1)
    partner = partner[partner != row]
    cosine = round9(units.cosines(torch.full_like(partner, row), partner).abs())
    return float(round9(_top_sums(torch.full_like(partner, row), cosine, units.count, k)[row]))


def welch_bound(count: int, width: int) -> float:
    """Least possible coherence of `count` unit vectors in R^width (Welch 1974); 0 if they fit."""
    if count <= width or count < 2:
        return 0.0
    return math.sqrt((count - width) / (width * (count - 1)))


def unique_below(coherence: float) -> float | None:
    """Codes with fewer non-zeros than this are unique (Donoho & Elad 2003); None for no coherence.

    ``(1 + 1/mu) / 2``. For real dictionaries this is close to 1, that is, it certifies nothing.
    """
    return (1 + 1 / coherence) / 2 if coherence > 0 else None


def order_statistic(values: Tensor, q: float) -> float:
    """The ceil(q n)-th smallest value (the smallest for q = 0): a value that occurs, no average."""
    ordered = values.sort().values
    return float(ordered[max(math.ceil(q * len(ordered)) - 1, 0)])


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
    for _ in range(60):
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
