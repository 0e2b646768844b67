"""Every row's largest |cosine| with any other row, and figures that follow from it.

Exact although the sweep only estimates: estimates with their slack say which entries and rows can
matter, and those are recomputed.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from saeaudit.core.cosines.edges import Edges, Ranked
from saeaudit.core.cosines.products import sampled_products
from saeaudit.core.cosines.screen import Screens, estimates, pair_estimates
from saeaudit.core.rows import MARGIN, UnitRows, round9, spans

SEVERAL = 4
"""Blocks of whole rows in one step: only entries near the largest are kept of them."""
SAME_DIGITS = 2e-9
"""Cosines closer than this may round to the same 9 digits."""
CROWDED = 4
"""Rivals a row from which on a float64 product sorts them before they are computed exactly."""


def row_maxima(screens: Screens, edges: Edges, ranked: Ranked, estimate: Tensor) -> Tensor:
    """Exact largest |cosine| of every row with any other row.

    Args:
        screens: the rows; `edges` came from the quick one.
        edges: every pair with |cosine| >= ``edges.floor``, but for crowded rows.
        ranked: the same edges by row.
        estimate: ``[n]`` float32, the largest |estimate| of every row in the sweep.

    Returns:
        ``[n]`` float64, rounded to 9 significant digits (zero where there is one row only).
    """
    units = screens.units
    best = torch.zeros(units.count, dtype=torch.float64, device=units.device)
    top = ranked.rank == 0
    _raise_to_cosines(units, best, ranked.row[top].long(), ranked.partner[top].long())
    rivals = []
    for start, stop in spans(len(edges.i), units.budget.entries):
        i, j = edges.i[start:stop], edges.j[start:stop]
        lesser = torch.minimum(best[i], best[j])
        # A cosine of 1 cannot be beaten: copies need no further look.
        least = lesser - screens.quick.slack - MARGIN
        near = (edges.cosine[start:stop].abs() >= least) & (lesser < 1.0)
        rivals.append(torch.stack([i[near], j[near]]).long())
    if rivals:
        _raise_to_rivals(screens, best, *torch.cat(rivals, 1))
    unsure = ((best < edges.floor) | edges.crowded).nonzero().squeeze(1)
    for start, stop in spans(len(unsure), SEVERAL * units.budget.whole_rows(units.count)):
        _whole_maxima(screens, unsure[start:stop], best, estimate)
    return best


def _raise_to_rivals(screens: Screens, best: Tensor, row: Tensor, partner: Tensor) -> None:
    """Raise both rows of each pair, looking closer first where the screen's slack is wide."""
    units, fine = screens.units, screens.fine
    if screens.refines:
        low = torch.minimum(best[row], best[partner]) - fine.slack
        keep = pair_estimates(fine, row, partner).abs() >= low
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


def _whole_maxima(screens: Screens, rows: Tensor, best: Tensor, estimate: Tensor) -> None:
    """Raise rows to their largest |cosine| with any row; listed entries do not settle them."""
    rows = rows[best[rows] < 1.0]
    # The largest is estimated at most a slack low, and the largest estimate at most one high.
    least = (estimate[rows] - 2 * screens.quick.slack - MARGIN)[:, None]
    rivals = []
    for start, values in estimates(screens.quick, rows):
        at, column = (values.abs() >= least).nonzero().unbind(1)
        rivals.append(torch.stack([rows[at], column + start]))
    row, partner = torch.cat(rivals, 1)
    others = row != partner
    _raise_to_rivals(screens, best, row[others], partner[others])


def unique_below(coherence: float) -> float | None:
    """Codes with fewer non-zeros than this are unique (Donoho & Elad 2003); None for no coherence.

    ``(1 + 1/mu) / 2``. For real dictionaries this is close to 1, that is, it certifies nothing.
    """
    return (1 + 1 / coherence) / 2 if coherence > 0 else None


def order_statistic(values: Tensor, q: float) -> float:
    """The ceil(q n)-th smallest value (the smallest for q = 0): a value that occurs, no average."""
    ordered = values.sort().values
    return float(ordered[max(math.ceil(q * len(ordered)) - 1, 0)])
