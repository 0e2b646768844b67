"""An observer that keeps the notes it is told."""

from __future__ import annotations

from saeaudit.audit.observer import Observer


class Notes(Observer):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)
