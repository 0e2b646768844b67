from __future__ import annotations

import gzip
import json
import math
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saeaudit import AuditError
from saeaudit.audit.fetch import fetch_all
from saeaudit.sample import sample_root
from saeaudit.sources import batches, releases
from saeaudit.sources.explanations import find_explanations, find_features
from saeaudit.sources.exports import fetch_export
from saeaudit.sources.hub import Repo
from saeaudit.sources.known_sources import known_sources
from saeaudit.sources.neuronpedia import (
    read_explanations,
    read_features,
    source_of,
)
from saeaudit.sources.releases import Release
from saeaudit.sources.sae import Remote, Sae
from saeaudit.sources.target import resolve
from saeaudit.weights.find import Listed
from tests.conftest import Cli
from tests.support.hostile_bucket import packed
from tests.support.hub import GEMMA, Hub
from tests.support.notes import Notes

SOURCE = "gemma-2-2b/16-gemmascope-res-16k"
ROWS = [
    {"id": "a", "index": "10", "description": " ten ", "typeName": "np_max-act",
     "explanationModelName": "gpt", "embedding": "[0.5, 0.25]"},
    {"id": "b", "index": "2", "description": "two", "embedding": [1, 2]},
    {"id": "c", "index": "2", "description": "two again", "typeName": "other"},
    {"id": "a", "index": "10", "description": "repeated id"},
    {"id": "d", "index": "3", "description": ""},
    {"id": "e", "index": None, "description": "no index"},
]  # fmt: skip


