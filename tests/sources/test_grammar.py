"""Targets that people paste, mistype or make up: parsed without asking anybody."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import saeaudit
from saeaudit.cli import targets
from saeaudit.errors import AuditError, TargetError
from saeaudit.sources import registry
from saeaudit.sources.grammar import parse_target
from saeaudit.sources.target import resolve
from saeaudit.suggest import did_you_mean, nearest
from tests.conftest import Cli
from tests.support.hub import GEMMA, Hub

PATH = "layer_16/width_16k/average_l0_78"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No SAELens, no files beside, and no hub that could be asked by mistake."""
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.chdir(tmp_path)


MEANT = {
    f"https://huggingface.co/{GEMMA}": f"hf://{GEMMA}",
    f"https://huggingface.co/{GEMMA}/": f"hf://{GEMMA}",
    f"http://hf.co/{GEMMA}": f"hf://{GEMMA}",
    f"huggingface.co/{GEMMA}": f"hf://{GEMMA}",
    f"https://huggingface.co/{GEMMA}/tree/main": f"hf://{GEMMA}",
    f"https://huggingface.co/{GEMMA}/tree/v2/{PATH}": f"hf://{GEMMA}@v2/{PATH}",
    f"https://huggingface.co/{GEMMA}/blob/main/{PATH}/params.npz": f"hf://{GEMMA}/{PATH}/params.npz",
    f"https://huggingface.co/{GEMMA}/resolve/main/{PATH}/params.npz?download=true":
        f"hf://{GEMMA}/{PATH}/params.npz",
    f"http://127.0.0.1:9/{GEMMA}/tree/main": f"hf://{GEMMA}",  # HF_ENDPOINT's own pages
    GEMMA: f"hf://{GEMMA}",
    f"{GEMMA}/{PATH}": f"hf://{GEMMA}/{PATH}",
    f"{GEMMA}@v2/{PATH}/params.npz": f"hf://{GEMMA}@v2/{PATH}/params.npz",
    "someone/mixed": "hf://someone/mixed",
    "gemma-2-2b/16-gemmascope-res-16k": f"hf://{GEMMA}/{PATH}",
    "https://www.neuronpedia.org/gemma-2-2b/16-gemmascope-res-16k": f"hf://{GEMMA}/{PATH}",
    "https://neuronpedia.org/gemma-2-2b/16-gemmascope-res-16k/123?embed=true":
        f"hf://{GEMMA}/{PATH}",
    "www.neuronpedia.org/gemma-2-2b/16-gemmascope-res-16k/123": f"hf://{GEMMA}/{PATH}",
}  # fmt: skip


@pytest.mark.parametrize(("typed", "uri"), MEANT.items(), ids=list(MEANT))
def test_what_is_pasted_is_an_address_on_the_hub(typed: str, uri: str) -> None:
    target = parse_target(typed)
    assert (target.kind, target.uri, target.layer) == ("hub", uri, None)
    assert parse_target(f"{typed}#3").layer == 3
    assert parse_target(f" {typed}\r\n").uri == uri


def test_the_note_says_which_sae_a_name_stands_for() -> None:
    page = "https://www.neuronpedia.org/gemma-2-2b/16-gemmascope-res-16k/123"
    assert parse_target(page).note == (
        f"gemma-2-2b/16-gemmascope-res-16k: the SAE hf://{GEMMA}/{PATH}, "
        "whose feature 123 the page is about"
    )
    assert parse_target("someone/mixed").note == "someone/mixed: taken as hf://someone/mixed"


