"""Errors that a user can cause or mend.

Everything else that is raised inside saeaudit is a bug and ends in a traceback.
"""

from __future__ import annotations

import re

from saeaudit.escape import LINE, NAME, escape

OPTION = re.compile(r"`[^`]*`|\bsaeaudit \w.*|(?<![\w/-])--([a-z]+(?:-[a-z]+)*)(?: [A-Z/]+\b)?")
"""An option in a message, with what stands for its value; commands are passed over whole."""
FLAGS = ("canonicalise", "force", "include-collapsed", "keep-outliers", "offline")
"""Options that take no value, and in Python are True."""
ARGUMENTS = {
    "assume": "assumptions", "encoder": "codes", "epsilon": "epsilons", "pair": "pairs",
    "scan": "findings", "triple": "triples",
}  # fmt: skip
"""Options whose names in Python are others."""


class AuditError(Exception):
    """Something a user can cause or mend: what happened, where, and what to do next.

    `line` speaks of the command line's options, `str` of the arguments that they are in Python.

    Args:
        what: one clause that says what is wrong, quoting the offending value.
        where: the file, option or record concerned; empty when there is none.
        hint: what to do about it; empty when nothing useful can be said.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(in_python(self.line()))

    def line(self) -> str:
        """Return the error as one line that can be printed: ``where: what (hint)``."""
        text = escape(self.what.strip())
        if self.where:
            text = f"{escape(self.where, NAME)}: {text}"
        if self.hint:
            text = f"{text} ({escape(self.hint.strip(), LINE)})"
        return escape(text, LINE)


def in_python(line: str) -> str:
    """What is said of options, said of arguments.

    >>> in_python("nothing to audit (--include-collapsed keeps them)")
    'nothing to audit (include_collapsed=True keeps them)'
    >>> in_python("no labels to shuffle (--explanations FILE)")
    'no labels to shuffle (explanations)'
    """

    def argument(match: re.Match[str]) -> str:
        option = match[1]
        if option is None:
            return match[0]
        name = ARGUMENTS.get(option, option.replace("-", "_"))
        return f"{name}=True" if option in FLAGS else name

    return OPTION.sub(argument, line)


class WeightsError(AuditError):
    """A weight file that cannot be read or does not hold a usable decoder."""


class TargetError(AuditError):
    """A target that names nothing, or more than one thing."""
