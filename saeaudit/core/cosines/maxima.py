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
from saeaudit.core.cosines.screen import Screen, estimates, pair_estimates
from saeaudit.core.rows import UnitRows, round9, spans


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
    for start, stop in spans(len(edges.i), units.budget.entries):
        i, j = edges.i[start:stop], edges.j[start:stop]
        lesser = torch.minimum(best[i], best[j])
        # A cosine of 1 cannot be beaten: copies need no further look.
        least = lesser - screen.slack - 1e-6
        rivals = (edges.cosine[start:stop].abs() >= least) & (lesser < 1.0)
        found.append(torch.stack([i[rivals], j[rivals]]).long())
    if found:
        _raise_to_rivals(screen, whole, best, *torch.cat(found, 1))
    unsure = ((best < edges.floor) | edges.crowded).nonzero().squeeze(1)
    for start, stop in spans(len(unsure), 4 * units.budget.whole_rows(units.count)):
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
    if 8 * len(used) * units.width > units.budget.crowd_bytes:
        return row, partner
    rows = units.raw(used) / units.norms[used, None]
    first, second = back[: len(row)], back[len(row) :]
    value = sampled_products(rows, first, second, units.budget.paired_rows).abs()
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


def unique_below(coherence: float) -> float | None:
    """Codes with fewer non-zeros than this are unique (Donoho & Elad 2003); None for no coherence.

    ``(1 + 1/mu) / 2``. For real dictionaries this is close to 1, that is, it certifies nothing.
    """
    return (1 + 1 / coherence) / 2 if coherence > 0 else None


def order_statistic(values: Tensor, q: float) -> float:
    """The ceil(q n)-th smallest value (the smallest for q = 0): a value that occurs, no average."""
    ordered = values.sort().values
    return float(ordered[max(math.ceil(q * len(ordered)) - 1, 0)])
