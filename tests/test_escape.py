"""Text from outside: nothing that reaches a terminal, a log or a CI system can command it."""

from __future__ import annotations

import doctest
import io
import json
import re
import time
import unicodedata
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

import saeaudit.escape
from saeaudit import AuditError
from saeaudit.escape import LINE, MESSAGE, NAME, escape, json_line
from saeaudit.formats import github, junit, sarif
from saeaudit.formats.items import broken
from saeaudit.formats.screen.choices import explained
from saeaudit.formats.screen.mediators import MediatorsScreen
from saeaudit.formats.screen.scan import ScanScreen
from saeaudit.formats.screen.score import ScoreScreen
from saeaudit.records import ErrorRecord, MediatorsSummary, RuleResult, Verdict, dump, parse
from tests.support.records import RUN, choice, score

PIECES = [
    "::error::x", "##[error]x", "##vso[task.setvariable]x", "####[", "\n::x", "\r##[x", "\x1b[31m",
    "\x9b31m", "\x1b]0;t\x07", "\x9d0;t\x9c", "\x1b]8;;http://x\x1b\\", "\x1b", "\x00", "\x7f",
    "\x85", "\u202e", "\u2066", "\u2028", "\u2029", "\u200b", "\u200d", "\ufeff", "\u00ad",
    "\U000e0041", "\ud800", "\udcff", "[red]", "[link=http://x]", "ü", " the",
]  # fmt: skip
EVIL = "a".join(PIECES)
VISIBLE = set("\u0600\u0601\u0602\u0603\u0604\u0605\u06dd\u070f\u0890\u0891\u08e2\U000110bd")
VISIBLE.add("\U000110cd")
"""Marks that show, although Unicode calls them format characters."""
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=20), max_size=8).map("".join)


def safe(text: str, *, lines: bool = False) -> bool:
    for c in text:
        hidden = unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in VISIBLE
        if hidden and not (lines and c == "\n"):
            return False
    commands = any(line.lstrip().startswith("::") for line in text.split("\n"))
    return not commands and not re.search(r"##\w*\[", text)


def test_the_examples() -> None:
    assert doctest.testmod(saeaudit.escape).failed == 0
    assert escape("a\n\t b  c") == "a b  c"
    assert escape("x\x1b[1;31mred\x1b]0;title\x07y\x9b2Jz") == "x\ufffdred\ufffdy\ufffdz"
    assert escape("[::1]:80 [red]b") == "[: :1]:80 [red]b"
    assert not safe(EVIL)


@given(texts, st.sampled_from([NAME, MESSAGE, LINE]))
def test_escaped_text_is_safe(text: str, limit: int) -> None:
    shown = escape(text, limit)
    assert safe(shown) and "::" not in shown and "##" not in shown and len(shown) <= limit
    assert escape(shown, limit) == shown
    assert escape("plain ü 東京 [x] a:b #1", limit) == "plain ü 東京 [x] a:b #1"


@given(texts)
def test_json_is_safe_and_means_the_same(text: str) -> None:
    line = json_line({text: [text, 1.5, None]})
    assert safe(line)
    whole = re.sub(r"[\ud800-\udfff]", "\ufffd", text)
    assert json.loads(line) == {whole: [whole, 1.5, None]}
    assert safe(json_line({"a": text}, indent=1), lines=True)


def test_long_texts_are_cut_and_quick() -> None:
    cut = escape("a" * 5000 + "b", NAME)
    assert len(cut) == NAME and "a…a" in cut and cut.endswith("b")
    start = time.process_time()
    for piece in [*PIECES, " ", "#", ":", "\x1b]", "\x1b["]:
        assert len(escape(piece * 200_000)) <= MESSAGE
        json_line(piece * 20_000)
    assert time.process_time() - start < 5


def test_errors() -> None:
    error = AuditError(EVIL, where=EVIL, hint=EVIL)
    assert safe(error.line()) and safe(str(error))
    assert error.what == EVIL
    long = AuditError("w" * 5000, where="f" * 5000, hint="h" * 5000)
    assert len(long.line()) <= LINE
    assert AuditError("said\n  twice", where="f", hint="mend it").line() == (
        "f: said twice (mend it)"
    )


def test_records_keep_their_values() -> None:
    name = EVIL.encode("utf-8", "replace").decode()
    line = dump(ErrorRecord(name, name, name))
    assert safe(line) and "##" not in line
    assert parse(line) == ErrorRecord(name, name, name)
    assert safe(dump(replace(RUN, arguments={EVIL: EVIL})))
    assert parse(dump(ErrorRecord(EVIL, "", ""))).sae  # lone surrogates are no text


@pytest.mark.parametrize("render", [github.render, junit.render, sarif.render])
def test_every_format(render) -> None:
    rule = RuleResult(f"{EVIL}>1", 1.0, 2.0, EVIL, False)
    records = [
        RUN, ErrorRecord(EVIL, EVIL, EVIL), replace(choice(), sae=EVIL),
        replace(score(), sae=EVIL), Verdict(False, (rule,), 0, 0),
    ]  # fmt: skip
    text = render(records)
    if render is github.render:  # whose own commands begin its lines
        for line in text.splitlines():
            level, message = line[2:].split("::", 1)
            assert safe(level) and safe(message)
    else:
        assert safe(text, lines=True)
    assert "[red]" in text and broken(rule)


def test_tables_show_markup_as_it_is() -> None:
    tables = (ScanScreen, MediatorsScreen, ScoreScreen)
    for table in tables:
        text = io.StringIO()
        shown = table(Console(file=text, width=300, force_terminal=True, color_system="truecolor"))
        looked = MediatorsSummary(EVIL, 1, None, (), 0, 2.0, 0.0, 0.0, None, None, (), (), ())
        for record in (RUN, replace(score(), sae=EVIL), looked, ErrorRecord(EVIL, EVIL, EVIL)):
            shown.record(record)
        shown.end()
        plain = re.sub(r"\x1b\[[0-9;]*m", "", text.getvalue())
        assert safe(plain, lines=True)
        assert "[red]" in plain and "[link=" in plain
    written = replace(choice(), text=EVIL, similarity_method=EVIL)
    assert safe("\n".join(explained(written, {2: EVIL}, 60)), lines=True)


def test_what_follows_a_name_makes_no_command_of_it() -> None:
    assert not f"{escape(':')}: 40 tokens".startswith("::")
    assert "##[" not in f"{escape('#')}#[error]"
    assert len(escape("x" * 20 + ":", 10)) == 10
