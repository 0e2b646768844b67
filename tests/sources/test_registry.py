from __future__ import annotations

import json
from pathlib import Path

import pytest

import saeaudit
from saeaudit import AuditError
from saeaudit.cli.app import app
from saeaudit.sources import registry
from saeaudit.sources.registry import registry_names, registry_release
from saeaudit.sources.target import resolve
from tests.support.hub import Hub

REGISTRY = """\
mixed-res:
  repo_id: someone/mixed
  model: gpt2
  saes:
  - {id: first, path: blocks.0.hook_resid_pre, l0: 3}
  - {id: broken row}
layers:
  conversion_func: mntss_clt_layer_transcoder
  model: google/gemma-2-2b
  repo_id: someone/layers
  saes:
  - id: layer_3
    path: 3
trained:
  conversion_func: dictionary_learning_1
  model: pythia
  repo_id: someone/trained
  saes:
  - id: last
    path: runs/trainer_0
  - id: gone
    path: runs/trainer_9
gemma-scope-2b-pt-res:
  conversion_func: gemma_2
  model: gemma-2-2b
  repo_id: google/gemma-scope-2b-pt-res
  saes:
  - id: sixteen
    path: layer_16/width_16k/average_l0_154
llama_scope_lxr_8x:
  repo_id: google/gemma-scope-2b-pt-res
  saes:
  - id: other
    path: layer_16/width_16k/average_l0_154
damaged:
  repo_id: [
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SAELens as far as it is needed: its registry. It is read as a file, never imported."""
    package = tmp_path / "lib/sae_lens"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('imported')")
    (package / "pretrained_saes.yaml").write_text(REGISTRY)
    monkeypatch.syspath_prepend(str(tmp_path / "lib"))


def test_names_of_saelens(hub: Hub, installed: None) -> None:
    (local,) = resolve("mixed-res/first")
    assert local.id == "mixed-res/first"
    assert saeaudit.open("mixed-res/first").weights.format == "saelens"
    with pytest.raises(AuditError, match="did you mean mixed-res/first"):
        resolve("mixed-res/frist")
    with pytest.raises(AuditError, match=r"no such file, folder or release.*did you mean layers"):
        resolve("layerz")


def test_a_name_is_of_one_sae(hub: Hub, installed: None) -> None:
    """Not of the checkpoints beside it; and a release is not all of the repository it lies in."""
    for file in ("W_dec_3", "W_enc_3", "W_dec_4"):
        (hub.root / "someone/layers").mkdir(parents=True, exist_ok=True)
        (hub.root / f"someone/layers/{file}.safetensors").write_bytes(b"x")
    for file in ("trainer_0/ae.pt", "trainer_0/config.json", "trainer_0/checkpoints/ae_5.pt",
                 "trainer_1/ae.pt", "trainer_1/config.json"):  # fmt: skip
        place = hub.root / "someone/trained/runs" / file
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(b"{}")
    (layer,) = resolve("layers/layer_3")
    assert layer.file.name == "W_dec_3.safetensors"
    assert resolve("layers") == [layer]
    (last,) = resolve("trained/last")
    assert (last.id, last.file.name) == ("trained/last", "ae.pt")
    assert [local.id for local in resolve("trained")] == ["trained/last"]
    with pytest.raises(AuditError, match="no such"):
        resolve("trained/gone")


def test_releases_that_ship_know_the_registrys_names(hub: Hub, installed: None) -> None:
    (local,) = resolve("gemma-scope-2b-pt-res/sixteen")
    assert local.file.parent.name == "average_l0_154"
    (same,) = resolve("gemma-scope-2b-pt-res/layer_16/width_16k/average_l0_154")
    assert same.file == local.file
    with pytest.raises(AuditError):  # a release of that name, but of another repository
        resolve("llama_scope_lxr_8x/other")


def test_only_the_release_that_is_asked_for_is_parsed(installed: None) -> None:
    release = registry_release("mixed-res")
    assert release is not None and release.saes == {"first": "blocks.0.hook_resid_pre"}
    with pytest.raises(AuditError, match="damaged: bad YAML"):
        registry_release("damaged")
    assert registry_release("unknown") is None
    assert registry_names()[:3] == ("mixed-res", "layers", "trained")


def test_releases_lists_saelens_too(
    installed: None, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    with pytest.raises(SystemExit, match="0"):
        app(["releases", "someone/", "--format", "jsonl"])
    rows = [json.loads(line) for line in capsysbinary.readouterr().out.splitlines()]
    assert [(row["name"], row["model"], row["saes"]) for row in rows] == [
        ("layers", "google/gemma-2-2b", ["layer_3"]),
        ("mixed-res", "gpt2", []),  # rows in braces: what SAELens ships has none
        ("trained", "pythia", ["gone", "last"]),
    ]


def test_a_name_that_looks_like_saelens_where_it_is_not_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "find_spec", lambda name: None)
    assert registry_names() == ()
    where = "known where sae-lens is installed"
    for name in ("pythia-70m-deduped-res-sm/blocks.0.hook_resid_pre", "gpt2-small-mlp-tm"):
        with pytest.raises(AuditError, match=where):
            resolve(name)
    for name in ("nothing", "./some-file", "some-file.npy"):
        with pytest.raises(AuditError, match="no such file") as caught:
            resolve(name)
        assert where not in caught.value.line()
