"""Whoever watches an audit, and may show how far it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from saeaudit.records import ScreenCost


class Observer:
    """Is told what an audit does; this one is silent. Override what is of interest.

    >>> class Printer(Observer):
    ...     def note(self, line):
    ...         print(line)
    >>> Printer().note("the first 1,000 of 5,000 activations")
    the first 1,000 of 5,000 activations
    >>> Printer().step("screening", 0.5)
    """

    def begin(self, sae: str, number: int, total: int) -> None:
        """The SAE of this number, from 1, is looked at next, of a total of so many."""

    def step(self, name: str, share: float, tokens: int | None = None) -> None:
        """A step of this name is done to this share, 0 to 1, perhaps of so many tokens."""

    def note(self, line: str) -> None:
        """There is a line that a user should read."""

    def screened(self, cost: ScreenCost) -> None:
        """An SAE's rows were searched, at this cost."""

    def arrived(self, size: int) -> None:
        """So many bytes have arrived from a network."""


SILENT = Observer()
"""Watches and says nothing."""
