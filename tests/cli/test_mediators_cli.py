"""`saeaudit mediators` by subprocess: streams, exit statuses, and one clear line for each error."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from saeaudit.records import json_schema
from saeaudit.sample import sample_root
from saeaudit.vocabulary import CONTROLS
from tests.conftest import Cli
from tests.support.files import sae, save

RNG = np.random.default_rng(0)


def test_a_scan_is_piped_in(cli: Cli, tmp_path: Path) -> None:
    rows = RNG.normal(size=(3, 8))
    rows[2] = rows[1] - 3 * rows[0]
    file = save(tmp_path, "decoder.npy", rows)
    scanned = cli("scan", file, "-q").stdout
    done = cli("mediators", file, "--scan", "-", "-q", input=scanned)
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    for record in records:
        jsonschema.validate(record, json_schema())
    assert [r["type"] for r in records][:2] == ["run", "dictionary"]
    assert [r["type"] for r in records][-3:] == ["summary", "run", "verdict"]
    (example,) = (
        r
        for r in records
        if r["type"] == "mediator" and [c["feature"] for c in r["codes"]] == [0, 1]
    )
    assert [c["value"] for c in example["alternative"]] == pytest.approx([4, 1], abs=1e-6)


def test_the_sample_has_activations_of_its_own(cli: Cli) -> None:
    done = cli("mediators", "sample", "--max-tokens", "6")
    assert done.returncode == 0, done.stderr
    records = [json.loads(line) for line in done.stdout.splitlines()]
    tokens = [r for r in records if r["type"] == "token"]
    numbers = [r["token"] for r in tokens]
    assert len(numbers) == 6 and numbers == sorted(numbers) and numbers[-1] > 600
    words = json.loads((sample_root() / "tokens-test.json").read_text())
    assert [r["text"] for r in tokens] == [words[number] for number in numbers]
    assert b"6 of 5,000 activations, drawn from 65 documents (--seed 0)" in done.stderr
    assert b"another code of the same size" in done.stderr


def test_a_control_says_so_first_and_is_not_judged(cli: Cli, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(6, 8))
    file = sae(tmp_path, rows)
    x = save(tmp_path, "x.npy", rng.normal(size=(200, 6)) @ rows + rng.normal(size=(200, 8)))
    for command in ("mediators", "score"):
        arguments = (command, file, "--activations", x, "--control", "permuted-tokens")
        done = cli(*arguments, "--format", "table", "--max-tokens", "5")
        assert done.returncode == 0, done.stderr
        first, second, *rest = done.stdout.decode().splitlines()
        assert first == f"{file} (pursuit) is a control: {CONTROLS['pursuit']}"
        assert second == f"{file} (permuted-tokens) is a control: {CONTROLS['permuted-tokens']}"
        assert sum(" is a control: " in line for line in rest) == 0
        refused = cli(*arguments, "--fail-on", "mean_l0>9")
        assert refused.returncode == 2
        assert refused.stderr.decode() == (
            "saeaudit: --control permuted-tokens: 'mean_l0>9' would judge an SAE by a null "
            "(leave out --fail-on, and the rules of --config)\n"
        )
    refused = cli("mediators", file, "--activations", x, "--control", "shuffled-labels")
    assert refused.returncode == 2 and b"'shuffled-labels' is none of" in refused.stderr


def test_errors_are_one_line(cli: Cli, tmp_path: Path) -> None:
    file = sae(tmp_path, RNG.normal(size=(6, 4)))
    bare = save(tmp_path, "bare.npy", RNG.normal(size=(6, 4)))
    x = save(tmp_path, "x.npy", RNG.normal(size=(3, 4)).astype(np.float16))
    nan = save(tmp_path, "nan.npy", np.array([[0.0, 1, 2, np.nan]]))
    empty = save(tmp_path, "empty.npy", np.zeros((0, 4), np.float32))
    (tmp_path / "other").mkdir()
    rival = sae(tmp_path / "other", RNG.normal(size=(6, 4)))
    wide = save(tmp_path, "wide.npy", np.zeros((3, 7), np.float32))
    negative = save(tmp_path, "negative.npy", -np.ones((3, 6), np.float32))
    (tmp_path / "words.jsonl").write_text("some words\n")
    (tmp_path / "tokens.txt").write_text("one\ntwo\n")
    other = cli("scan", "sample", "-q").stdout
    (tmp_path / "other.jsonl").write_bytes(other)
    for arguments, said in (
        ((file,), "nothing to look at"),
        ((file, "--activations", "gone.npy"), "no such file"),
        ((file, "--activations", wide), "activations of width 7; the SAE reads 4"),
        ((file, "--activations", nan), "activation 0 is not finite"),
        ((file, "--activations", empty), "holds no activations"),
        ((bare, "--activations", x), "there is no encoder"),
        ((file, "--activations", x, "--tokens", "tokens.txt"), "2 tokens for 3 activations"),
        ((file, "--activations", x, "--codes", negative), "a code of -1"),
        ((file, "--activations", x, "--codes", wide), "codes of shape [3, 7]"),
        ((file, "--activations", x, "--encoder", "sample"), "2048 features x 384"),
        ((file, "--activations", x, "--encoder", rival), "its decoder is another"),
        ((file, "--activations", x, "--epsilon", "-1"), "--epsilon"),
        ((file, "--scan", "words.jsonl"), "line 1 is not a record"),
        ((file, "--scan", "other.jsonl"), "a scan of sample"),
        ((file, "--scan", "gone.jsonl"), "cannot be read"),
    ):
        done = cli("mediators", *arguments, "-o", "out.jsonl")
        lines = done.stderr.decode().strip().splitlines()
        assert done.returncode == 2, (arguments, done.stderr)
        assert len(lines) == 1 and said in lines[0], (arguments, lines)
        assert not (tmp_path / "out.jsonl").exists() and not list(tmp_path.glob(".out*"))


def test_activations_of_another_hook_are_noticed(cli: Cli, tmp_path: Path) -> None:
    file = sae(tmp_path, np.eye(4))
    x = save(tmp_path, "x.npy", RNG.normal(size=(20, 4)) - [2, 8, 2, 8])
    done = cli("mediators", file, "--activations", x)
    assert done.returncode == 0
    (line,) = (line for line in done.stderr.decode().splitlines() if "the variance" in line)
    assert "times the variance (their mean has 1)" in line and "another layer" in line


def test_codes_dense_and_sparse_agree(cli: Cli, tmp_path: Path) -> None:
    file = sae(tmp_path, RNG.normal(size=(6, 4)))
    x = save(tmp_path, "x.npy", RNG.normal(size=(3, 4)))
    dense = np.zeros((3, 6))
    dense[:, 1], dense[1, 4] = 1, 2
    save(tmp_path, "dense.npy", dense)
    indices = np.array([[1, -1], [1, 4], [1, -1]])
    np.savez(tmp_path / "sparse.npz", indices=indices, values=np.array([[1, 9], [1, 2], [1, 9.0]]))
    done = cli(
        "mediators", file, "--activations", x, "-q", "--codes", "dense.npy", "--codes",
        "sparse.npz", "--codes", "nnomp", "--encoder", file,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-3])
    by = {e.pop("name"): e for e in summary["encoders"]}
    assert by["dense.npy"] == by["sparse.npz"]
    assert {**by["encoder"], "more_accurate": 0.0} == by[str(file)]
    assert by["nnomp"]["fvu"] <= 1


def test_the_bundled_tokens_go_with_the_bundled_activations() -> None:
    tokens = json.loads((sample_root() / "tokens-test.json").read_text())
    assert len(tokens) == 5000


def test_explanations_stand_beside_the_most_exchanged(cli: Cli, tmp_path: Path) -> None:
    done = cli("mediators", "sample", "--max-tokens", "3")
    _, listed = done.stderr.decode().split("Exchanges that are the best on most tokens\n")
    lines = listed.split("\n\n")[0].splitlines()
    assert done.returncode == 0 and len(lines) > 2 and len(lines) % 2 == 0
    assert all("tokens such as" in line for line in lines)
    shown = cli("show", "-", "--format", "table", input=done.stdout).stdout.decode()
    assert listed.split("\n\n")[0] in shown, "from the records alone"
    for change in ("leaves", "enters"):
        labelled = [line for line in shown.splitlines() if f" {change} " in line]
        assert labelled and all("tokens such as" in line for line in labelled)
    none = cli("mediators", "sample", "--max-tokens", "3", "--explanations", "none")
    assert b"tokens such as" not in none.stderr
    (tmp_path / "other.jsonl").write_text('{"index": 4000, "description": "a"}\n')
    bad = cli("mediators", "sample", "--explanations", "other.jsonl", "-q")
    assert bad.returncode == 2 and len(bad.stderr.splitlines()) == 1


def test_several_saes_and_one_that_is_none(cli: Cli, tmp_path: Path) -> None:
    file = sae(tmp_path, RNG.normal(size=(6, 4)))
    x = save(tmp_path, "x.npy", RNG.normal(size=(3, 4)))
    bare = save(tmp_path, "bare.npy", RNG.normal(size=(6, 4)))
    done = cli("mediators", bare, file, "--activations", x, "-q")
    assert done.returncode == 2
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [r["type"] for r in records][:4] == ["run", "dictionary", "error", "dictionary"]
    assert [r["type"] for r in records][-3:] == ["summary", "run", "verdict"]
    (line,) = done.stderr.decode().splitlines()
    assert "bare.npy" in line and "no encoder" in line


@pytest.mark.parametrize(("rule", "status"), [("tokens>2", 1), ("tokens>3", 0)])
def test_a_policy_is_judged(cli: Cli, tmp_path: Path, rule: str, status: int) -> None:
    file = sae(tmp_path, RNG.normal(size=(6, 4)))
    x = save(tmp_path, "x.npy", RNG.normal(size=(3, 4)))
    (tmp_path / "saeaudit.yaml").write_text(f"policy: {{fail_on: ['{rule}']}}\n")
    for options in (("--fail-on", rule), ("--config", "saeaudit.yaml")):
        done = cli("mediators", file, "--activations", x, *options)
        assert done.returncode == status, done.stderr
        verdict = json.loads(done.stdout.splitlines()[-1])
        assert verdict["passed"] == (status == 0)
        assert [(r["rule"], r["value"]) for r in verdict["rules"]] == [(rule, 3)]
        assert (b"policy broken" in done.stderr) == (status == 1)
    assert cli("mediators", file, "--activations", x, *options, "--exit-zero").returncode == 0


@pytest.mark.parametrize(
    ("form", "beginning"),
    [
        ("table", "/"),
        ("github", "::notice title="),
        ("junit", "<?xml"),
        ("sarif", "{"),
        ("markdown", "## saeaudit: no rules"),
        ("codequality", "[]"),
    ],
)
def test_every_format(cli: Cli, tmp_path: Path, form: str, beginning: str) -> None:
    file = sae(tmp_path, RNG.normal(size=(6, 4)))
    x = save(tmp_path, "x.npy", RNG.normal(size=(3, 4)))
    done = cli("mediators", file, "--activations", x, "--format", form, "-q")
    assert done.returncode == 0 and done.stdout.decode().startswith(beginning), done.stdout
