"""Words, figures and tables of docs/findings.md."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import Any

Row = dict[str, Any]
Figure = Sequence[float]

NO_BREAK = "\N{NO-BREAK SPACE}"
NAMES = {"SAE": "SAE", "random": "random rows"}


def holds(follows: bool, sentence: str) -> str:
    """A sentence that follows from the figures.

    Raises:
        ValueError: it does not.
    """
    if not follows:
        raise ValueError(f"the figures do not say so any more: {sentence}")
    return sentence


def one(rows: Iterable[Row], **which: object) -> Row:
    """The only row that is of this."""
    (row,) = (row for row in rows if which.items() <= row.items())
    return row


def share(figure: Figure) -> str:
    """A share in per cent.

    >>> share((0.5, 0.4, 0.61))
    '50 % (40 to 61)'
    """
    return _hundredths(figure, "%", 0)


def number(figure: Figure) -> str:
    """A number with its interval.

    >>> number((0.25, -0.13, 0.5))
    '0.2 (-0.1 to 0.5)'
    """
    value, low, high = figure
    return f"{value:.1f} ({low:.1f} to {high:.1f})"


def points(figure: Figure) -> str:
    """A difference of shares.

    >>> points((0.25, 0.23, 0.27))
    '25.0 points (23.0 to 27.0)'
    """
    return _hundredths(figure, "points", 1)


def _hundredths(figure: Figure, unit: str, digits: int) -> str:
    value, low, high = (f"{100 * number:.{digits}f}" for number in figure)
    return f"{value} {unit} ({low} to {high})"


def fvu(figure: Figure) -> str:
    """A share of the variance."""
    return f"{figure[0]:.3f}"


def apart(less: Figure, more: Figure) -> bool:
    """Whether the intervals do not overlap, the first one below."""
    return less[2] < more[1]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(line)} |" for line in (head, *rows)]
    return "\n".join([lines[0], "|---" * len(head) + "|", *lines[1:]])


def prose(*sentences: str) -> str:
    """Sentences as paragraphs, of which one begins at every sentence in bold."""
    paragraphs: list[str] = []
    for sentence in sentences:
        if sentence.startswith("**") or not paragraphs:
            paragraphs.append(sentence)
        else:
            paragraphs[-1] += " " + sentence
    return "\n\n".join(filled(text) for text in paragraphs)


def filled(text: str) -> str:
    """Lines of at most 100 characters; a number and its % stay together."""
    joined = text.replace(" %", NO_BREAK + "%")
    lines = wrap(joined, 100, break_on_hyphens=False)
    return "\n".join(lines).replace(NO_BREAK, " ")
