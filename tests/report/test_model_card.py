"""The section for a model card: what the hub's own reader takes from it."""

from __future__ import annotations

from dataclasses import replace

from huggingface_hub import ModelCard

from saeaudit.records import DictionaryRecord, ScanSummary
from saeaudit.report.model_card import model_card
from tests.support.records import score
from tests.support.reports import HOSTILE, gathered, golden, scan_of


def test_the_hub_reads_the_figures_back() -> None:
    records = golden("stitched")
    card = ModelCard(model_card(gathered(records), "0.1.0"))
    values = {result.metric_type: result.metric_value for result in card.data.eval_results}
    summary = next(r for r in records if isinstance(r, ScanSummary))
    assert values["duplicate_fraction"] == summary.duplicate_fraction
    assert values["triples"] == 3
    assert values["median_max_cosine_random"] == summary.random_control.p50
    assert card.data.model_name == "sample/stitched"
    assert (
        "has 17 duplicate pairs and 1 antipodal pair" in card.text
        and "| Dependent triples | 3 |" in card.text
    )


def test_hostile_names_stay_text() -> None:
    evil = f"{HOSTILE}|x`\n---\ntags: [stolen]"
    card = ModelCard(model_card(gathered(scan_of(evil, 5)), "0.1.0"))
    assert card.data.tags == ["sparse-autoencoder", "saeaudit"]
    assert "<script" not in card.text.replace("\\<", "")
    rows = [line.replace("\\|", "") for line in card.text.splitlines() if line[:1] == "|"]
    assert {row.count("|") for row in rows} == {5}


def test_figures_of_codes_and_bits_are_in_it() -> None:
    dictionary = next(r for r in golden("sample") if isinstance(r, DictionaryRecord))
    text = model_card(gathered([dictionary, replace(score(), sae="sample")]), "0.1.0")
    names = [result.metric_type for result in ModelCard(text).data.eval_results]
    assert names == ["bits_per_token", "incoherence", "incoherence_chance"]
