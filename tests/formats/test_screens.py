"""The closing screens: the answer first, the worst findings, right at every width.

Regenerate the golden text after a deliberate change with
``python -m tests.formats.test_screens``, and read the diff.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from rich.cells import cell_len
from rich.console import Console

import saeaudit
from saeaudit.audit.annotations import Annotations
from saeaudit.audit.mediators.inputs import MediatorInputs
from saeaudit.formats.interface import Table
from saeaudit.formats.items import outcome_line
from saeaudit.formats.screen.layout import PROSE, comparison, cut
from saeaudit.formats.screen.mediators import MediatorsScreen
from saeaudit.formats.screen.scan import ScanScreen
from saeaudit.formats.screen.score import ScoreScreen
from saeaudit.formats.screen.wording import Place
from saeaudit.records import (
    ChosenShares,
    ErrorRecord,
    Estimate,
    Finding,
    Interval,
    MediatorRecord,
    MediatorsSummary,
    PairRecord,
    Record,
    ScanSummary,
    ScoreSummary,
    Texts,
)
from saeaudit.sources.activations import read_activations, sample_activations
from tests.support.records import EVIL, RUN, choice, score
from tests.support.reports import fired
from tests.support.screens import dead_twins, drawn, labelled, scan_screen

HERE = Path(__file__).parents[1] / "golden" / "screens"
CASES = {
    "stitched": lambda: labelled("sample/stitched"),
    "sample": lambda: labelled("sample"),
    "unlabelled": lambda: list(saeaudit.scan(saeaudit.open("sample/stitched"))),
    "dead_twins": lambda: list(saeaudit.scan(dead_twins())),
    "nothing": lambda: nothing(),
    "several": lambda: [*labelled("sample"), *labelled("sample/stitched"), *nothing()],
}
WIDTHS = (60, 80, 100, 120, 160)
NUMBER = re.compile(r"-?\d[\d,.]*\d%?|\d%?")


def nothing() -> list[Record]:
    """A scan without findings."""
    rows = torch.randn(50, 40, generator=torch.Generator().manual_seed(3))
    return list(saeaudit.scan(saeaudit.Dictionary.from_rows(rows, "runs/a b/last.npy")))


@pytest.fixture(scope="module")
def scans() -> dict[str, list[Record]]:
    return {name: make() for name, make in CASES.items()}


@pytest.mark.parametrize("name", CASES)
def test_golden_at_80_columns(name: str, scans: dict[str, list[Record]]) -> None:
    assert scan_screen(scans[name], 80) == (HERE / f"{name}.txt").read_text()


def test_the_screens_say_what_decides(scans: dict[str, list[Record]]) -> None:
    twins = scan_screen(scans["dead_twins"], 80)
    assert "849 dead (82.9%" in twins and twins.index("849 dead") < 80
    assert re.search(r"decoder +0\.995 +encoder +0\.25 +301 and 403", twins)
    stitched = scan_screen(scans["stitched"], 80)
    assert "… 9 more: saeaudit show scan.jsonl" in stitched
    assert re.search(r"1 antipodal pair\n +decoder +-0\.912 +796 ", stitched)
    assert re.search(r"decoder +0\.988 +114  tokens such as ';', '\.'\n", stitched)
    sample = scan_screen(scans["sample"], 80)
    assert re.search(r"encoder +-0\.83 +1512  19\.2%  tokens such as", sample)
    empty = " ".join(scan_screen(scans["nothing"], 80).split())
    assert "Nothing within the thresholds (min cosine 0.9, max residual 0.2, min gain 2)." in empty
    assert re.search(r"The closest pair: \d+ and \d+, decoder cosine -?0\.\d{3}\.", empty)


@pytest.mark.parametrize("name", CASES)
def test_no_width_cuts_a_number(name: str, scans: dict[str, list[Record]]) -> None:
    texts = {width: scan_screen(scans[name], width) for width in WIDTHS}
    for width, text in texts.items():
        for line in text.splitlines():
            short = cell_len(line) <= width or "saeaudit " in line or "/" in line
            assert short, (width, line)
            assert line.rstrip() == line and not re.search(r"\d…", line.split("tokens such")[0])
    figures = [sorted(NUMBER.findall(_without_labels(text))) for text in texts.values()]
    assert all(numbers == figures[0] for numbers in figures)


def _without_labels(text: str) -> str:
    return "\n".join(re.sub(r"tokens such.*", "", line) for line in text.splitlines())


def test_prose_is_no_wider_than_people_read(scans: dict[str, list[Record]]) -> None:
    head = scan_screen(scans["dead_twins"], 400).split("\n\n")[0]
    assert max(map(len, head.splitlines())) <= PROSE < len(head)


def test_several_saes_have_a_row_each_or_a_block(scans: dict[str, list[Record]]) -> None:
    wide, small = (scan_screen(scans["several"], width) for width in (160, 60))
    rows = [line.split() for line in wide.splitlines()]
    assert ["sample/stitched", "4,096", "x", "384", "0", "17", "1", "3", "0.42%", "0.373",
            "0.191"] in rows  # fmt: skip
    block = "sample/stitched features 4,096 x 384, dead 0, duplicates 17, antipodal 1, triples 3,"
    assert block in " ".join(small.split())
    worst = [line for line in wide.splitlines() if re.fullmatch(r"sample\S*: \w+ \w+", line)]
    assert worst == ["sample/stitched: dependent triple", "sample/stitched: dependent triple",
                     "sample/stitched: duplicate pair"]  # fmt: skip
    assert "… 19 more: saeaudit show scan.jsonl" in wide


def test_a_folder_that_all_have_in_common_is_said_once() -> None:
    dictionary = saeaudit.Dictionary.from_rows(torch.eye(4))
    records = [
        record
        for name in ("res/layer_1/16k", "res/layer_10/16k")
        for record in saeaudit.scan(replace(dictionary, sae=name))
    ]
    text = scan_screen([*records, ErrorRecord("res/layer_2/16k", "damaged", "fetch it")], 100)
    assert text.startswith("2 SAEs in res/\n") and text.count("res/") == 3
    assert re.search(r"^  layer_10/16k +4 x 4 ", text, re.M)
    assert "Not audited: res/layer_2/16k: damaged" in text


def test_the_worst_come_first_and_what_is_known_last() -> None:
    described, *_, summary = nothing()
    assert isinstance(summary, ScanSummary)

    def pair(i: int, cosine: float, known: bool | None = None) -> PairRecord:
        return PairRecord(summary.sae, (i, 90), "duplicate", cosine, 1.0, None, known=known)

    pairs = [pair(1, 0.91, False), pair(2, 0.999, True), pair(3, 0.95, False)]
    text = scan_screen([described, *pairs, replace(summary, pairs=3)], 80)
    order = re.findall(r"(\d+) and 90( \(known\))?", text)
    assert order == [("3", ""), ("1", ""), ("2", " (known)")]
    assert "2 findings are new; the baseline knows 1." in text


@pytest.mark.parametrize(
    ("pairs", "antipodal", "triples", "distinct", "says"),
    [
        (1, 1, 1, 1, "1 duplicate pair and 1 antipodal pair (|cosine| of 0.9 or more), and 1 "
         "dependent triple (residual of 0.2 or less). The duplicate pair has an encoder "
         "cosine below 0.5: its two features"),
        (2, 0, 0, 2, "2 duplicate pairs and 0 antipodal pairs (|cosine| of 0.9 or more), and 0 "
         "dependent triples (residual of 0.2 or less). 2 of the 2 duplicate pairs have an encoder "
         "cosine below 0.5: their two features"),
    ],
)  # fmt: skip
def test_one_is_not_several(
    pairs: int, antipodal: int, triples: int, distinct: int, says: str
) -> None:
    described, *_, summary = nothing()
    assert isinstance(summary, ScanSummary)
    found = [PairRecord(summary.sae, (n, 40), "duplicate", 0.95, 1.0, 0.1) for n in range(distinct)]
    share = pairs / summary.live_features
    counts = replace(
        summary, pairs=pairs, antipodal_pairs=antipodal, triples=triples, duplicate_fraction=share
    )
    flat = " ".join(scan_screen([described, *found, counts], 80).split())
    assert f"The decoder has {says} detect different things." in flat
    assert f"{pairs} of the 50 live features ({100 * share:.1f}%) {'is' if pairs == 1 else 'are'} "\
        in flat  # fmt: skip
    line = outcome_line(counts)
    assert (", 1 antipodal pair, 1 triple, " in line) == (pairs == 1)


def test_what_one_sae_says_several_say_too(scans: dict[str, list[Record]]) -> None:
    """Doubts about the dead, findings that are not written, what a baseline knows."""
    stitched = [
        replace(record, known=record.type == "triple") if isinstance(record, Finding) else record
        for record in scans["stitched"]
    ]
    *others, summary = stitched
    assert isinstance(summary, ScanSummary)
    cut = replace(summary, complete=False)
    flat = " ".join(scan_screen([*scans["dead_twins"], *others, cut], 60).split())
    assert "wild.pt: The dead may not all be dead: 82.9% of the rows" in flat
    assert "Not all findings of 1 SAE are in the records: --max-findings writes more." in flat
    assert "18 findings are new; the baseline knows 3." in flat
    same = [replace(record, sae="runs/a b/first.npy") for record in nothing()]
    empty = " ".join(scan_screen([*nothing(), *same], 60).split())
    assert re.search(
        r"Nothing within .* closest pair is of (first|last)\.npy: \d+ and \d+, ", empty
    )


def test_answers_to_claims_stand_by_themselves() -> None:
    options = saeaudit.ScanOptions(triples=((1, 2, 3),), pairs=((4, 5),))
    rows = torch.randn(50, 40, generator=torch.Generator().manual_seed(3))
    records = list(saeaudit.scan(saeaudit.Dictionary.from_rows(rows), options))
    text = scan_screen(records, 60)
    assert all(line.startswith(("    ", "claim")) for line in text.split("\n\n")[1].splitlines())
    assert "Nothing within the thresholds" in text
    assert "\n\nclaim about rows: 3 = beta (2 - alpha 1)\n  " in text
    assert "\n\nclaim about rows: 4 and 5 are duplicates\n" in text
    assert all(cell_len(line) <= 60 for line in text.splitlines())


def test_pages_and_hostile_labels() -> None:
    known = Annotations(dict.fromkeys(range(1024), EVIL), None, "some-model/3-res-8k")
    text = scan_screen(saeaudit.scan(dead_twins(), annotations=known), 80)
    assert "\x1b" not in text and "##[" not in text and "\r" not in text
    assert not any(line.strip().startswith("::") for line in text.splitlines())
    dictionary = replace(dead_twins(), source=replace(
        dead_twins().source, neuronpedia="some-model/3-res-8k"
    ))  # fmt: skip
    text = scan_screen(saeaudit.scan(dictionary), 60)
    assert "Pages: https://www.neuronpedia.org/some-model/3-res-8k/FEATURE\n" in text


def test_wide_characters_are_counted() -> None:
    assert cut("特徴の説明です", 8) == "特徴の…" and cell_len(cut("特徴の説明です", 7)) <= 7
    table = comparison(("SAE", "n"), [("特徴", "1"), ("ab", "22")], 20)
    assert len({cell_len(line) for line in table}) == 1


def test_commands_name_the_file_as_a_shell_takes_it(scans: dict[str, list[Record]]) -> None:
    place = Place("a b.jsonl")
    text = drawn(lambda console: ScanScreen(console, place), scans["stitched"], 60)
    lines = text.splitlines()
    assert "  saeaudit mediators sample/stitched --scan 'a b.jsonl'" in lines
    assert "  … 9 more: saeaudit show 'a b.jsonl'" in lines
    assert "-o FILE" not in text
    unwritten = drawn(lambda console: ScanScreen(console, Place(kept=False)), [RUN, *nothing()], 60)
    assert unwritten.splitlines()[-1] == (
        "No records were written: -o FILE writes them, and so does a pipe."
    )
    assert "  saeaudit scan 'runs/a b/last.npy' --min-cosine 0.5" in unwritten.splitlines()


@pytest.fixture(scope="module")
def mediators() -> list[Record]:
    sample = saeaudit.open("sample")
    files = sample_activations("sample")
    assert files is not None
    inputs = MediatorInputs(read_activations([files[0]], sample.d_in).activations[:600])
    return list(saeaudit.mediators(sample, inputs, saeaudit.MediatorOptions(max_tokens=4)))


@pytest.mark.parametrize("width", WIDTHS)
def test_mediators_in_sentences(mediators: list[Record], width: int) -> None:
    text = drawn(MediatorsScreen, mediators, width)
    flat = " ".join(text.split())
    assert "of 2,048 features active on each." in flat
    assert "another code of the same size as accurate as the best one" in flat
    assert "another code differs by 20% or more; the encoder's own is" in flat
    assert "  saeaudit score sample" in text.splitlines()
    assert "reconstruction" not in text, "the table of modes is for --details"
    assert all(cell_len(line) <= width for line in text.splitlines())
    details = drawn(lambda console: MediatorsScreen(console, details=True), mediators, width)
    assert "sample: every mode and tolerance" in details and "reconstruction 0.05" in details
    assert all(cell_len(line) <= width for line in details.splitlines())
    token = max((r for r in mediators if isinstance(r, MediatorRecord) and r.mode == "refit"),
                key=lambda r: (-r.epsilon, r.change or 0))  # fmt: skip
    assert len(re.findall(rf"^ +{token.removed[0]} +[\d.]+ +-  leaves", text, re.M)) >= 1
    assert details.count("leaves") == text.count("leaves")
    assert "--details shows all" in text and "--details shows all" not in details


def scored() -> list[Record]:
    """Of an SAE called "sample": a choice that is settled and one that is not, and a summary."""
    shares = ChosenShares(*(Estimate(v, v, v) for v in (0.0, 0.112, 0.888)))
    summary = replace(
        score(), sae="sample", bits_per_token=220.4, bits_interval=Interval(216.23, 224.91),
        fvu=0.196, fvu_quantised=0.1979, choices=400, resolved_fraction=0.1337,
        resolved_interval=Interval(0.11, 0.16), resolved_unavailable=None, chosen_shares=shares,
        mean_encoder_excess_bits=Estimate(50.1, 49.0, 51.0), incoherence=0.855,
        incoherence_chance=Estimate(0.948, 0.93, 0.96), incoherence_unavailable=None,
        incoherence_excess=Estimate(-0.093, -0.12, -0.07),
    )  # fmt: skip
    labels = Texts(("leaving",) * 6, ("entering",))
    open_choice = replace(
        choice(), sae="sample", token=17, text="spoke", chosen="other", encoder_excess_bits=70.25,
        removed=(11, 12, 13, 14, 15, 16), explanations=labels, resolved=False,
    )  # fmt: skip
    settled = replace(open_choice, token=23, text="rack", encoder_excess_bits=20.5, resolved=True)
    return [replace(nothing()[0], sae="sample"), open_choice, settled, summary]


@pytest.mark.parametrize("width", WIDTHS)
def test_score_in_sentences(width: int) -> None:
    text = drawn(ScoreScreen, scored(), width)
    flat = " ".join(text.split())
    assert "sample: 220.4 bits a token (216.2 to 224.9)," in flat
    assert "one with another feature on 88.8%; the encoder's takes 50.1 bits more." in flat
    assert "That is settled on 13.4% of them (11% to 16%)" in flat
    assert "disagree on 85.5%; labels dealt at random do on 94.8%, so exchanged features" in flat
    assert text.index("token 23 'rack'") < text.index("token 17 'spoke'"), "settled ones first"
    assert re.search(r"wasted +70\.2 +in +2  entering\n", text) and "and 2 more" in text
    assert text.endswith("  saeaudit score sample --explain 23\n")
    assert all(cell_len(line) <= width for line in text.splitlines())
    several = drawn(ScoreScreen, [*scored(), *scored()], width)
    assert ("    bits a token 220.4," in several) == (width < 100)
    assert "220.4" in several and "0.1979" in several


@pytest.mark.parametrize("made", [MediatorsScreen, ScoreScreen])
@pytest.mark.parametrize("width", WIDTHS)
def test_features_that_fire_together(made: Callable[[Console], Table], width: int) -> None:
    often = fired((692, 3925, 554), sae="sample", labels=("dogs", EVIL, None))
    never = fired((7, 9), sae="sample", together=0.0, ratio=0.0, ratio_interval=None)
    start, _, _, score_summary = scored()
    summary = (
        score_summary if made is ScoreScreen
        else MediatorsSummary("sample", 3, None, (), 0, 4.0, 0.1, 0.1, 0.9, 0.2, (), (), ())
    )  # fmt: skip
    text = drawn(made, [start, never, often, replace(often, features=(1, 2, 3)), summary], width)
    heading = "Findings whose features fire together most often, of 5,000 tokens"
    assert heading in " ".join(text.split())
    assert text.count("together  0.12%") == 2 and text.count("chance    0.06%") == 2
    assert re.search(r"692 +1\.0%  dogs\n", text) and "… 1 more: saeaudit show" in text
    assert all(cell_len(line) <= width for line in text.splitlines())
    assert "::error" not in text and "##[" not in text
    alone = drawn(made, [start, never, summary], width)
    said = "On none of 5,000 tokens do the features of a finding fire together (1 finding)."
    assert said in " ".join(alone.split())


def test_what_cannot_be_told_has_its_reason() -> None:
    summary = replace(score(), sae="s", resolved_fraction=None)
    flat = " ".join(drawn(ScoreScreen, [summary], 100).split())
    assert "Nothing is settled: a : :error title=x" in flat
    assert "Labels cannot be compared: a : :error title=x" in flat


@pytest.mark.parametrize("table", [ScoreScreen, MediatorsScreen])
def test_summaries_without_dictionaries_are_told_apart(
    table: Callable[[Console], Table], mediators: list[Record]
) -> None:
    last = scored()[-1] if table is ScoreScreen else mediators[-1]
    assert isinstance(last, ScoreSummary | MediatorsSummary)
    text = drawn(table, [replace(last, sae=sae) for sae in ("res/first", "res/second")], 160)
    assert re.search(r"^  first .*\n  second ", text, re.M)


if __name__ == "__main__":
    for case, make in CASES.items():
        (HERE / f"{case}.txt").write_text(scan_screen(make(), 80))
