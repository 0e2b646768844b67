"""What charts are made of: colours that follow the page, and marks that several charts have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing import TypeAlias

    import altair as alt

    Drawable: TypeAlias = alt.LayerChart | alt.FacetChart | alt.VConcatChart

ACCENT = "var(--accent,#1f5fb0)"
SECOND = "var(--second,#b4540a)"
THIRD = "var(--third,#5b7a2f)"
NULL = "var(--null,#b9bfc6)"
INK = "var(--ink,#1c2126)"
SOFT = "var(--soft,#59626b)"
LINE = "var(--line,#e1e4e8)"
"""Variables of the page's style, which knows light and dark; the colour behind the comma is what a
file by itself has, and a reader that knows no variables."""

WIDTH, HEIGHT = 270, 190
"""Pixels of a plot: with its axes it fits a phone of 390 as it is."""
MOST_DOTS = 300
"""Dots drawn; more are counted in cells."""
CELLS = 14
"""Cells a side where dots are counted."""
TYPEFACE = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"


@dataclass(frozen=True)
class Picture:
    """A chart to be drawn."""

    name: str
    """Of its file."""
    title: str
    """What it is about, in a line."""
    caption: str
    """What it shows, with its main figures: it stands for the chart where that is not seen."""
    chart: Drawable
    """The chart."""


def fallback_colours(svg: str) -> str:
    """An SVG without variables, for readers that know none.

    >>> fallback_colours('fill="var(--accent,#1f5fb0)"')
    'fill="#1f5fb0"'
    """
    return re.sub(r"var\(--\w+,(#\w+)\)", r"\1", svg)


def rule(x: float, text: str, colour: str, ink: str) -> list[alt.Chart]:
    """An upright line, and to the left of it its name."""
    import altair as alt

    base = alt.Chart(alt.InlineData(values=[{"at": x, "text": text}])).encode(x="at:Q")
    name = base.mark_text(color=ink, align="right", dx=-4, baseline="top", fontSize=10)
    return [
        base.mark_rule(color=colour, strokeDash=[3, 3]),
        name.encode(y=alt.value(2), text="text:N"),
    ]


def scatter(points: Sequence[tuple[float, float]], x: str, y: str) -> Drawable:
    """Dots, or where there are many, cells that are the darker the more dots they hold.

    Args:
        points: at least one.
        x, y: what the axes are called.
    """
    import altair as alt

    if len(points) <= MOST_DOTS:
        rows: list[dict[str, Any]] = [{"x": a, "y": b} for a, b in points]
        scale = alt.Scale(zero=False, nice=True, padding=6)
        dots = alt.Chart(alt.InlineData(values=rows)).mark_point(
            color=ACCENT, filled=True, size=42, opacity=0.65
        )
        return alt.layer(
            dots.encode(x=alt.X("x:Q", title=x, scale=scale), y=alt.Y("y:Q", title=y, scale=scale))
        )
    scale = alt.Scale(zero=False, nice=False)
    shade = alt.Scale(type="log", range=[0.15, 1])
    tiles = alt.Chart(alt.InlineData(values=cells(points))).mark_rect(color=ACCENT)
    return alt.layer(
        tiles.encode(
            x=alt.X("x:Q", title=x, scale=scale), x2="x2:Q",
            y=alt.Y("y:Q", title=y, scale=scale), y2="y2:Q",
            opacity=alt.Opacity("count:Q", scale=shade, legend=None),
        )
    )  # fmt: skip


def cells(points: Sequence[tuple[float, float]]) -> list[dict[str, float]]:
    """How many points are in each cell of a grid over all of them; empty cells are left out."""
    lows = [min(point[axis] for point in points) for axis in (0, 1)]
    sides = [
        max((max(point[axis] for point in points) - low) / CELLS, 1e-9)
        for axis, low in enumerate(lows)
    ]
    counts: dict[tuple[int, int], int] = {}
    for point in points:
        i, j = (
            min(int((value - low) / side), CELLS - 1)
            for value, low, side in zip(point, lows, sides, strict=True)
        )
        counts[i, j] = counts.get((i, j), 0) + 1
    return [
        {
            "x": lows[0] + i * sides[0], "x2": lows[0] + (i + 1) * sides[0],
            "y": lows[1] + j * sides[1], "y2": lows[1] + (j + 1) * sides[1], "count": count,
        }
        for (i, j), count in sorted(counts.items())
    ]  # fmt: skip
