"""A section for a model card on the hub, with the metadata block that the hub reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.mediators import strictest
from saeaudit.report.figures import changing, figures
from saeaudit.report.gather import Audited, Gathered
from saeaudit.report.verdict import answers

if TYPE_CHECKING:
    from huggingface_hub import EvalResult

MARKUP = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|"})
"""What Markdown and HTML would take for their own."""


def model_card(gathered: Gathered, version: str) -> str:
    """YAML between dashes, as a card begins, and a section in Markdown.

    Args:
        gathered: at least one SAE.
        version: of saeaudit.
    """
    from huggingface_hub import ModelCardData

    results = [result for audited in gathered.saes for result in _results(audited)]
    data = ModelCardData(
        tags=["sparse-autoencoder", "saeaudit"], eval_results=results,
        model_name=escape(gathered.saes[0].dictionary.sae, NAME),
    )  # fmt: skip
    lines = ["---", data.to_yaml(), "---", "", "## Audit", ""]
    for audited in gathered.saes:
        lines += _section(audited, gathered.controls.get(audited.dictionary.sae, []))
    lines.append(f"Figures by saeaudit {version}.")
    return "\n".join(lines) + "\n"


def _results(audited: Audited) -> Iterator[EvalResult]:
    """The figures that the metadata block has: numbers of summaries, by their names there."""
    from huggingface_hub import EvalResult

    for name, value in _metrics(audited):
        if value is not None:
            yield EvalResult(
                task_type="feature-extraction", task_name="Sparse autoencoder audit",
                dataset_type="saeaudit", dataset_name=escape(audited.dictionary.sae, NAME),
                metric_type=name, metric_name=name.replace("_", " "), metric_value=value,
            )  # fmt: skip


def _metrics(audited: Audited) -> Iterator[tuple[str, float | None]]:
    if scan := audited.scanned.summary:
        yield "duplicate_fraction", scan.duplicate_fraction
        yield "pairs", scan.pairs
        yield "triples", scan.triples
        yield "dead_fraction", scan.dead_fraction
        yield "median_max_cosine", scan.max_cosine.quantiles.p50
        yield "median_max_cosine_random", scan.random_control.p50
    if row := strictest(audited.listed.summary):
        yield "non_unique_fraction", row.non_unique_fraction
        yield "non_unique_fraction_changing_a_fifth", changing(row)
    if score := audited.scored.summary:
        yield "bits_per_token", score.bits_per_token
        yield "fvu_quantised", score.fvu_quantised
        yield "incoherence", score.incoherence
        chance = score.incoherence_chance
        yield "incoherence_chance", None if chance is None else chance.value


def _section(audited: Audited, controls: list[Audited]) -> list[str]:
    lines = [f"### {_plain(escape(audited.dictionary.sae, NAME))}", ""]
    for answer in answers(audited):
        lines += [_plain(" ".join(answer.sentences)), ""]
    lines += [
        "| figure | value | by chance, or beside | what it does not say |",
        "|---|---|---|---|",
    ]
    for figure in figures(audited, controls):
        lines.append(f"| {' | '.join(map(_plain, figure))} |")
    return [*lines, ""]


def _plain(text: str) -> str:
    """Text that Markdown leaves as it is."""
    return text.translate(MARKUP)
