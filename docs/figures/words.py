"""Figures of records in words."""

from __future__ import annotations

from saeaudit.records import Estimate, Interval


def percent(share: float | None, digits: int = 1) -> str:
    """A share.

    >>> percent(0.125), percent(None)
    ('12.5 %', '-')
    """
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def ends(of: Estimate | Interval | None, digits: int = 1, scale: float = 1) -> str:
    """An interval.

    >>> ends(Interval(1.25, 3.5)), ends(None)
    ('1.2 to 3.5', '')
    """
    return "" if of is None else f"{scale * of.low:,.{digits}f} to {scale * of.high:,.{digits}f}"


def with_interval(of: Estimate, digits: int = 1, scale: float = 1) -> str:
    """A figure and its interval.

    >>> with_interval(Estimate(0.5, 0.4, 0.61), scale=100)
    '50.0 (40.0 to 61.0)'
    """
    return f"{scale * of.value:.{digits}f} ({ends(of, digits, scale)})"