@pytest.fixture
def exported(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    folder = hub.root / "bucket/v1" / SOURCE / "explanations"
    folder.mkdir(parents=True)
    for n in range(3):
        rows = "".join(json.dumps(row) + "\n" for row in ROWS[2 * n : 2 * n + 2])
        (folder / f"batch-{n}.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    monkeypatch.setenv("SAEAUDIT_NEURONPEDIA_URL", f"{hub.url}/bucket")
    return hub


def test_export_is_fetched_once_and_kept(exported: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    target = "gemma-scope-2b-pt-res/layer_16/width_16k/canonical"
    weights, listing = fetch_all(resolve(target), exports=["explanations"])
    assert (weights.type, listing.format) == ("listing", "neuronpedia-explanations")
    assert listing.uri == f"neuronpedia:{SOURCE}/explanations" and len(listing.files) == 3
    before = [r for r in exported.requests if r.endswith(".gz")]
    assert len(before) == 3
    fetch_export(SOURCE, "explanations")
    assert len([r for r in exported.requests if r.endswith(".gz")]) == 3
    monkeypatch.setattr(socket, "socket", None)
    assert len(fetch_export(SOURCE, "explanations", offline=True)) == 3
    with pytest.raises(AuditError, match="not in the cache"):
        fetch_export(SOURCE, "features", offline=True)


def test_indices_come_from_the_rows(exported: Hub) -> None:
    (place, *_) = fetch_export(SOURCE, "explanations")
    found = read_explanations(place.parent)
    assert {index: [e.description for e in texts] for index, texts in found.items()} == {
        10: ["ten"], 2: ["two", "two again"],
    }  # fmt: skip
    assert list(found[10][0].embedding or ()) == [0.5, 0.25] and found[2][1].embedding is None


def test_embeddings_are_left_out_and_nothing_else(tmp_path: Path) -> None:
    rows = [
        {"index": "0", "description": 'of "embedding": [1]', "embedding": [0.5, -2e-3], "id": "a"},
        {"embedding": "[1, 2]", "index": "1", "description": "[1, 2]\\", "typeName": "embedding"},
        {"index": "2", "description": "embedding", "embedding": []},
        {"index": "3", "description": "two", "embedding": [1, "x", [2]]},
        {"index": "4", "description": "none", "embeddings": [1], "embedding": None},
    ]
    lines = [json.dumps(rows[n], separators=(",", ":") if n % 2 else None) for n in range(5)]
    (tmp_path / "batch-0.jsonl").write_text("\n".join(lines))
    whole, texts = read_explanations(tmp_path), read_explanations(tmp_path, embeddings=False)
    assert [bool(whole[n][0].embedding) for n in range(5)] == [True, True, False, False, False]
    assert texts == {n: [replace(whole[n][0], embedding=None)] for n in range(5)}


def test_faults(exported: Hub, quick: list[float]) -> None:
    exported.faults = {"batch-1.jsonl.gz": [500, 429]}
    assert len(fetch_export(SOURCE, "explanations")) == 3
    with pytest.raises(AuditError, match="no export of features"):
        fetch_export(SOURCE, "features")
    exported.faults = {"batch-0.jsonl.gz": ["always", 500]}
    for kept in fetch_export(SOURCE, "explanations"):
        kept.unlink()
    with pytest.raises(AuditError, match="answered 500"):
        fetch_export(SOURCE, "explanations")


def test_damaged_batches_are_named(tmp_path: Path) -> None:
    (tmp_path / "batch-0.jsonl.gz").write_bytes(gzip.compress(b'{"index": "1"}\n')[:-9])
    with pytest.raises(AuditError, match=r"batch-0\.jsonl\.gz: damaged"):
        read_explanations(tmp_path)
    with pytest.raises(AuditError, match="no batch"):
        read_explanations(tmp_path / "nothing")


def test_sources_of_releases(hub: Hub) -> None:
    def source(path: str) -> str:
        return source_of(resolve(f"hf://{GEMMA}/{path}")[0])

    assert source("layer_16/width_16k/average_l0_78") == SOURCE
    with pytest.raises(AuditError, match=r"no Neuronpedia source.*neuronpedia"):
        source("layer_16/width_16k/average_l0_154")  # its layer and width have one, of l0_78
    with pytest.raises(AuditError, match="no Neuronpedia source"):
        source_of(resolve("hf://someone/mixed")[0])
    with pytest.raises(AuditError, match="local file"):
        source_of(resolve("sample")[0])


def known(repo: str, path: str, file: str = "") -> str | None:
    """The source of an SAE on the hub, without a hub; None where it is refused."""
    listed = Listed(path, file or f"{path}/params.safetensors", (), "")
    local = Sae(path, Path(path), remote=Remote(Repo(repo, "main", True), listed, path, 0))
    try:
        return source_of(local)
    except AuditError as error:
        if "no Neuronpedia source is known" not in error.line():
            raise
        return None


SCOPE_2 = "gemma-3-4b-it/17-gemmascope-2"


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("resid_post/layer_17_width_16k_l0_medium", f"{SCOPE_2}-res-16k"),
        ("resid_post/layer_17_width_1m_l0_medium", f"{SCOPE_2}-res-1m"),
        ("transcoder_all/layer_17_width_262k_l0_small_affine", f"{SCOPE_2}-transcoder-262k"),
        ("resid_post/layer_17_width_16k_l0_small", None),
        ("resid_post/layer_17_width_16k_l0_medium_seed_1", None),
        ("resid_post_all/layer_17_width_16k_l0_small", None),
        ("attn_out/layer_17_width_16k_l0_medium", None),
        ("mlp_out/layer_17_width_16k_l0_medium", None),
        ("transcoder_all/layer_17_width_262k_l0_small", None),
        ("transcoder/layer_17_width_16k_l0_small_affine", None),
    ],
)
def test_labels_of_gemma_scope_2_are_of_one_sae_each(path: str, source: str | None) -> None:
    assert known("google/gemma-scope-2-4b-it", path) == source


def test_labels_belong_to_the_sae() -> None:
    jb = "jbloom/GPT2-Small-SAEs-Reformatted"
    assert known(jb, "blocks.11.hook_resid_pre") == "gpt2-small/11-res-jb"
    assert known(jb, "blocks.11.hook_resid_post") == "gpt2-small/12-res-jb"
    assert known(jb, "blocks.5.hook_resid_post") is None
    nine = "google/gemma-scope-9b-pt-res"
    assert known(nine, "layer_20/width_16k/average_l0_68") == "gemma-2-9b/20-gemmascope-res-16k"
    assert known(nine, "layer_20/width_16k/average_l0_58") == (
        "gemma-2-9b/20-gemmascope-res-16k__l0-58"
    )
    assert known("mntss/clt-gemma-2-2b-2.5M", "W_dec_3.safetensors") == "gemma-2-2b/3-clt-hp"
    temporal = "gemma-2-2B/layer_12/temporal/latest_ckpt.safetensors"
    assert known("canrager/temporalSAEs", temporal, temporal) == "gemma-2-2b/12-temporal-res"
    assert known("someone/copy", "blocks.11.hook_resid_pre") is None


def test_no_two_saes_share_a_source_but_where_two_saes_are_the_same() -> None:
    sources = known_sources()
    assert len(sources) == len(set(sources.values())) == 3121
    assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", source) for source in sources.values())


def test_a_release_of_ones_own_says_it_for_the_saes_that_it_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(releases, "_OWN", {})
    saes = {"one": "layer_3/width_8k/average_l0_5", "two": "elsewhere"}
    releases.add_release(
        Release("mine", "hf://me/saes", neuronpedia="my-model/{layer}-res-{width}", saes=saes)
    )
    assert known("me/saes", "layer_3/width_8k/average_l0_5") == "my-model/3-res-8k"
    assert known("me/saes", "layer_3/width_8k/average_l0_6") is None
    with pytest.raises(AuditError, match="does not say its layer"):
        known("me/saes", "elsewhere")


def test_the_bundled_export() -> None:
    root = sample_root() / "neuronpedia/v1/all-MiniLM-L6-v2/3-wordnet-res-2k"
    explanations, features = (
        read_explanations(root / "explanations"),
        read_features(root / "features"),
    )
    assert sorted(explanations) == sorted(features) == list(range(2048))
    assert explanations[0][0].kind == "top-tokens"
    assert features[0].frac_nonzero == pytest.approx(0.00872)
    assert len(features[0].bin_centres) == 50


def test_what_was_fetched_is_what_score_takes(
    exported: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Explanations and histograms of a hub target, found again without a network."""
    from saeaudit.audit.score.api import score_all
    from saeaudit.audit.score.inputs import ScoreSources
    from saeaudit.audit.score.options import ScoreOptions
    from saeaudit.records import ScoreSummary

    target = "gemma-scope-2b-pt-res/layer_16/width_16k/canonical"
    folder = exported.root / "bucket/v1" / SOURCE / "features"
    folder.mkdir(parents=True)
    row = {
        "frac_nonzero": 0.01, "freq_hist_data_bar_values": [1.25, 1.75, 2.25],
        "freq_hist_data_bar_heights": [700, 200, 100],
    }  # fmt: skip
    rows = "".join(json.dumps({"index": str(i), **row}) + "\n" for i in range(300))
    (folder / "batch-0.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    assert len(list(fetch_all(resolve(target), exports=["explanations", "features"]))) == 3
    monkeypatch.setattr(socket, "socket", None)
    inputs = ScoreSources(features="fetched", similarity="tfidf", offline=True)
    notes = Notes()
    records = list(score_all(resolve(target, offline=True), inputs, ScoreOptions(), notes))
    (summary,) = (r for r in records if isinstance(r, ScoreSummary))
    assert summary.fitted_on == "histograms" and summary.fitted_tokens == 100_000
    assert summary.mean_l0 == pytest.approx(3.0)
    assert summary.disagreements is not None
    assert summary.disagreements.coverage == pytest.approx(1 / 300)  # of one explainer
    assert any("explanations of only 0%" in note for note in notes.lines)
    nothing = list(
        score_all(resolve(target, offline=True), ScoreSources(features="nowhere"), ScoreOptions())
    )
    assert [r.type for r in nothing] == ["error", "verdict"]


def test_a_source_by_hand(exported: Hub, monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    """Of an SAE that has none, from fetch through to what mediators and score take."""
    target, said = "hf://someone/mixed/blocks.0.hook_resid_pre", ("--neuronpedia", SOURCE)
    failed = cli("fetch", target, "--explanations")
    assert failed.returncode == 2 and b"--neuronpedia MODEL/SOURCE" in failed.stderr
    fetched = cli("fetch", target, "--explanations", *said)
    assert fetched.returncode == 0, fetched.stderr
    listings = [json.loads(line) for line in fetched.stdout.splitlines()]
    assert listings[1]["uri"] == f"neuronpedia:{SOURCE}/explanations"
    place = find_explanations(target, SOURCE)
    assert place is not None and len(read_explanations(place)) == 2
    assert find_explanations(target) is None
    with pytest.raises(AuditError, match=rf"saeaudit fetch .* --features --neuronpedia {SOURCE}"):
        find_features(target, SOURCE)


@pytest.mark.parametrize("command", ("fetch", "mediators", "score"))
def test_a_source_by_hand_is_checked(command: str, cli: Cli) -> None:
    wrong = cli(command, "sample", "--neuronpedia", "../elsewhere/x")
    assert wrong.returncode == 2
    assert b"--neuronpedia: '../elsewhere/x' is not MODEL/SOURCE" in wrong.stderr
    if command != "fetch":
        missing = cli(command, "sample", "--neuronpedia", "no-such/source", "--max-tokens", "10")
        assert missing.returncode == 2
        assert b"no explanations of no-such/source were fetched" in missing.stderr


def test_a_source_by_hand_is_of_one_sae(hub: Hub, cli: Cli) -> None:
    several = cli("fetch", "gemma-scope-2b-pt-res", "--explanations", "--neuronpedia", SOURCE)
    assert several.returncode == 2
    assert b"--neuronpedia: is of one SAE, not of 3" in several.stderr


# --- rows ---------------------------------------------------------------------------------------


def explained(tmp_path: Path, *rows: object) -> dict[int, list[Any]]:
    (tmp_path / "batch-0.jsonl.gz").write_bytes(packed(*rows))
    return read_explanations(tmp_path)


@pytest.mark.parametrize(
    "index",
    [-1, 10**9, 10**30, True, 1.0, math.nan, math.inf, "-1", "1.0", "\uff19", "", None, [], {}],
)
def test_an_index_that_is_none(index: object, tmp_path: Path) -> None:
    rows = [{"index": index, "description": "x"}, {"index": "4", "description": "y"}]
    assert list(explained(tmp_path, *rows)) == [4]
    (tmp_path / "batch-0.jsonl.gz").write_bytes(packed({"index": index, "frac_nonzero": 0.5}))
    assert read_features(tmp_path) == {}


def test_long_and_broken_texts_are_cut(tmp_path: Path) -> None:
    row = {"index": 1, "description": "x" * 1_000_000, "typeName": "k" * 1000, "id": [[]],
           "explanationModelName": {"a": 1}}  # fmt: skip
    (one,) = explained(tmp_path, row)[1]
    assert (len(one.description), len(one.kind), one.model) == (1000, 100, "")
    (one,) = explained(tmp_path, {"index": 1, "description": "half \ud83d of it"})[1]
    assert one.description == "half ? of it" and one.description.encode()


@pytest.mark.parametrize(
    "embedding",
    [[1.0] * 10_000, [math.nan], [math.inf, 1], [10**400], [True, 1], ["1"], [[1]], {}, "[1,", 5,
     "[" * 100_000, json.dumps([1.0] * 10_000), "NaN", "[NaN]"],
)  # fmt: skip
def test_an_embedding_that_is_none(embedding: object, tmp_path: Path) -> None:
    (one,) = explained(tmp_path, {"index": 1, "description": "x", "embedding": embedding})[1]
    assert one.embedding is None


HISTOGRAM = {
    "index": "1", "frac_nonzero": 0.5, "freq_hist_data_bar_values": [1, 2.5],
    "freq_hist_data_bar_heights": [3, 4],
}  # fmt: skip


@pytest.mark.parametrize(
    "harm",
    [
        {"frac_nonzero": math.nan}, {"frac_nonzero": 1.5}, {"frac_nonzero": -0.1},
        {"frac_nonzero": 10**400}, {"frac_nonzero": "0.5"}, {"frac_nonzero": [1]},
        {"freq_hist_data_bar_heights": [3, math.nan]}, {"freq_hist_data_bar_heights": [3, -4]},
        {"freq_hist_data_bar_heights": [3]}, {"freq_hist_data_bar_heights": "34"},
        {"freq_hist_data_bar_values": [1, math.inf]}, {"freq_hist_data_bar_values": [1, 10**400]},
        {"freq_hist_data_bar_values": [1, "2"]}, {"freq_hist_data_bar_values": {"1": 2}},
        {key: [1] * 20_000 for key in HISTOGRAM if key.startswith("freq")},
    ],
)  # fmt: skip
def test_a_histogram_that_is_none(harm: dict[str, object], tmp_path: Path) -> None:
    rows = [HISTOGRAM | harm, HISTOGRAM | {"index": "2"}]
    (tmp_path / "batch-0.jsonl.gz").write_bytes(packed(*rows))
    assert list(read_features(tmp_path)) == [2]


def test_memory_is_limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"index": i, "description": str(i), "embedding": [0.5] * 100} for i in range(1000)]
    allowance = batches.Allowance("here", 10**9, kept=1_240_000)
    monkeypatch.setattr(batches.Allowance, "of", classmethod(lambda cls, _: allowance))
    assert len(explained(tmp_path, *rows[:900])) == 900
    allowance.kept = 1_240_000
    with pytest.raises(AuditError, match="here: takes more than 2 GiB of memory"):
        explained(tmp_path, *rows)


@pytest.mark.parametrize("kind", ["pipe", "folder", "broken link"])
def test_what_is_no_file_is_named(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "batch-0.jsonl"
    if kind == "pipe":
        os.mkfifo(place)  # would be waited for
    elif kind == "folder":
        place.mkdir()
    else:
        place.symlink_to("nowhere")
    with pytest.raises(AuditError, match="not a file"):
        read_explanations(tmp_path)


def test_findings_link_to_the_pages_of_their_source(exported: Hub, cli: Cli) -> None:
    target = "gemma-scope-2b-pt-res/layer_16/width_16k/canonical"
    list(fetch_all(resolve(target), exports=["explanations"]))
    done = cli("scan", target, "--min-cosine", "0.01", "-q", "--offline")
    scanned = [json.loads(line) for line in done.stdout.splitlines()]
    assert scanned[1]["neuronpedia"] == SOURCE
    pairs = [record for record in scanned if record["type"] == "pair"]
    pair = next(pair for pair in pairs if 2 in pair["features"])
    at = pair["features"].index(2)
    assert pair["urls"][at] == f"https://www.neuronpedia.org/{SOURCE}/2"
    assert pair["labels"][at] == "two again"  # of the one explainer, by name where several tie
