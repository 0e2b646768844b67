"""Words that the screens of several commands share."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from saeaudit.escape import NAME, escape
from saeaudit.records import (
    ChoiceRecord,
    DictionaryRecord,
    Interval,
    MediatorRecord,
    Skipped,
    TokenRecord,
)
from saeaudit.vocabulary import CONTROLS, FEATURE_URL, SAMPLE

BEFORE, AFTER = 48, 24
"""Characters shown before and behind a token."""
LEAST_SHARE = 1e-6
"""A share below it is said to be so: what float32 weights leave of an exact relation is."""


def around(record: MediatorRecord | TokenRecord | ChoiceRecord) -> str:
    """Where a token stands in its document, to be read behind its text; empty if not known.

    Example: `` in 'it slept on the[ mat], and'``.
    """
    context = record.context
    if context is None or record.text is None:
        return ""
    before, after = context.before[-BEFORE:], context.after[:AFTER]
    return f" in {escape(f'{before}[{record.text}]{after}', NAME)!r}"


@dataclass(frozen=True)
class Place:
    """Where the records of a run are, as commands that are suggested name it."""

    name: str | None = None
    """The file; None where the records go to a pipe, or nowhere."""
    kept: bool = True
    """Whether they are written at all."""

    @property
    def file(self) -> str:
        """The file, or what stands for one."""
        return "FILE" if self.name is None else self.quoted(self.name)

    @property
    def show(self) -> str:
        """The command that shows all of the records."""
        return f"saeaudit show {self.file}"

    @property
    def last_lines(self) -> list[str]:
        """How to get the records, where they are not written."""
        if self.kept:
            return []
        return ["No records were written: -o FILE writes them, and so does a pipe."]

    def next(self, what: str, command: str, sae: str, option: str = "") -> list[str]:
        """The line that suggests a command, and the command: on a line by itself, to be copied.

        Args:
            what: what it shows.
            command: its name.
            sae: the SAE; one without activations of its own needs them beside it.
            option: a further option.
        """
        words = [command, self.quoted(sae), option]
        if command != "scan" and "--scan" not in option and sae != SAMPLE:
            words.insert(2, "--activations X.npy")
        return [f"Next, {what}:", f"  saeaudit {' '.join(filter(None, words))}"]

    @staticmethod
    def quoted(text: str) -> str:
        """A word of a command line, as a shell takes it."""
        return escape(shlex.quote(text), NAME)


def control_lines(record: DictionaryRecord) -> list[str]:
    """What people read first where records are of a control; no line where they are of an SAE."""
    if record.control is None:
        return []
    return [f"{escape(record.sae, NAME)} is a control: {CONTROLS[record.control]}"]


def counted(count: int, one: str, several: str) -> str:
    """A number with its noun.

    >>> counted(1, "pair", "pairs"), counted(1200, "pair", "pairs")
    ('1 pair', '1,200 pairs')
    """
    return f"{count:,} {one if count == 1 else several}"


def percent(share: float) -> str:
    """A share in percent: to a tenth, or to two digits where that would be less than one.

    >>> [percent(share) for share in (0.1234, 0.00123, 3.2e-8, 0.0)]
    ['12.3%', '0.12%', '<0.0001%', '0%']
    """
    if share in (0, 1):
        return f"{share:.0%}"
    if abs(share) < LEAST_SHARE:
        return f"<{100 * LEAST_SHARE:.4f}%"
    return f"{share:.1%}" if abs(share) >= 0.01 else f"{100 * share:.2g}%"


def pages_line(source: str) -> str:
    """Where each feature has its page."""
    return f"Pages: {escape(FEATURE_URL.format(source=source, feature='FEATURE'), NAME)}"


def short_name(sae: str, folder: str) -> str:
    """An SAE's id without the folder that all have in common."""
    return escape(sae.removeprefix(folder), NAME)


def skipped_sentence(skipped: Sequence[Skipped]) -> list[str]:
    """How many activations were not looked at, and why; nothing where there are none."""
    reasons = {"norm": "of outlying norm", "l0": "with too many active features"}
    parts = [f"{one.count:,} {reasons[one.reason]}" for one in skipped if one.count]
    return [f"Left out: {', '.join(parts)}."] if parts else []


def between(interval: Interval | None, form: str) -> str:
    """The ends of an interval behind the figure that it is of; nothing where there is none."""
    if interval is None:
        return ""
    return f" ({interval.low:{form}}\xa0to\xa0{interval.high:{form}})"
