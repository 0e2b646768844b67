"""The search itself: one dictionary's pairs, triples and figures, on a device that may be short."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.core.cosines import triples
from saeaudit.core.cosines.babel import babel
from saeaudit.core.cosines.edges import EdgeStore, TooDenseError, rank_entries
from saeaudit.core.cosines.genuine import Triples, strong_floor, useful_cosines
from saeaudit.core.cosines.maxima import closest_pair, row_maxima
from saeaudit.core.cosines.pairs import PairFinder, Pairs
from saeaudit.core.cosines.screen import Screen, estimates, make_screens
from saeaudit.core.cosines.stream import place_rows
from saeaudit.core.cosines.sweep import sweep
from saeaudit.core.rows import MARGIN, UnitRows
from saeaudit.errors import AuditError
from saeaudit.records import Babel
from saeaudit.vocabulary import ScreenName


@dataclass(frozen=True)
class SearchResult:
    """Pairs, triples and the figures of a sweep, all on the CPU."""

    pairs: Pairs
    triples: Triples
    row_max: Tensor
    closest: tuple[Tensor, Tensor]
    """``[1]`` int64 each: the rows with the largest |cosine|."""
    babel: Babel
    edge_floor: float


def search(
    sae: str, units: UnitRows, options: ScanOptions, name: ScreenName, observer: Observer = SILENT
) -> SearchResult:
    """Search; where a device's memory does not suffice, again with less of it.

    Raises:
        AuditError: not even the smallest tiles fit, or the device failed.
    """
    budgets = [options.budget]
    if options.device != "cpu":
        streamed = replace(options.budget, held_share=0.0)
        budgets += [streamed, replace(streamed, tile=1024), replace(streamed, tile=256)]
    for budget in budgets:
        try:
            return _search(sae, replace(units, budget=budget), options, name, observer)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
        except (MemoryError, torch.AcceleratorError) as error:
            raise AuditError(_first_line(error), where=f"{sae} on {options.device}") from error
    raise AuditError(
        f"out of memory on {options.device}, even with small tiles",
        where=sae,
        hint="--device cpu, or free what other processes hold there",
    )


def _first_line(error: BaseException) -> str:
    return (str(error.args[0] if error.args else "") or type(error).__name__).splitlines()[0]


def _search(
    sae: str, units: UnitRows, options: ScanOptions, name: ScreenName, observer: Observer
) -> SearchResult:
    rho, gamma, tau = options.max_residual, options.min_gain, options.min_cosine
    device = torch.device(options.device)
    units = place_rows(units, device)
    screens = make_screens(units, name, device)
    screen = screens.quick
    edge_floor = triples.edge_floor(units.width, rho, gamma)
    floor = min(edge_floor, _listing_floor(screen, edge_floor))
    finder = PairFinder(screen, tau)
    store = EdgeStore(
        screen,
        floor,
        useful=useful_cosines(rho),
        strong=strong_floor(rho, gamma),
    )
    estimate = torch.zeros(units.count, device=units.device)
    report = partial(observer.step, "screening")
    try:
        for hits in sweep(screen, min(floor, tau), estimate, progress=report):
            finder.add(hits)
            store.add(hits)
        observer.step("refining", 0.0)
        pairs, edges = finder.finish(), store.finish()
        findings = triples.find_triples(screens, edges, rho, gamma)
    except TooDenseError as error:
        raise AuditError(
            f"too many strongly correlated features for the exact search: {error}",
            where=sae,
            hint="a smaller --max-residual or a larger --min-gain has fewer candidates",
        ) from error
    ranked = rank_entries(edges, units.count)
    row_max = row_maxima(screens, edges, ranked, estimate)
    _check_certificate(sae, screen, row_max, estimate, min(floor, tau))
    first, second = closest_pair(screens, row_max, estimate)
    sums = [babel(screens, ranked, row_max, k) for k in (1, 8, 32)]
    return SearchResult(
        pairs.cpu(),
        Triples(*(column.cpu() for column in findings)),
        row_max.cpu(),
        (first.cpu(), second.cpu()),
        Babel(*sums),
        edge_floor,
    )


def _check_certificate(
    sae: str, screen: Screen, row_max: Tensor, estimate: Tensor, floor: float
) -> None:
    """Compare every row's largest cosine, exact, with what the sweep made of it.

    A processor or driver that multiplies wrongly could hide findings; it shows here. A row of which
    no pair was proposed has no estimate: they were all below ``floor - slack``.

    Raises:
        AuditError: an estimate is further off than the slack allows.
    """
    unproposed = row_max - (floor - screen.slack)
    off = float(torch.where(estimate > 0, (row_max - estimate).abs(), unproposed).max())
    if off > screen.slack + 2 * MARGIN:
        raise AuditError(
            f"the {screen.name} products of {screen.device} are off by {off:.2g} where "
            f"{screen.slack:.2g} is possible: this machine's arithmetic is not to be trusted",
            where=sae,
            hint="try --device cpu, or another --screen",
        )


def _listing_floor(screen: Screen, edge_floor: float) -> float:
    """Threshold from which a sweep's hits are kept, so that they cover nearly every row's maximum.

    A guess from 64 rows that only affects speed: rows that it fails are computed whole.
    """
    count = screen.units.count
    rows = torch.arange(0, count, max(1, count // 64), device=screen.units.device)[:64]
    values = torch.cat([v.abs() for _, v in estimates(screen, rows)], 1)
    # 64 entries a row on average (fewer in a million rows), slack included: enough to cover the
    # largest cosines of nearly every row, and to bound the Babel function closely.
    most = max(1, min(values.numel() - 1, len(rows) * min(64, screen.units.budget.edges // count)))
    above = torch.histc(values, 8192, 0.0, 1.0).flip(0).cumsum(0)
    affordable = 1.0 - int((above <= most).sum()) / 8192 + screen.slack
    return min(max(affordable, 2 * screen.slack), edge_floor)
