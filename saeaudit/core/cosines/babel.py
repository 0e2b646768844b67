"""The Babel function: the largest sum of a row's k largest |cosines|.

Exact although the sweep only estimates: estimates with their slack say which rows can matter, and
those are recomputed.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.cosines.edges import RANK_ERROR, Ranked, ends_of, entries_of, errors_of
from saeaudit.core.cosines.screen import Screen, Screens, estimates, pair_estimates
from saeaudit.core.rows import MARGIN, UnitRows, fold, round9, spans

FIRST_ROWS = 8
"""Rows that are summed first: their sums rule out most of the others."""
MOST_ROWS = 4096
"""Rows whose listed entries are looked at closer together."""


def babel(screens: Screens, ranked: Ranked, best: Tensor, k: int) -> float:
    """Babel function mu_1(k): the largest sum of a row's k largest |cosines| (Tropp 2004).

    Upper bounds from the listed edges order the rows; whole rows are computed, largest bound
    first, until no remaining bound exceeds the largest exact sum.

    Args:
        screens, ranked: as for `row_maxima`.
        best: ``[n]`` float64, the exact row maxima.
        k: number of other rows; all of them where there are fewer.
    """
    count = screens.units.count
    k = min(k, count - 1)
    if k < 1:
        return 0.0
    if k == 1:
        return float(best.max())
    bound, least = first_bounds(screens.quick, ranked, best, k)
    tops = _Tops(k, best, least)
    # The k largest are all listed where k listed ones certainly lie above the floor.
    listed = (least >= ranked.floor) & ~ranked.crowded
    order = torch.argsort(bound, descending=True, stable=True)
    largest, size = 0.0, FIRST_ROWS
    while len(order) and float(bound[order[0]]) > largest:
        rows, order = order[:size], order[size:]
        rows = rows[bound[rows] > largest]
        if size > FIRST_ROWS and screens.refines:
            # A closer look at the largest entries alone rules most rows out.
            for closer in (k // 2, count):
                if len(rows):
                    tight = _tight_bounds(screens, ranked, rows, tops, closer)
                    bound[rows] = torch.minimum(bound[rows], tight)
                    rows = rows[bound[rows] > largest]
        largest = _listed_sums(screens, ranked, rows[listed[rows]], tops, largest)
        for start, stop in spans(len(rows), screens.units.budget.whole_rows(count)):
            part = rows[start:stop]
            part = part[~listed[part] & (bound[part] > largest)]
            largest = _whole_sums(screens.fine, part, best, k, largest)
        size = min(max(4 * size, screens.units.budget.whole_rows(count)), MOST_ROWS)
    return largest


def first_bounds(quick: Screen, ranked: Ranked, best: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What each row's first k listed entries say of its k largest |cosines|.

    Returns:
        Upper bounds on their sums, ``[n]`` float64, and lower bounds on the listed ones among them,
        ``[n]`` float32: zero where fewer than k are listed.
    """
    # Entries that are not listed lie below the floor, as a listed one's own upper bound may.
    below = best.clamp(max=ranked.floor)
    total, least = k * below, torch.zeros_like(best, dtype=torch.float32)
    place, begin = torch.arange(k, device=best.device), ranked.sizes.cumsum(0) - ranked.sizes
    step = max(1, quick.units.budget.entries // k)
    for start, stop in spans(len(best) if len(ranked.row) else 0, step):
        row = torch.arange(start, stop, device=best.device)[:, None]
        at = (begin[row] + place).clamp_(max=len(ranked.row) - 1)
        listed = place < ranked.sizes[row]
        partner, value = ranked.partner[at].long(), ranked.magnitude[at]
        most = (value + quick.off_by_at_most(row, value) + RANK_ERROR).double()
        most = most.maximum(below[row]).minimum(best[row])
        total[start:stop] = torch.where(listed, most, below[row]).sum(1)
        low = (value - quick.off_by(row, partner, value) - RANK_ERROR).clamp_(min=0)
        least[start:stop] = torch.where(listed, low, 0).amin(1)
    return torch.where(ranked.crowded, k * best, total), least


class _Tops(NamedTuple):
    """What is known of the k largest |cosines| of each of n rows."""

    k: int
    best: Tensor
    """``[n]`` float64: the largest, exact."""
    least: Tensor
    """``[n]`` float32: lower bounds on those of them that are listed, of `first_bounds`."""


class _Contenders(NamedTuple):
    """Listed entries of some rows that may be among their k largest, the rows ascending."""

    row: Tensor
    """``[e]`` int64."""
    partner: Tensor
    """``[e]`` int64."""
    most: Tensor
    """``[e]`` float32: upper bounds on |cosine|, of the screen that the list came from."""
    rank: Tensor
    """``[e]`` int32: of `Ranked`."""


def _contenders(quick: Screen, ranked: Ranked, rows: Tensor, least: Tensor) -> _Contenders:
    """Look up the contenders of the rows ``[m]`` int64, with `least` of `first_bounds`."""
    at = entries_of(ranked, rows.sort().values)
    most = ranked.magnitude[at] + errors_of(ranked, at, quick)
    near = most >= least[ranked.row[at]]
    at = at[near]
    return _Contenders(*ends_of(ranked, at), most[near], ranked.rank[at])


def _tight_bounds(
    screens: Screens, ranked: Ranked, rows: Tensor, tops: _Tops, closer: int
) -> Tensor:
    """Upper bounds on sums of k from a closer look at what is listed, ``[len(rows)]`` float64.

    What is not listed lies below the floor.

    Args:
        screens, ranked: as for `babel`.
        rows: ``[m]`` int64: which rows.
        tops: of all rows.
        closer: how many of each row's entries are looked at, the largest first.
    """
    (k, best, least), fine = tops, screens.fine
    listed, asked = least >= ranked.floor, rows[~ranked.crowded[rows]]
    row, partner, most, rank = _contenders(screens.quick, ranked, asked, least)
    near, seen = most.double(), rank < closer
    near[seen] = pair_estimates(fine, row[seen], partner[seen]).abs().double() + fine.slack
    near = near.minimum(best[row])
    below = best.clamp(max=ranked.floor)
    lifted = torch.where(listed[row], near, near.maximum(below[row]))
    sums = _top_sums(row, lifted, len(best), k)
    sums += torch.where(listed, 0.0, (k - ranked.sizes).clamp(min=0) * below)
    sums += MARGIN
    return torch.where(ranked.crowded[rows], k * best[rows], sums[rows])


def _listed_sums(
    screens: Screens, ranked: Ranked, rows: Tensor, tops: _Tops, largest: float
) -> float:
    """Largest exact sum of k over rows whose k largest are listed, or `largest` if that is more."""
    if not len(rows):
        return largest
    units, fine = screens.units, screens.fine
    row, partner, _, _ = _contenders(screens.quick, ranked, rows, tops.least)
    if screens.refines:
        near = pair_estimates(fine, row, partner).abs().double()
        upper = _top_sums(row, near + fine.slack, units.count, tops.k)
        keep = upper[row] > largest
        row, partner = row[keep], partner[keep]
    if not len(row):
        return largest
    sums = _top_sums(row, round9(units.cosines(row, partner).abs()), units.count, tops.k)
    return max(largest, float(round9(sums).max()))


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


def _whole_sums(fine: Screen, rows: Tensor, best: Tensor, k: int, largest: float) -> float:
    """The same for rows that must be computed whole."""
    if not len(rows):
        return largest
    values = torch.cat([values.abs() for _, values in estimates(fine, rows)], 1)
    tight = values.topk(k, dim=1).values.double()
    tight = (tight + fine.slack).minimum(best[rows][:, None]).sum(1)
    for position in torch.argsort(tight, descending=True).tolist():
        if float(tight[position]) <= largest:
            break
        exact = _exact_sum(fine.units, int(rows[position]), values[position], fine.slack, k)
        largest = max(largest, exact)
    return largest


def _exact_sum(units: UnitRows, row: int, values: Tensor, slack: float, k: int) -> float:
    least = float(values.topk(k).values[-1]) - 2 * slack
    partner = (values >= least).nonzero().squeeze(1)
    partner = partner[partner != row]
    cosine = round9(units.cosines(torch.full_like(partner, row), partner).abs())
    return float(round9(_top_sums(torch.full_like(partner, row), cosine, units.count, k)[row]))
