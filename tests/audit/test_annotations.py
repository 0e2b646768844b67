"""What is known of features stands on findings, in records and in every format."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

import saeaudit
from saeaudit.audit.annotations import Annotations, AnnotationSources
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan_all
from saeaudit.errors import AuditError
from saeaudit.formats import github, junit, sarif
from saeaudit.formats.screen.findings import sentence
from saeaudit.policy.baseline import make_baseline
from saeaudit.records import ClaimRecord, GroupRecord, PairRecord, ScanSummary, Verdict
from saeaudit.sources import batches
from saeaudit.sources.target import resolve
from tests.conftest import Cli
from tests.support.oracle import gram, usable
from tests.support.records import EVIL, RUN

SOURCE = "some-model/3-res-8k"
PAIR = PairRecord("s", (2, 10), "duplicate", 0.9949, 1.1, 0.2548)


def records(out: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def test_findings_of_the_samples_have_their_bundled_labels(cli: Cli) -> None:
    labelled = records(cli("scan", "sample/stitched", "-q").stdout)
    (pair,) = (r for r in labelled if r.get("features") == [114, 2280])
    assert pair["labels"] == ["tokens such as ';', '.'"] * 2
    triples = [r for r in labelled if r["type"] == "triple"]
    assert len(triples) == 3 and all(len(r["labels"]) == 3 for r in triples)
    assert all(r["urls"] is None and r["firing_rates"] is None for r in triples)
    (bare,) = (r for r in records(cli("scan", "sample", "-q", "--explanations", "none").stdout)
               if r["type"] == "pair")  # fmt: skip
    assert bare["labels"] is None


def test_explanations_and_statistics_of_ones_own(cli: Cli, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
    rows[7] = rows[3]
    np.save(tmp_path / "a.npy", rows)
    texts = [{"index": 3, "description": "three"}, {"index": 9, "description": "nine"}]
    (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in texts))
    (tmp_path / "f" / "features").mkdir(parents=True)
    statistics = {"index": "7", "frac_nonzero": 0.125}
    (tmp_path / "f" / "features" / "batch-0.jsonl").write_text(json.dumps(statistics) + "\n")
    told = ("--explanations", "labels.jsonl", "--features", "f", "--neuronpedia", SOURCE)
    lines = records(cli("scan", "a.npy", "-q", *told).stdout)
    (pair,) = (r for r in lines if r["type"] == "pair")
    assert (pair["features"], pair["labels"]) == ([3, 7], ["three", None])
    assert pair["firing_rates"] == [None, 0.125]
    page = f"https://www.neuronpedia.org/{SOURCE}"
    assert pair["urls"] == [f"{page}/3", f"{page}/7"]
    assert next(r for r in lines if r["type"] == "dictionary")["neuronpedia"] == SOURCE
    summary = next(r for r in lines if r["type"] == "summary")
    assert summary["closest_pair"]["labels"] == pair["labels"]
    for option, name in (("--explanations", "nowhere.jsonl"), ("--features", "nowhere")):
        failed = cli("scan", "a.npy", option, name, "--format", "jsonl")
        assert failed.returncode == 2 and f"{name}: no such file" in failed.stderr.decode()
        assert [r["type"] for r in records(failed.stdout)] == ["run", "error", "run", "verdict"]
    (tmp_path / "labels.jsonl").write_text('{"index": 50, "description": "of another"}\n')
    failed = cli("scan", "a.npy", "--explanations", "labels.jsonl")
    assert failed.returncode == 2 and b"explains feature 50 of 50" in failed.stderr
    (tmp_path / "f" / "features" / "batch-0.jsonl").write_text('{"index": "50"}\n')
    failed = cli("scan", "a.npy", "--features", "f")
    assert failed.returncode == 2 and b"has feature 50 of 50" in failed.stderr


def test_texts_that_are_no_labels_are_left_out_with_a_line(cli: Cli, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(50, 32)).astype(np.float32)
    rows[7] = rows[3]
    np.save(tmp_path / "a.npy", rows)
    texts = {3: "three", 7: "x" * 501, 9: "<think> what is it", 11: "y (negative activations)"}
    for count in (1, 2, 4):
        some = [{"index": n, "description": texts[n]} for n in list(texts)[:count]]
        (tmp_path / "labels.jsonl").write_text("".join(json.dumps(row) + "\n" for row in some))
        done = cli("scan", "a.npy", "--explanations", "labels.jsonl", "--format", "jsonl")
        assert done.returncode == 0
        (pair,) = (r for r in records(done.stdout) if r["type"] == "pair")
        assert pair["labels"] == ["three", None]
        told = [line for line in done.stderr.decode().splitlines() if "left out" in line]
        assert [line.split()[2:5] for line in told] == {
            1: [], 2: [["1", "text", "is"]], 4: [["3", "texts", "are"]]
        }[count]  # fmt: skip
        (tmp_path / "scan.jsonl").write_bytes(done.stdout)
        again = cli("mediators", "a.npy", "--scan", "scan.jsonl", "--explanations", "labels.jsonl")
        assert again.returncode == 0
        assert [line for line in again.stderr.decode().splitlines() if "left out" in line] == told


def test_output_does_not_replace_what_it_reads(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_text('{"index": 0, "description": "zero"}\n')
    failed = cli("scan", "sample", "--explanations", "labels.jsonl", "-o", "labels.jsonl")
    assert failed.returncode == 2 and b"would be written over labels.jsonl" in failed.stderr


def test_every_format_shows_labels_rates_and_pages_as_text() -> None:
    known = Annotations({2: EVIL, 10: "cats"}, {2: 0.0123, 10: 0.00012}, SOURCE)
    group = GroupRecord("s", tuple(range(2, 12)), 10, 0.91, 0.99)
    described = next(saeaudit.scan(saeaudit.Dictionary.from_rows(torch.eye(3), sae="s")))
    findings = [RUN, described, known.on(PAIR), known.on(group)]
    message = sentence(known.on(PAIR))
    assert message.startswith("features 2 and 10: decoder cosine 0.995, encoder cosine 0.25; 2: ")
    assert "fires on 1.2% of tokens" in message
    assert message.endswith(
        f"10: cats, fires on 0.012% of tokens, https://www.neuronpedia.org/{SOURCE}/10"
    )
    for render in (github.render, junit.render, sarif.render):
        text = render(findings)
        assert f"neuronpedia.org/{SOURCE}/10" in text and "[31m" not in text.replace("�", "")
        assert "##[" not in text and "\x1b" not in text and "cats" in text
        assert all(line.count("::") <= 2 for line in text.splitlines())
    assert github.render([PAIR]) == (
        "::warning title=saeaudit duplicate%3A s::features 2 and 10: decoder cosine 0.995, "
        "encoder cosine 0.25\n"
    )


def test_what_changes_with_the_cache_is_in_no_baseline() -> None:
    finding = Annotations({2: "two"}, {2: 0.5}, SOURCE).on(PAIR)
    described = next(saeaudit.scan(saeaudit.Dictionary.from_rows(torch.eye(3), sae="s")))
    made = list(make_baseline([described, finding, Verdict(True, (), 1, 0)], "scan.jsonl", "0"))
    assert made[2] == PAIR


def test_crowds_are_not_described_one_by_one() -> None:
    crowd = GroupRecord("s", tuple(range(20_000)), 20_000, None, None)
    assert Annotations({2: "two"}, None, SOURCE).on(crowd) == crowd


def test_lists_that_are_too_short_are_no_error() -> None:
    assert "2: dogs" in sentence(replace(PAIR, labels=("dogs",), urls=()))


def test_a_control_is_on_no_page() -> None:
    dictionary = saeaudit.open("sample")
    known = replace(dictionary, source=replace(dictionary.source, neuronpedia=SOURCE))
    assert known.neuronpedia == SOURCE
    assert replace(known, control="random-decoder").neuronpedia is None


def test_labels_are_read_once_and_kept_for_tables() -> None:
    sources = AnnotationSources()
    labels = sources.read(saeaudit.open("sample/stitched")).labels
    assert labels is not None and sources.texts == {"sample/stitched": labels}
    with pytest.raises(AuditError, match="no feature statistics were fetched"):
        AnnotationSources(features="fetched").read(saeaudit.open("sample/stitched"))


def test_embeddings_are_read_where_texts_are_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []

    def loads(line: bytes) -> object:
        sizes.append(len(line))
        return json.loads(line)

    monkeypatch.setattr(batches, "json", SimpleNamespace(loads=loads))
    read = {}
    for pairs in ((), ((3, 5),)):
        options, sources = ScanOptions(pairs=pairs), AnnotationSources()
        made = list(scan_all(resolve("sample"), options, "fp32", annotated=sources))
        methods = [r.similarity_method for r in made if isinstance(r, ClaimRecord)]
        read[pairs] = sum(sizes), methods, sources.texts
        sizes.clear()
    (little, none, labels), (much, methods, same) = read.values()
    assert 4 * little < much and labels == same
    assert (none, methods) == ([], ["export"])


@pytest.mark.parametrize("seed", range(6))
def test_the_closest_pair_is_that_of_brute_force(seed: int, screen: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(60, 6, generator=generator)
    if seed % 2:  # ties: the first of them
        rows[40], rows[20], rows[31] = -2 * rows[9], 3 * rows[5], rows[30]
    summary = list(saeaudit.scan(saeaudit.Dictionary.from_rows(rows), screen=screen))[-1]
    assert isinstance(summary, ScanSummary)
    cosines = gram(rows.numpy(), usable(rows.numpy()))
    np.fill_diagonal(cosines, 0)
    closest = summary.closest_pair
    i, j = closest.features
    assert i < j and abs(closest.cosine) == pytest.approx(np.abs(cosines).max(), abs=1e-8)
    assert closest.cosine == pytest.approx(cosines[i, j], abs=1e-8)
    if seed % 2:
        assert (i, j) == (5, 20)


def test_dead_features_are_counted() -> None:
    rows = torch.eye(40)
    rows[3] = 0.0
    rows[5:8] *= 1e-6
    rows[9] = float("nan")
    dictionary = saeaudit.Dictionary.from_rows(rows)
    for kept, dead in ((False, 4), (True, 1)):
        options = saeaudit.ScanOptions(include_collapsed=kept)
        summary = list(saeaudit.scan(dictionary, options))[-1]
        assert isinstance(summary, ScanSummary)
        assert (summary.dead_features, summary.dead_fraction) == (dead, dead / 40)
