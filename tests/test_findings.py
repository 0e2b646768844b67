"""docs/findings.md says what its figures say, and the figures are what is measured."""

from __future__ import annotations

import copy
import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from saeaudit.core.rows import UnitRows, row_norms
from tests.support.enumeration import nonnegative

DOCS = Path(__file__).parents[1] / "docs"
FIGURES = json.loads((DOCS / "findings" / "figures.json").read_text())


@pytest.fixture(autouse=True)
def docs_are_importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))


def page(figures: dict[str, Any]) -> str:
    return runpy.run_path(str(DOCS / "generate_findings.py"))["page"](figures)


def test_the_page_follows_from_the_figures() -> None:
    assert page(FIGURES) == (DOCS / "findings.md").read_text(), (
        "python docs/generate_findings.py --page"
    )


def swap_dictionaries(part: str):
    def change(figures: dict[str, Any]) -> None:
        for row in [*figures[part]["rows"], *figures[part]["growth"]]:
            row["dictionary"] = {"SAE": "random", "random": "SAE"}[row["dictionary"]]

    return change


def alternatives_at_best(figures: dict[str, Any]) -> None:
    row = next(
        row
        for row in figures["width"]["rows"]
        if (row["codes"], row["epsilon"]) == ("settled", 0.0)
    )
    row["any"] = [0.01, 0.0, 0.02]


def pursuits_like_encoders(figures: dict[str, Any]) -> None:
    for row in figures["encoder"]:
        row["fvu"] = figures["encoder"][0]["fvu"]


def encoders_that_find_all(figures: dict[str, Any]) -> None:
    for row in figures["known"]:
        row["encoder"] = row["encoder_all"] = [1.0, 1.0, 1.0]


def better_fits_that_are_nearer(figures: dict[str, Any]) -> None:
    for row in figures["known"]:
        row["settled - pursuit"] = [0.3, 0.2, 0.4]


def ties_that_k_explains(figures: dict[str, Any]) -> None:
    figures["size"]["like_error"]["log2_size"] = [2.0, 1.9, 2.1]


def length_like_l1(figures: dict[str, Any]) -> None:
    for row in figures["planted"]:
        row["mdl - l1"] = [0.0, -0.01, 0.01]


def trained_encoders_that_know(figures: dict[str, Any]) -> None:
    for row in figures["planted"]:
        row["encoder, f3"] = [0.9, 0.8, 1.0]


@pytest.mark.parametrize(
    "change",
    [
        swap_dictionaries("size"),
        swap_dictionaries("width"),
        alternatives_at_best,
        pursuits_like_encoders,
        encoders_that_find_all,
        better_fits_that_are_nearer,
        ties_that_k_explains,
        length_like_l1,
        trained_encoders_that_know,
    ],
)
def test_a_sentence_that_no_longer_follows_is_an_error(change) -> None:
    figures = copy.deepcopy(FIGURES)
    change(figures)
    with pytest.raises(ValueError, match="do not say so any more"):
        page(figures)


def same(measured: dict[str, Any], kept: dict[str, Any]) -> None:
    assert measured.keys() == kept.keys()
    for key, figure in measured.items():
        if isinstance(figure, tuple):
            assert figure == pytest.approx(kept[key], abs=1e-3), key


def test_codes_of_four_features_are_measured_as_the_page_says() -> None:
    from findings import measure_ties

    bundle = measure_ties.Bundle.load()
    assert (len(bundle.x), len(bundle.resampling.parts.unique())) == (
        FIGURES["activations"],
        FIGURES["documents"],
    )
    rows = [
        {"dictionary": name, "k": 4, "codes": codes} | row
        for name, units in measure_ties.with_control(bundle.sample).items()
        for codes, near in measure_ties.looked_at(bundle, units, 4, lambda _: None)
        for row in measure_ties.non_uniqueness(bundle, near, signed=codes == measure_ties.SIGNED)
    ]
    kept = [row for row in FIGURES["size"]["rows"] if row["k"] == 4]
    for measured, row in zip(rows, kept, strict=True):
        same(measured, row)


def test_planted_sources_are_measured_as_the_page_says() -> None:
    from findings import measure_recovery

    made = [
        measure_recovery.source(seed, measure_recovery.TOKENS)
        for seed in range(measure_recovery.SOURCES)
    ]
    (kept,) = (row for row in FIGURES["planted"] if row["encoder_is"] == "wrong on 30 %")
    same({"encoder_is": kept["encoder_is"]} | measure_recovery.taken(made), kept)


def test_figures_are_written_as_their_examples_say() -> None:
    import doctest

    from findings import markdown

    outcome = doctest.testmod(markdown)
    assert outcome.attempted > 2 and not outcome.failed


def test_intervals_keep_a_document_together() -> None:
    from findings.measure_ties import Resampling

    values = torch.tensor([0.0, 1.0]).repeat_interleave(20)
    assert Resampling(torch.tensor([0, 1]).repeat_interleave(20)).mean(values) == (0.5, 0.0, 1.0)
    _, low, high = Resampling(torch.arange(40)).mean(values)
    assert 0.3 < low < 0.4 and 0.6 < high < 0.7
    ratio = Resampling(torch.arange(40)).mean(values, over=2 * torch.ones(40))
    assert ratio[0] == 0.25


def test_no_exchange_improves_a_settled_code() -> None:
    from findings.measure_ties import settled

    rng = np.random.default_rng(0)
    rows = rng.normal(size=(14, 6))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    units = UnitRows(torch.from_numpy(rows), torch.arange(14), row_norms(torch.from_numpy(rows)))
    # Codes with a feature of no use, as pursuits leave them out, are not begun with.
    starts = list(rng.permuted(np.tile(np.arange(14), (40, 1)), axis=1)[:, :3])
    target = np.stack([rng.uniform(0.5, 1, 3) @ rows[start] for start in starts])
    target += 0.3 * rng.normal(size=target.shape)
    positive = [
        n for n, start in enumerate(starts) if (nonnegative(rows[start], target[n])[0] > 0).all()
    ]
    assert len(positive) > 15
    before = torch.from_numpy(np.stack([starts[n] for n in positive]))
    after = settled(units, torch.from_numpy(target[positive]), before)
    moved = 0
    for n, support in zip(positive, after.tolist(), strict=True):
        codes, error = nonnegative(rows[support], target[n])
        moved += set(support) != set(starts[n].tolist())
        assert (codes > 0).all()
        for place in range(3):
            for row in set(range(14)) - set(support):
                other = [*support[:place], row, *support[place + 1 :]]
                others, swapped = nonnegative(rows[other], target[n])
                assert swapped >= error - 1e-9 or not (others > 0).all()
    assert moved > 5
