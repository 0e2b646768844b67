"""Errors that a user can cause or mend.

Everything else that is raised inside saeaudit is a bug and ends in a traceback.
"""

from __future__ import annotations


class AuditError(Exception):
    """Something a user can cause or mend: what happened, where, and what to do next.

    Args:
        what: one clause that says what is wrong, quoting the offending value.
        where: the file, option or record concerned; empty when there is none.
        hint: what to do about it; empty when nothing useful can be said.
    """

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.hint = hint
        super().__init__(self.line())

    def line(self) -> str:
        """Return the error as one line: ``where: what (hint)``."""
        text = f"{self.where}: {self.what}" if self.where else self.what
        if self.hint:
            text = f"{text} ({self.hint})"
        return " ".join(text.split())


def one_line(text: str) -> str:
    """Text on one line that a CI system cannot take for a command of its own.

    GitHub's runner obeys lines that begin with two colons, and "##[" anywhere in a line.
    """
    return " ".join(text.split()).replace("##[", "# #[")


class WeightsError(AuditError):
    """A weight file that cannot be read or does not hold a usable decoder."""


class TargetError(AuditError):
    """A target that names nothing, or more than one thing."""
