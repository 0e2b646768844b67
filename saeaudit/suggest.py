"""Names that were meant: what a user typed against all names that there are."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

LONGEST = 300
"""Characters that are compared: what is longer is no mistyped name."""
FEWEST = 3
"""Characters that a beginning must have to stand for the names that begin with it."""
MOST = 4
"""Names that are shown."""


def nearest(typed: str, names: Iterable[str], cutoff: float = 0.6) -> list[str]:
    """Names that may have been meant: those that begin like it, else the most similar one.

    Never what was typed itself. Upper and lower case count as the same.

    Args:
        typed: what names nothing.
        names: all that would have named something.
        cutoff: similarity of the least similar name that is taken, 0 to 1.

    Example: ``nearest("gemma", ["gemma-a", "gemma-b", "llama"])`` is ``["gemma-a", "gemma-b"]``.
    """
    wanted = typed.rstrip("/")[:LONGEST].lower()
    by_lower = {name.lower(): name for name in names if name != typed.rstrip("/")}
    if len(wanted) >= FEWEST:
        longer = sorted(name for lower, name in by_lower.items() if lower.startswith(wanted))
        if longer:
            return longer
    close = difflib.get_close_matches(wanted, by_lower, n=1, cutoff=cutoff)
    return [by_lower[lower] for lower in close]


def did_you_mean(typed: str, names: Iterable[str], more: str = "", cutoff: float = 0.6) -> str:
    """A hint: "did you mean a, b or c?", or nothing where no name is near.

    Args:
        typed: what names nothing.
        names: all that would have named something.
        more: says where the others stand, where more are meant than are shown.
        cutoff: as `nearest` takes it.

    Example: ``did_you_mean("scna", ["scan", "score"])`` is "did you mean scan?".
    """
    close = nearest(typed, names, cutoff)
    if len(close) > MOST:
        shown = ", ".join(close[:MOST])
        return f"did you mean {shown} or {len(close) - MOST} more? {more}".rstrip()
    if len(close) > 1:
        return f"did you mean {', '.join(close[:-1])} or {close[-1]}?"
    return f"did you mean {close[0]}?" if close else ""
