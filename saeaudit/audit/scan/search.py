"""The search itself: one dictionary's pairs, triples and figures, on a device that may be short."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.core.cosines import triples
from saeaudit.core.cosines.babel import babel
from saeaudit.core.cosines.costs import costs_on
from saeaudit.core.cosines.edges import EdgeStore, TooDenseError, rank_entries
from saeaudit.core.cosines.forecast import (
    Forecast,
    Goals,
    forecasts,
    listing_floor,
    sample_rows,
)
from saeaudit.core.cosines.genuine import Triples, strong_floor, useful_cosines
from saeaudit.core.cosines.maxima import closest_pair, row_maxima
from saeaudit.core.cosines.pairs import PairFinder, Pairs
from saeaudit.core.cosines.screen import (
    Screen,
    Screens,
    add_quick,
    fine_screen,
    half_screen,
    make_screens,
)
from saeaudit.core.cosines.stream import place_rows
from saeaudit.core.cosines.sweep import sweep
from saeaudit.core.rows import MARGIN, UnitRows
from saeaudit.errors import AuditError
from saeaudit.records import Babel, Predicted, ScreenCost
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
    cost: ScreenCost
    """What it took, and was expected to."""


def search(
    sae: str,
    units: UnitRows,
    options: ScanOptions,
    name: ScreenName | None = None,
    observer: Observer = SILENT,
) -> SearchResult:
    """Search; where a device's memory does not suffice, again with less of it.

    Args:
        sae: what it is called.
        units: its rows.
        options: what to look for.
        name: the kind of product; the one that is expected to take least time where None.
        observer: is told how far it is.

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
    sae: str, units: UnitRows, options: ScanOptions, name: ScreenName | None, observer: Observer
) -> SearchResult:
    begun = time.perf_counter()
    rho, gamma, tau = options.max_residual, options.min_gain, options.min_cosine
    device = torch.device(options.device)
    units = place_rows(units, device)
    edge_floor = triples.edge_floor(units.width, rho, gamma)
    screens, floor, expected = _prepare(
        units, device, name, Goals(edge_floor, strong_floor(rho, gamma))
    )
    screen = screens.quick
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
    first, second = closest_pair(screens, ranked, row_max, estimate)
    sums = [babel(screens, ranked, row_max, k) for k in (1, 8, 32)]
    return SearchResult(
        pairs.cpu(),
        Triples(*(column.cpu() for column in findings)),
        row_max.cpu(),
        (first.cpu(), second.cpu()),
        Babel(*sums),
        edge_floor,
        ScreenCost(
            sae=sae,
            screen=screens.name,
            seconds=round(time.perf_counter() - begun, 3),
            predicted=_predicted(expected) if expected else None,
        ),
    )


def _predicted(expected: Mapping[ScreenName, Forecast]) -> Predicted:
    return Predicted(**{name: round(made.seconds, 3) for name, made in expected.items()})


def _prepare(
    units: UnitRows, device: torch.device, name: ScreenName | None, goals: Goals
) -> tuple[Screens, float, Mapping[ScreenName, Forecast]]:
    """Make the rows ready for a kind of product, the best one where none is named.

    Returns:
        The screens, the threshold from which edges are listed, and what was expected of each kind.
    """
    expected: Mapping[ScreenName, Forecast] = {}
    if name:
        screens = make_screens(units, name, device)
        sample = sample_rows(screens.quick)
    else:
        fine = fine_screen(units, device)
        half = half_screen(fine)
        sample = sample_rows(half or fine)
        expected = forecasts(fine, sample, goals, costs_on(units.width, device))
        best = min(expected, key=lambda kind: expected[kind].seconds)
        if half and best not in ("int8", half.name):
            half = None  # a copy that is of no use is given back before another is made
        screens = add_quick(fine, best, half)
    floor = listing_floor(sample, screens.quick, goals.edge_floor)
    return screens, floor, expected


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
