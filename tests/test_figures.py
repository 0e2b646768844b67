"""Every figure of the README and the docs is what comes out, and no other number stands there."""

from __future__ import annotations

import doctest
import importlib
import runpy
from pathlib import Path
from typing import Any

import pytest

import saeaudit
from saeaudit.records import ChoiceRecord, ScanSummary, ScoreSummary

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PROVENANCE = "saeaudit/sample/PROVENANCE.md"
AGAIN = 5
"""Tokens of a kept run whose choices are made again."""
PAGES = {
    "README.md": "README", "docs/score.md": "SCORE", "docs/controls.md": "CONTROLS",
    "docs/mediators.md": "MEDIATORS", PROVENANCE: "PROVENANCE",
    "docs/tutorial.md": "TUTORIAL", "docs/reading.md": "READING",
    "docs/scan.md": "SCAN", "docs/collect.md": "COLLECT",
}  # fmt: skip


@pytest.fixture(autouse=True)
def docs_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))


def figures(module: str) -> Any:
    return importlib.import_module(f"figures.{module}")


@pytest.mark.parametrize(
    "pages",
    [
        ("README.md", "docs/controls.md"),  # of the same runs
        ("docs/collect.md",),
        ("docs/mediators.md",),
        ("docs/score.md", "docs/mathematics.md"),
        ("docs/performance.md",),
        ("docs/tutorial.md",),
        ("docs/reading.md",),
        (PROVENANCE,),
    ],
    ids=lambda pages: pages[-1],
)
def test_pages_have_the_figures_that_come_out(pages: tuple[str, ...]) -> None:
    made = runpy.run_path(str(DOCS / "generate_figures.py"))["page"]
    for page in pages:
        assert made(page) == (ROOT / page).read_text(), "python docs/generate_figures.py"


@pytest.mark.parametrize("page", PAGES)
def test_every_other_number_is_a_constant_or_has_its_reason(page: str) -> None:
    text = (ROOT / page).read_text()
    phrases = getattr(figures("phrases"), PAGES[page])
    unaccounted = figures("marks").unaccounted
    assert unaccounted(text, phrases) == []
    (new,) = unaccounted(f"{text}\nIt is 12.5 % faster.", phrases)
    assert new.startswith("12.5:")


@pytest.mark.parametrize("target", ["sample", "sample/stitched"])
def test_what_coherence_promises_of_a_real_dictionary_is_next_to_nothing(target: str) -> None:
    """docs/scan.md says so."""
    summary = list(saeaudit.scan(target))[-1]
    assert isinstance(summary, ScanSummary) and summary.unique_below_k is not None
    assert 1 <= summary.unique_below_k < 1.1


def test_what_was_measured_once_comes_out_again() -> None:
    measured = figures("measured")
    kept = measured.measured()
    assert kept["inputs"] == measured.inputs_hash(), "docs/generate_figures.py --measure"
    options = saeaudit.ScoreOptions(max_tokens=AGAIN)
    records = list(saeaudit.score(saeaudit.open("sample"), measured.inputs(), options))
    again = [measured.kept(record) for record in records if isinstance(record, ChoiceRecord)]
    same(again, sorted(kept["choices"][:AGAIN], key=lambda choice: choice["token"]))
    summary = records[-1]
    assert isinstance(summary, ScoreSummary)
    before = measured.summary()
    for name in (
        "fitted_tokens", "tokens", "bits_per_token", "bits_interval", "gate_bits", "value_bits",
        "bin_width", "fvu", "fvu_quantised", "mean_l0", "never_observed", "low_coverage",
    ):  # fmt: skip
        same(getattr(summary, name), getattr(before, name))
    for name, solved in measured.least_norms(2).items():
        same(solved, kept["norms"][name][:2])


def test_histograms_give_what_was_measured_once() -> None:
    measured = figures("measured")
    *_, again = saeaudit.score(saeaudit.open("sample"), measured.inputs("fetched"))
    before = measured.summary("histograms")
    for name in ("bits_per_token", "gate_bits", "value_bits", "bin_width", "mean_l0"):
        same(getattr(again, name), getattr(before, name))


def same(one: Any, other: Any) -> None:
    """Equal, floats to a millionth."""
    if isinstance(other, dict):
        assert one.keys() == other.keys()
        one, other = list(one.values()), list(other.values())
    if isinstance(other, (list, tuple)):
        assert len(one) == len(other)
        for first, second in zip(one, other, strict=True):
            same(first, second)
    elif isinstance(other, float):
        assert one == pytest.approx(other, rel=1e-6, abs=1e-9)
    elif hasattr(other, "__dataclass_fields__"):
        same(vars(one), vars(other))
    else:
        assert one == other


@pytest.mark.parametrize("module", ["marks", "words"])
def test_words_and_marks_are_as_their_examples_say(module: str) -> None:
    outcome = doctest.testmod(figures(module))
    assert outcome.attempted > 1 and not outcome.failed


def test_a_page_with_other_marks_is_an_error() -> None:
    marks = figures("marks")
    with pytest.raises(ValueError, match="marks of"):
        marks.filled(marks.begin("old") + marks.END, {"new": "1"})
