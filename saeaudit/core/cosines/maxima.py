"""Every row's largest |cosine| with any other row, and figures that follow from it.

Exact although the sweep only estimates: estimates with their slack say which entries and rows can
matter, and those are recomputed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from saeaudit.core.cosines.edges import Edges, Ranked, ends_of, entries_of, errors_of
from saeaudit.core.cosines.products import entries_above, largest, sampled_products
from saeaudit.core.cosines.screen import Screens, pair_estimates, products_with_all
from saeaudit.core.rows import MARGIN, UnitRows, round9, spans

ENTRIES_A_PAIR = {torch.float32: 24, torch.bfloat16: 64, torch.float16: 64}
"""Entries of a whole row in each kind of product that cost as much as one pair looked at alone:
measured at width 2304, where one pair took 5.2 us, and 16,384 entries 3.4 ms and 1.2 ms."""
SAME_DIGITS = 2e-9
"""Cosines closer than this may round to the same 9 digits."""
CROWDED = 4
"""Rivals a row from which on a float64 product sorts them before they are computed exactly."""


def row_maxima(screens: Screens, edges: Edges, ranked: Ranked, estimate: Tensor) -> Tensor:
    """Exact largest |cosine| of every row with any other row.

    A row with few rivals (listed entries that may be larger than the largest estimate turns out to
    be) has each of them looked at; a row with many, or with its largest not listed, is multiplied
    with all rows once more, by a product with a smaller slack.

    Args:
        screens: the rows; `edges` came from the quick one.
        edges: every pair with |cosine| >= ``edges.floor``, but for crowded rows.
        ranked: the same edges by row.
        estimate: ``[n]`` float32, the largest |estimate| of every row among the pairs proposed.

    Returns:
        ``[n]`` float64, rounded to 9 significant digits (zero where there is one row only).
    """
    units = screens.units
    best = torch.zeros(units.count, dtype=torch.float64, device=units.device)
    first = ranked.rank == 0
    row, partner = ranked.row[first].long(), ranked.partner[first].long()
    _raise_to_cosines(units, best, row, partner)
    top = torch.full((units.count,), -1, device=units.device).index_put_((row,), partner)
    unsettled = (best < edges.floor) | edges.crowded
    numbers = torch.zeros(units.count, dtype=torch.int64, device=units.device)
    rivals = partial(_listed_rivals, screens, edges, best, top)
    held = list(rivals()) if len(edges.i) <= units.budget.entries else None  # not found twice
    for row, _ in held or rivals():
        numbers += torch.bincount(row, minlength=units.count)
    # A cosine of 1 cannot be beaten: copies need no further look.
    whole = (unsettled | (numbers > _affordable(screens))) & (best < 1.0)
    for row, partner in held or rivals():
        few = ~whole[row]
        _raise_to_rivals(screens, best, row[few], partner[few])
    rows = whole.nonzero().squeeze(1)
    for start, stop in spans(len(rows), units.budget.second_rows.on(units.device)):
        pair = whole_rivals(screens, rows[start:stop], best, estimate)
        _raise_to_rivals(screens, best, *pair.unbind(1))
    return best


def _affordable(screens: Screens) -> int:
    """Rivals of a row that cost as much to look at as the row whole."""
    return max(1, screens.units.count // ENTRIES_A_PAIR[screens.second.dtype])


def _listed_rivals(
    screens: Screens, edges: Edges, best: Tensor, top: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """Listed entries that may exceed a row's `best`: int64 rows and partners, some at a time.

    Pairs of a row and its `top` are known exactly, and passed over.
    """
    for start, stop in spans(len(edges.i), screens.units.budget.entries):
        i, j, cosine = edges.i[start:stop], edges.j[start:stop], edges.cosine[start:stop]
        most = cosine.abs() + (screens.quick.slack + MARGIN)
        near = most >= torch.minimum(best[i], best[j])
        i, j, cosine = i[near].long(), j[near].long(), cosine[near]
        fresh = (top[i] != j) & (top[j] != i)
        i, j, cosine = i[fresh], j[fresh], cosine[fresh]
        most = cosine.abs() + screens.quick.off_by(i, j, cosine)
        ends = []
        for row, partner in ((i, j), (j, i)):
            near = (most >= best[row]) & (best[row] < 1.0)
            ends.append((row[near], partner[near]))
        yield torch.cat([ends[0][0], ends[1][0]]), torch.cat([ends[0][1], ends[1][1]])


def _raise_to_rivals(screens: Screens, best: Tensor, row: Tensor, partner: Tensor) -> None:
    """Raise both rows of each pair that may exceed the row's `best`, after a closer look."""
    units, fine = screens.units, screens.fine
    if not len(row):
        return
    if screens.refines:
        value = pair_estimates(fine, row, partner).abs().double()
        least = best.scatter_reduce(0, row, value - fine.slack, "amax")
        keep = value + fine.slack >= least[row]
        row, partner = row[keep], partner[keep]
    if len(row) > CROWDED * units.count:
        row, partner = _closest(units, best, row, partner)
    _raise_to_cosines(units, best, row, partner)


