"""Where a scan's time goes: its parts timed apart, by standing in for their functions."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from saeaudit.core.rows import UnitRows

SEARCH, MAXIMA = "saeaudit.audit.scan.search", "saeaudit.core.cosines.maxima"
TRIPLES, BABEL = "saeaudit.core.cosines.triples", "saeaudit.core.cosines.babel"
PARTS = {
    f"{SEARCH}.make_screens": "packing",
    f"{SEARCH}.fine_screen": "packing",
    f"{SEARCH}.half_screen": "packing",
    f"{SEARCH}.add_quick": "packing",
    f"{SEARCH}.sample_rows": "choice",
    f"{SEARCH}.costs_on": "choice",
    f"{SEARCH}.forecasts": "choice",
    f"{SEARCH}.sweep": "pass",
    f"{SEARCH}.rank_entries": "lists",
    f"{SEARCH}.EdgeStore.add": "lists",
    f"{SEARCH}.EdgeStore.finish": "lists",
    f"{SEARCH}.row_maxima": "maxima",
    f"{SEARCH}.babel": "babel",
    f"{TRIPLES}.find_triples": "triples",
    f"{MAXIMA}.whole_rivals": "second look",
    f"{BABEL}._whole_sums": "second look",
    f"{MAXIMA}.pair_estimates": "pairs",
    f"{TRIPLES}.pair_estimates": "pairs",
    f"{BABEL}.pair_estimates": "pairs",
    "saeaudit.core.rows.UnitRows.cosines": "exact",
}
"""Functions of a scan, and the part that their time is counted to."""


class Stages:
    """Seconds of each part, without those of the parts inside it, and counts of what was done."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()
        self._clock = clock
        self._open: list[str] = []
        self._since = clock()

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the time inside to a part."""
        self._turn()
        self._open.append(name)
        try:
            yield
        finally:
            self._turn()
            self._open.pop()

    def _turn(self) -> None:
        now = self._clock()
        if self._open:
            self.seconds[self._open[-1]] += now - self._since
        self._since = now

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch every scan inside; what none of its parts claims is "rest"."""
        patches = [patch(target, self._timed(target, name)) for target, name in PARTS.items()]
        for each in patches:
            each.start()
        try:
            with self.part("rest"):
                yield
        finally:
            for each in reversed(patches):
                each.stop()

    def _timed(self, target: str, part: str) -> Callable[..., Any]:
        module, _, name = target.rpartition(".")
        function = getattr(_resolve(module), name)

        def timed(*arguments: Any, **options: Any) -> Any:
            with self.part(part):
                result = function(*arguments, **options)
            self._count(name, arguments, result)
            return self._each(result, part) if name == "sweep" else result

        return timed

    def _each(self, hits: Iterator[Any], part: str) -> Iterator[Any]:
        """What a generator yields, its time counted to a part and its consumer's not."""
        while True:
            with self.part(part):
                batch = next(hits, None)
            if batch is None:
                return
            self.counts["edges"] += len(batch.i)
            yield batch

    def _count(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        if name == "whole_rivals":
            self.counts["whole rows"] += len(arguments[1])
        elif name == "pair_estimates":
            self.counts["pairs"] += len(result)
        elif name == "cosines" and isinstance(arguments[0], UnitRows):
            self.counts["exact"] += len(result)


def _resolve(dotted: str) -> Any:
    """A module, or a class in one."""
    import importlib

    try:
        return importlib.import_module(dotted)
    except ModuleNotFoundError:
        module, _, name = dotted.rpartition(".")
        return getattr(importlib.import_module(module), name)