REFUSED = {
    "https://user:secret@huggingface.co/a/b": "name or a password",
    "https://secret@huggingface.co/a/b": "name or a password",
    "https://huggingface.co@evil.example/a/b": "name or a password",
    "https://evil.example/huggingface.co/a/b?token=secret": "another site",
    "https://huggingface.co.evil.example/a/b": "another site",
    "https://127.0.0.1/a/b": "another site",
    "http://127.0.0.1:99/a/b": "another site",
    "https://huggingface.co:99/a/b": "port",
    "https://huggingface.co:x/a/b": "no web address",
    "https://[::1/a/b": "no web address",
    "https://huggingface.co/a/b#readme": "fragment",
    "https://huggingface.co/a/%2e%2e/b": "percent-encodings",
    "https://huggingface.co/a/b/tree/refs%2Fpr%2F1": "percent-encodings",
    "https://huggingface.co/a/../b": "leads out",
    "https://huggingface.co/a/b/tree/main/../../c": "leads out",
    "https://huggingface.co/a//b": "leads out",
    "https://huggingface.co/a\\b/c": "leads out",
    "https://huggingface.co/a/b\x1b[31m": "cannot be used",
    "https://huggingface.co/" + "a/" * 2000: "cannot be used",
    "https://huggingface.co/": "names no repository",
    "https://huggingface.co/google": "names no repository",
    "https://huggingface.co/datasets/a/b": "datasets, not of a model",
    "https://huggingface.co/a/b/discussions/3": "no folder or file",
    "https://huggingface.co/a@b/c": "not a hub address",
    "ftp://huggingface.co/a/b": "no address of an SAE",
    "file:///etc/passwd": "no address of an SAE",
    "https://": "no address of an SAE",
    "https://www.neuronpedia.org/gemma-2-2b": "of no SAE",
    "https://www.neuronpedia.org/gemma-2-2b/16-gemmascope-res-16k/x": "of no SAE",
    "https://www.neuronpedia.org/a/b/1/2": "of no SAE",
    "https://www.neuronpedia.org/some-model/some-source": "no SAE is known of this source",
    "hf://a/b/../../c": "leads out",
    "hf://a/b/c//d": "leads out",
    "gemma-scope-2b-pt-res/../../x": "leads out",
}


@pytest.mark.parametrize(("typed", "says"), REFUSED.items(), ids=[repr(t)[:60] for t in REFUSED])
def test_what_hides_where_it_leads_is_refused_in_a_line(typed: str, says: str) -> None:
    with pytest.raises(TargetError, match=says) as caught:
        parse_target(typed)
    line = caught.value.line()
    assert "secret" not in line and "\n" not in line and "\x1b" not in line
    assert len(line) < 700


def test_saelens_names_of_canonical_saes() -> None:
    target = parse_target("gemma-scope-2b-pt-res-canonical/layer_16/width_16k/canonical")
    assert target.release is not None and target.kind == "release"
    assert target.release.saes[target.sae] == PATH and target.release.closed
    assert len(target.release.saes) == 58
    with pytest.raises(TargetError, match=r"has no SAE.*did you mean .*layer_16/width_16k/canon"):
        parse_target("gemma-scope-2b-pt-res-canonical/layer_16/width_16k/average_l0_78")
    for name in ("gemma-scope-2-1b-pt-canonical", "nothing-canonical"):  # of no canonical SAEs
        with pytest.raises(TargetError, match="no such file, folder or release"):
            parse_target(name)