def _closest(units: UnitRows, best: Tensor, row: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Of pairs in a crowd of near-copies, those that may be the largest of either row.

    A float64 product is exact to 1e-12, so that few are within rounding of the largest.
    """
    used, back = torch.unique(torch.cat([row, partner]), return_inverse=True)
    if 8 * len(used) * units.width > units.budget.crowd_bytes:
        return row, partner
    rows = units.raw(used) / units.norms[used, None]
    first, second = back[: len(row)], back[len(row) :]
    value = sampled_products(rows, first, second, units.budget.paired_rows).abs()
    top = best.clone()
    top.scatter_reduce_(0, row, value, "amax")
    top.scatter_reduce_(0, partner, value, "amax")
    keep = value >= torch.minimum(top[row], top[partner]) - SAME_DIGITS
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


def whole_rivals(screens: Screens, rows: Tensor, best: Tensor, estimate: Tensor) -> Tensor:
    """Entries of whole rows that may be the largest, by the second screen.

    Args:
        screens: the rows.
        rows: ``[m]`` int64: which to look at.
        best: ``[n]`` float64: exact |cosines| that each row's largest is not below.
        estimate: ``[n]`` float32, as for `row_maxima`.

    Returns:
        ``[c, 2]`` int64: row and partner.
    """
    second = screens.second
    error = second.error[rows]
    worst = second.error.max()
    margin = (error + worst + error * worst + second.rest + MARGIN).double()
    share = second.rounding
    # The largest is estimated at most a slack low by the sweep.
    least = torch.maximum(best[rows], estimate[rows].double() - screens.quick.slack - MARGIN)
    parts = []
    for start, value in products_with_all(second, rows):
        most = largest(value.abs_()).to(best.device, torch.float64)
        least = torch.maximum(least, most * (1 - share) - margin)
        need = ((least - margin) / (1 + share)).clamp(min=0) * (1 - torch.finfo(value.dtype).eps)
        at, column, entry = entries_above(value, need)
        parts.append((at, column + start, entry))
    at, partner, entry = (torch.cat(column) for column in zip(*parts, strict=True))
    keep = (entry.double() * (1 + share) + margin[at] >= least[at]) & (rows[at] != partner)
    return torch.stack([rows[at], partner], 1)[keep]


def closest_pair(
    screens: Screens, ranked: Ranked, best: Tensor, estimate: Tensor
) -> tuple[Tensor, Tensor]:
    """The two rows with the largest |cosine|, the first of them in order where several tie.

    Args:
        screens: the rows, two or more.
        ranked: as for `row_maxima`.
        best: ``[n]`` float64, `row_maxima`.
        estimate: ``[n]`` float32, as for `row_maxima`.

    Returns:
        ``[1]`` int64 each, the lower row first.
    """
    units = screens.units
    row = (best == best.max()).nonzero()[:1, 0]
    if bool((best[row] >= ranked.floor) & ~ranked.crowded[row]):  # those that tie are listed
        at = entries_of(ranked, row)
        near = ranked.magnitude[at] + errors_of(ranked, at, screens.quick) >= best[row]
        rivals = ends_of(ranked, at[near])[1]
    else:
        rivals = whole_rivals(screens, row, best, estimate)[:, 1]
    rivals = rivals.sort().values
    cosine = round9(units.cosines(row.expand(len(rivals)), rivals).abs())
    return row, rivals[cosine == cosine.max()][:1]


def unique_below(coherence: float) -> float | None:
    """Codes with fewer non-zeros than this are unique (Donoho & Elad 2003); None for no coherence.

    ``(1 + 1/mu) / 2``. For real dictionaries this is close to 1, that is, it certifies nothing.
    """
    return (1 + 1 / coherence) / 2 if coherence > 0 else None


def order_statistic(values: Tensor, q: float) -> float:
    """The ceil(q n)-th smallest value (the smallest for q = 0): a value that occurs, no average."""
    ordered = values.sort().values
    return float(ordered[max(math.ceil(q * len(ordered)) - 1, 0)])
