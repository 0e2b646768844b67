"""Figures in pages: what generators write, what constants say, and numbers that nobody answers for.

A page's figures stand between two marks, and a generator writes all that is between them, sentences
included. Other numbers stand in phrases that say what the code's constants are, or what is no
measurement at all. A number that is in neither is an error.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

END = "<!-- end of figures -->\n"
NUMBER = re.compile(r"(?<![\w.])\d[\d,.]*\d|(?<![\w.])\d")
"""A number; digits of a name, such as those of f1 and L0, are none."""
NO_FIGURES = (
    re.compile(r"<!-- figures: .*?<!-- end of figures -->", re.S),
    re.compile(r"^```.*?^```", re.M | re.S),
    re.compile(r"^ {4}.*$", re.M),
    re.compile(r"`[^`]*`"),
    re.compile(r"\]\([^)]*\)"),
    re.compile(r"^\d\. ", re.M),
)
"""Generated figures, code (which tests run), formulas, links and the numbers of lists."""


def begin(name: str) -> str:
    """The line before figures.

    >>> begin("prices")
    '<!-- figures: prices, by docs/generate_figures.py -->\\n'
    """
    return f"<!-- figures: {name}, by docs/generate_figures.py -->\n"


def filled(text: str, figures: Mapping[str, str]) -> str:
    """A page with what stands between its marks written anew.

    Raises:
        ValueError: the page has other marks.
    """
    marked = re.findall(r"<!-- figures: ([\w ]+), by", text)
    if sorted(marked) != sorted(figures):
        raise ValueError(f"marks of {marked}, figures of {list(figures)}")
    for name, figure in figures.items():
        before, rest = text.split(begin(name))
        text = before + begin(name) + figure.rstrip("\n") + "\n" + END + rest.split(END, 1)[1]
    return text


def plain(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


def unaccounted(text: str, phrases: Iterable[str]) -> list[str]:
    """Numbers of a page that no generator writes and no phrase has, and phrases that it has not.

    >>> unaccounted("It is 3 of 10.", ["3 of 10"]), unaccounted("It is 3 of 10.", ["3 of"])
    ([], ['10: It is of 10.'])
    """
    for pattern in NO_FIGURES:
        text = pattern.sub("" if pattern.pattern.startswith("<!--") else " ", text)
    text = plain(text)
    wrong = []
    for phrase in sorted(map(plain, phrases), key=len, reverse=True):
        if phrase not in text:
            wrong.append(f"not on the page: {phrase}")
        text = text.replace(phrase, re.sub(r"[\d,.]", "", phrase))
    text = plain(text)
    return wrong + [
        f"{match[0]}: {text[max(0, match.start() - 30) : match.end() + 30]}"
        for match in NUMBER.finditer(text)
    ]