FOUR = "gemma-scope-2b-pt-att, gemma-scope-2b-pt-mlp, gemma-scope-2b-pt-res or gemma-scope-2b-pt-tr"


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("gemma-scope-2b", f"did you mean {FOUR}anscoders?"),
        ("Gemma-Scope-2B", f"did you mean {FOUR}anscoders?"),
        ("gemma-scope", "more? saeaudit releases lists them"),
        ("gemma-scope-2b-pt-rse", "did you mean gemma-scope-2b-pt-res?"),
        ("gemma-scope-2b-pt-rse/layer_1/x", "did you mean gemma-scope-2b-pt-res/layer_1/x?"),
        ("gemma-2-2b/16-gemmascope-res-17k", "did you mean gemma-2-2b/16-gemmascope-res-16k?"),
        ("sampel/stitched", "did you mean sample/stitched?"),
        ("weights.npy", "did you mean weight.npy?"),
        ("runs/sae_3.npz", "did you mean runs/sae_1.npz?"),
        ("rnus/sae_1", "did you mean runs?"),
        ("new/file.npz", "no such file or folder"),
    ],
)
def test_what_may_have_been_meant(typed: str, says: str, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name in ("weight.npy", "weights.txt", "weights.npy.bak", "runs/sae_1.npz", "runs/sae_3.md"):
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(TargetError) as caught:
        parse_target(typed)
    assert says in caught.value.line()


def test_never_the_name_that_was_typed_or_a_file_of_another_kind(tmp_path: Path) -> None:
    (tmp_path / "gone.npz").symlink_to(tmp_path / "nowhere")
    (tmp_path / "gone.txt").write_text("x")
    (tmp_path / "gone.npz.d").mkdir()
    for typed in ("gone.npz", "./gone.npz", str(tmp_path / "gone.npz")):
        with pytest.raises(TargetError, match="no such file or folder") as caught:
            parse_target(typed)
        assert caught.value.hint == ""
    assert nearest("pairs", ["pairs", "pears"]) == ["pears"]
    assert did_you_mean("x", []) == "" and did_you_mean("x" * 10**6, ["y", "scan"]) == ""


def test_a_folder_that_is_here_is_meant_before_a_repository(tmp_path: Path) -> None:
    (tmp_path / "google").mkdir()
    with pytest.raises(TargetError, match="no such file, folder or release"):
        parse_target("google/gemma-scope-2b-pt-res")
    (tmp_path / GEMMA).mkdir(parents=True)
    assert parse_target(GEMMA).kind == "disk"


def test_pasted_targets_open_the_same_sae(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    uri = f"hf://{GEMMA}/{PATH}"
    for typed in (
        f"https://huggingface.co/{GEMMA}/tree/main/{PATH}", f"{hub.url}/{GEMMA}/tree/main/{PATH}",
        f"{GEMMA}/{PATH}", "gemma-2-2b/16-gemmascope-res-16k",
        "https://www.neuronpedia.org/gemma-2-2b/16-gemmascope-res-16k/5",
    ):  # fmt: skip
        lines: list[str] = []
        (sae,) = resolve(typed, note=lines.append)
        assert sae.id == uri and len(lines) == (not typed.startswith("http") or "neuron" in typed)
    name = "gemma-scope-2b-pt-res-canonical/layer_16/width_16k/canonical"
    assert saeaudit.open(name).source.uri == f"hf://{GEMMA}/{PATH}"
    assert saeaudit.open(name).sae == name
    assert [sae.id for sae in resolve("gemma-scope-2b-pt-res-canonical")] == [
        name.replace("16/", "2/", 1),
        name,
    ]
    with pytest.raises(AuditError, match="no such repository"):
        resolve("nobody/nothing")


def test_no_target_is_asked_for_before_all_are_looked_at(
    hub: Hub, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    done = cli("scan", GEMMA, "smaple")
    assert done.returncode == 2 and b"did you mean sample?" in done.stderr
    assert not hub.requests


def test_a_whole_release_wants_yes_where_it_is_large(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from saeaudit.cli.console import console

    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setattr(targets, "LARGE", 100_000)
    people = console(quiet=True)
    with pytest.raises(AuditError, match=r"would be fetched \(3 SAEs\).*yes"):
        targets.resolve_targets([GEMMA], None, people, offline=False)
    assert len(targets.resolve_targets([GEMMA], None, people, offline=False, yes=True)) == 3
    assert not hub.sent
    for sae in targets.resolve_targets([GEMMA], None, people, offline=False, yes=True):
        sae.bring()
    assert len(targets.resolve_targets([GEMMA], None, people, offline=False)) == 3  # all here


def test_yes_is_no_part_of_the_records(cli: Cli, tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", np.random.default_rng(0).normal(size=(20, 8)))
    done = cli("scan", "rows.npy", "--yes", "-q")
    assert "yes" not in json.loads(done.stdout.splitlines()[0])["arguments"]
