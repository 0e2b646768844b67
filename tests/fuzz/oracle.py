"""What an input may do: be read, or be refused by an AuditError of one clean line."""

from __future__ import annotations

import re
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

from saeaudit.errors import AuditError

CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
"""Characters that command a terminal, or that end or turn round a line."""
LONGEST_LINE = 4000
"""Characters of an error: more is not a line that people read."""
LIES = ("MemoryError", "can't allocate memory", "not enough memory")
"""What allocation says when it fails: a claim of the input was believed."""


class BrokenPromiseError(Exception):
    """Something that no input may bring about, found by a target itself."""

    def __init__(self, promise: str, detail: str) -> None:
        self.promise = promise
        super().__init__(f"{promise}: {detail}")


def promised(holds: object, promise: str, detail: str = "") -> None:
    """Raise BrokenPromiseError where a promise does not hold."""
    if not holds:
        raise BrokenPromiseError(promise, detail)


Verdict = tuple[tuple[str, str, str] | None, bool]


def judge(run: Callable[[Path], None], folder: Path) -> Verdict:
    """Run one input.

    Returns:
        Kind, place and detail of a fault, or None; and whether the input was refused.
    """
    try:
        with warnings.catch_warnings():  # what a library warns of, saeaudit must have looked at
            warnings.simplefilter("error")
            run(folder)
    except AuditError as error:
        return _of_refusal(error), True
    except BrokenPromiseError as error:
        text = str(error)
        return (error.promise, innermost(text), text[-4000:]), False
    except Exception as error:
        text = "".join(traceback.format_exception(error))
        return (type(error).__name__, innermost(text), text[-4000:]), False
    return None, False


def _of_refusal(error: AuditError) -> tuple[str, str, str] | None:
    line = error.line()
    text = "".join(traceback.format_exception(error))
    if dirt := unclean(line):
        return "unclean line", innermost(text), f"{dirt}: {line[:2000]!a}"
    if len(line) > LONGEST_LINE:
        return "long line", innermost(text), f"{len(line):,} characters: {line[:300]!r}"
    if any(lie in text for lie in LIES):
        return "allocation", innermost(text), text[-4000:]
    return None


def unclean(text: str) -> str:
    """What makes a text unfit for a terminal or a CI system's log; empty where nothing does."""
    if match := CONTROL.search(text):
        return f"U+{ord(match[0]):04X}"
    if "\n" in text:
        return "several lines"
    if "##[" in text or "##vso[" in text or text.startswith("::"):
        return "a CI command"
    return ""


def innermost(text: str) -> str:
    """The last line of saeaudit's own code in a traceback, as file:line function."""
    places = re.findall(r'File "[^"]*?(saeaudit/[^"]+\.py)", line (\d+), in (\S+)', text)
    return "{}:{} {}".format(*places[-1]) if places else ""


def where_it_stood(stack: str) -> str:
    """The first line of saeaudit's own code in what faulthandler writes, innermost first."""
    match = re.search(r'File "[^"]*?(saeaudit/[^"]+\.py)", line (\d+) in (\S+)', stack)
    return "{}:{} {}".format(*match.groups()) if match else ""
