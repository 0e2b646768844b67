"""Text fitted to a width: prose is wrapped at spaces, labels are cut, numbers and names never."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence

from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.text import Text

PROSE = 100
"""Longest line of prose, however wide the terminal is."""
GAP = "  "
"""Between columns."""
LEAST_LABEL = 8
"""Cells that a label keeps where there is no room for it."""
INDENT = 2
"""Cells before what belongs to a heading."""


def paragraph(text: str, width: int, indent: int = 0, hang: int = 0) -> list[str]:
    """Wrap prose at its spaces; what is longer than a line, such as a name, stands as it is.

    A no-break space holds together what is on both of its sides.

    Args:
        text: on one line.
        width: cells of a line.
        indent: blanks before each line.
        hang: further blanks before each line but the first.
    """
    lines = textwrap.wrap(
        text, min(width, PROSE), initial_indent=" " * indent,
        subsequent_indent=" " * (indent + hang), break_long_words=False, break_on_hyphens=False,
    )  # fmt: skip
    return [line.replace("\xa0", " ") for line in lines]


def cut(text: str, width: int) -> str:
    """A text of at most `width` cells; of a longer one the beginning, and an ellipsis.

    >>> cut("tokens such as 'the'", 10)
    'tokens su…'
    """
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"


def aligned(
    rows: Sequence[Sequence[str]], width: int, right: Collection[int] = (), *, cut_last: bool
) -> list[str]:
    """Columns under each other, below a heading.

    Args:
        rows: cells, of equally many columns.
        width: cells of a line.
        right: columns that are aligned to the right.
        cut_last: whether the last column is a text that may be cut where it does not fit.
    """
    widths = [max(map(cell_len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        *front, last = row
        cells = [_padded(cell, widths[at], at in right) for at, cell in enumerate(front)]
        room = width - INDENT - sum(map(cell_len, cells)) - len(GAP) * len(cells)
        if cut_last:
            last = cut(last, max(room, LEAST_LABEL))
        else:
            last = _padded(last, widths[-1], len(front) in right)
        lines.append((" " * INDENT + GAP.join([*cells, last])).rstrip())
    return lines


def comparison(header: Sequence[str], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """A table with a row for each SAE; where it does not fit, a block for each.

    Args:
        header: names of the columns, the first of the SAEs.
        rows: cells.
        width: cells of a line.
    """
    table = aligned([header, *rows], width, range(1, len(header)), cut_last=False)
    if max(map(cell_len, table)) <= width:
        return table
    lines = []
    for name, *cells in rows:
        lines.append(" " * INDENT + name)
        named = zip(header[1:], cells, strict=True)
        parts = [f"{title} {cell}".replace(" ", "\xa0") for title, cell in named]
        lines += paragraph(", ".join(parts), width, 2 * INDENT)
    return lines


def common_folder(names: Sequence[str]) -> str:
    """What ids of several SAEs begin with, up to a slash; empty where that is nothing.

    >>> common_folder(["a/layer_1/x", "a/layer_10/x"])
    'a/'
    """
    first, last = min(names, default=""), max(names, default="")
    same = 0
    while same < min(len(first), len(last)) and first[same] == last[same]:
        same += 1
    return first[: first.rfind("/", 0, same) + 1] if len(set(names)) > 1 else ""


def show(console: Console, lines: Sequence[str]) -> None:
    """Print lines as they are: what is longer than the terminal's is wrapped by the terminal."""
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def _padded(text: str, width: int, right: bool) -> str:
    space = " " * (width - cell_len(text))
    return space + text if right else text + space
