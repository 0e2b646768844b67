"""Errors that a user can cause or mend.

Everything else that is raised inside saeaudit is a bug and ends in a traceback.
"""

from __future__ import annotations

from saeaudit.escape import LINE, NAME, escape


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
        """Return the error as one line that can be printed: ``where: what (hint)``."""
        text = escape(self.what.strip())
        if self.where:
            text = f"{escape(self.where, NAME)}: {text}"
        if self.hint:
            text = f"{text} ({escape(self.hint.strip(), LINE)})"
        return escape(text, LINE)


class WeightsError(AuditError):
    """A weight file that cannot be read or does not hold a usable decoder."""


class TargetError(AuditError):
    """A target that names nothing, or more than one thing."""
