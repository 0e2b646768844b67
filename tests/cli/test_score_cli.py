"""`saeaudit score` by subprocess: streams, exit statuses, and one clear line for each error."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from saeaudit.formats.screen.wording import percent
from saeaudit.records import json_schema
from saeaudit.sample import sample_root
from tests.conftest import Cli
from tests.support.files import sae, save

ROOT = sample_root()
SCANNED = Path(__file__).parents[1] / "golden" / "sample.jsonl"


def test_the_sample_in_one_line(cli: Cli) -> None:
    done = cli("score", "sample", "--max-tokens", "20", "--canonicalise", "--scan", SCANNED)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for record in records:
        jsonschema.validate(record, json_schema())
    kinds = [r["type"] for r in records]
    sets = [r["features"] for r in map(json.loads, SCANNED.read_text().splitlines())
            if r["type"] in ("pair", "triple")]  # fmt: skip
    middle = [*["choice"] * 20, *["firing"] * len(sets)]
    assert kinds == ["run", "dictionary", *middle, "summary", "run", "verdict"]
    fired = [r for r in records if r["type"] == "firing"]
    assert [r["features"] for r in fired] == sorted(sets, key=lambda f: (len(f), f))
    assert {r["tokens"] for r in fired} == {5000}
    assert any(r["typical"] and r["typical"]["bits"] for r in fired)
    assert b"Findings whose features fire together most often, of 5,000 tokens" in done.stderr
    summary = records[-3]
    assert summary["command"] == "score"
    assert summary["canonical"]["wasted_bits_per_token"] > 0
    assert summary["canonical"]["tokens"] == 20
    text = done.stderr.decode()
    assert f"{summary['bits_per_token']:.1f} bits a token" in text
    assert "codes waste" in text
    chance = summary["incoherence_chance"]["value"]
    assert f"{percent(summary['incoherence'])}; labels dealt at random" in " ".join(text.split())
    assert percent(chance) in text


def test_one_token_side_by_side(cli: Cli) -> None:
    done = cli("score", "sample", "--explain", "17", "--similarity", "tfidf")
    assert done.returncode == 0, done.stderr
    (choice,) = (r for r in map(json.loads, done.stdout.splitlines()) if r["type"] == "choice")
    text = done.stderr.decode()
    for feature in (*choice["removed"], *choice["added"]):
        assert str(feature) in text
    assert choice["explanations"]["added"][0] in text
    assert f"{choice['bits']['reference']:.2f}" in text
    assert (
        "Labels cannot be compared: 5 % of the pairs of texts" in text
    )  # lists that share no words
    assert "pip install 'saeaudit[semantic]'" in text


def test_mediators_are_piped_in(cli: Cli) -> None:
    given = cli("mediators", "sample", "--max-tokens", "5", "-q").stdout
    tokens = {r["token"] for r in map(json.loads, given.splitlines()) if r["type"] == "token"}
    done = cli("score", "sample", "--mediators", "-", "--similarity", "tfidf", "-q", input=given)
    assert done.returncode == 0, done.stderr
    choices = [r for r in map(json.loads, done.stdout.splitlines()) if r["type"] == "choice"]
    assert choices and {c["token"] for c in choices} == tokens


def test_several_saes_are_compared(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = np.eye(8)
    codes = (rng.random((3000, 8)) < 0.3) * rng.exponential(1, (3000, 8))
    noisy = codes @ rows + 0.05 * rng.normal(size=codes.shape)
    for name, decoder in (("good", rows), ("worse", rows + 0.3 * rng.normal(size=rows.shape))):
        (tmp_path / name).mkdir()
        sae(tmp_path / name, decoder)
    x = save(tmp_path, "x.npy", noisy)
    done = cli("score", tmp_path / "good", tmp_path / "worse", "sample", "--activations", x,
               "--bin-width", "0.1", "--max-tokens", "5", "-o", tmp_path / "out.jsonl")  # fmt: skip
    assert done.returncode == 2  # the sample reads another width
    records = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [r["type"] for r in records].count("summary") == 2
    (error,) = (r for r in records if r["type"] == "error")
    assert "width 8" in error["reason"]
    text = done.stderr.decode()
    assert "no more bits and no more error" in text


@pytest.fixture
def files(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    sae(tmp_path, rng.normal(size=(40, 8)))
    save(tmp_path, "x.npy", rng.normal(size=(600, 8)))
    save(tmp_path, "few.npy", rng.normal(size=(4, 8)))
    bad = rng.normal(size=(600, 8))
    bad[3] = np.nan
    save(tmp_path, "nan.npy", bad)
    save(tmp_path, "plain.npy", rng.normal(size=(40, 8)))
    rows = [{"index": i, "description": f"thing {i}"} for i in range(60)]
    (tmp_path / "other.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "some.csv").write_text("index,description\n0,red\n1,green\n2,\n")
    (tmp_path / "broken.jsonl").write_text('{"index": 0, "descr\n')
    (tmp_path / "noindex.jsonl").write_text('{"feature": 0, "description": "a"}\n')
    (tmp_path / "empty.jsonl").write_text("")
    (tmp_path / "nothing").mkdir()
    return tmp_path


ERRORS = [
    (["params.npz"], "prices need activations"),
    (["params.npz", "--activations", "few.npy", "--bin-width", "0.1"], "too few tokens"),
    (["params.npz", "--activations", "nan.npy", "--bin-width", "0.1"], "not finite"),
    (["plain.npy", "--activations", "x.npy"], "no encoder"),
    (["params.npz", "--activations", "x.npy", "--bin-width", "0"], "positive"),
    (["params.npz", "--activations", "x.npy", "--explanations", "other.jsonl"], "another SAE"),
    (["params.npz", "--activations", "x.npy", "--explanations", "broken.jsonl"], "bad JSON"),
    (["params.npz", "--activations", "x.npy", "--explanations", "noindex.jsonl"], "no index"),
    (["params.npz", "--activations", "x.npy", "--explanations", "empty.jsonl"], "no explanation"),
    (["params.npz", "--activations", "x.npy", "--explanations", "nowhere"], "no such file"),
    (["params.npz", "--features", "nothing"], "no batch"),
    (["params.npz", "--features", "fetched"], "no feature statistics were fetched"),
    (["params.npz", "--activations", "x.npy", "--mediators", "some.csv"], "line 1 is not a record"),
    (["params.npz", "--scan", "-", "--mediators", "-"], "standard input is read once"),
]


@pytest.mark.parametrize(("arguments", "message"), ERRORS, ids=[e[1] for e in ERRORS])
def test_errors_are_one_line(cli: Cli, files: Path, arguments: list[str], message: str) -> None:
    done = cli("score", *arguments, "-o", "out.jsonl", "--similarity", "tfidf", "-q", cwd=files)
    assert done.returncode == 2
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 1 and message in lines[0], done.stderr
    assert not (files / "out.jsonl").exists()


def test_sparse_explanations_are_a_warning(cli: Cli, files: Path) -> None:
    done = cli("score", "params.npz", "--activations", "x.npy", "--explanations", "some.csv",
               "--max-tokens", "3", "--similarity", "tfidf", cwd=files)  # fmt: skip
    assert done.returncode == 0, done.stderr
    warnings = [
        line for line in done.stderr.decode().splitlines() if "explanations of only" in line
    ]
    assert len(warnings) == 1 and "5%" in warnings[0] and "of this SAE?" in warnings[0]
