"""Which activations an SAE reads: what its files say, and its release."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from saeaudit import AuditError
from saeaudit.audit.collect.default import hub_id, site_of
from saeaudit.audit.collect.names import GEMMA, GPT2, LLAMA, translate
from saeaudit.dictionary import Weights
from saeaudit.site import UNKNOWN, Site
from saeaudit.sources.hub import Repo
from saeaudit.sources.known_sources import known_sources
from saeaudit.sources.releases import Release, add_release, builtin_releases, load_release
from saeaudit.sources.sae import Remote, Sae
from saeaudit.weights.find import Listed, read_weights
from tests.weights import layouts

SAYS_IT = ("gpt2-small-res-jb", "llama_scope_", "qwen-scope-", "saebench_")
"""Releases whose files say which hook they are of."""


def sae_at(repo: str, path: str) -> Sae:
    listed = Listed(path, f"{path}/params.npz", (), "")
    remote = Remote(Repo(repo, "0" * 40, offline=True), listed, f"hf://{repo}/{path}", 0)
    return Sae(remote.uri, Path("params.npz"), remote=remote)


def released(repo: str, path: str, site: Site = UNKNOWN) -> Site:
    import torch

    return site_of(sae_at(repo, path), Weights("", torch.eye(2), site=site))


def test_every_sae_of_every_release_has_a_place() -> None:
    for name, release in builtin_releases().items():
        repo = release.source.removeprefix("hf://")
        listed = {path for owner, path in known_sources() if owner == repo}
        for path in {*release.saes.values(), *listed}:
            site = released(repo, path)
            assert site.model and "/" in site.model
            if name.startswith(SAYS_IT):
                assert site.hook is None
            else:
                assert site.hook and (site.context, site.bos) == (1024, "drop")
                family = LLAMA if "hook_" not in site.hook else GEMMA
                assert "hook_" not in site.hook or translate(site.hook, family)


@pytest.mark.parametrize(
    ("path", "hook"),
    [
        ("pt-res/layer_16/width_16k/average_l0_78", "blocks.16.hook_resid_post"),
        ("pt-res/embedding/width_4k/average_l0_6", "hook_embed"),
        ("pt-mlp/layer_3/width_65k/average_l0_68", "blocks.3.hook_mlp_out"),
        ("pt-att/layer_25/width_16k/average_l0_77", "blocks.25.attn.hook_z"),
        ("pt-transcoders/layer_0/width_16k/average_l0_76", "blocks.0.ln2.hook_normalized"),
        ("pt-res/README.md", None),
    ],
)
def test_gemma_scope(path: str, hook: str | None) -> None:
    repo, _, inside = path.partition("/")
    site = released(f"google/gemma-scope-2b-{repo}", inside)
    assert site == Site("google/gemma-2-2b", hook, 1024, "drop")


def test_files_come_before_releases_and_the_users_before_those_that_ship(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("saeaudit.sources.releases._OWN", {})
    repo, path = "google/gemma-scope-2b-pt-res", "layer_16/width_16k/average_l0_78"
    said = Site(model="gpt2-small", context=77, bos="none")
    hook = "blocks.16.hook_resid_post"
    assert released(repo, path, said) == Site("openai-community/gpt2", hook, 77, "none")
    file = tmp_path / "mine.yaml"
    file.write_text(
        "release: mine\nsource: hf://google/gemma-scope-2b-pt-res\n"
        "collect: {hooks: {layer_16/: layers.3}, context: 256}\n"
    )
    add_release(load_release(file))
    assert released(repo, path) == Site("google/gemma-2-2b", "layers.3", 256, "drop")
    assert released(repo, "layer_1/a").hook == "blocks.1.hook_resid_post"
    assert released("google/gemma-scope-2b-pt-residual", path) == UNKNOWN


def test_the_sample() -> None:
    import saeaudit
    from saeaudit.sources.target import resolve

    site = site_of(resolve("sample")[0], saeaudit.open("sample").weights)
    model = "sentence-transformers/all-MiniLM-L6-v2"
    assert site == Site(model, "encoder.layer.2:out", 128, "drop")


def saelens(**config: Any) -> dict[str, Any]:
    return {"architecture": "standard", "d_in": layouts.D, "d_sae": layouts.F, **config}


def metadata(**config: Any) -> dict[str, Any]:
    return saelens(metadata={"sae_lens_version": "6.1.0", **config})


def trainer(**config: Any) -> dict[str, Any]:
    sizes = {"dict_size": layouts.F, "activation_dim": layouts.D}
    return {"dict_class": "AutoEncoder", **sizes, **config}


MODEL = {"model_name": "gpt2-small"}
SITES: list[tuple[str, dict[str, Any] | None, Site]] = [
    ("saelens", saelens(), Site(bos="drop")),
    ("saelens", saelens(hook_point="blocks.7.hook_resid_pre", context_size=128, **MODEL),
     Site("gpt2-small", "blocks.7.hook_resid_pre", 128, "drop")),
    ("saelens", metadata(hook_name="blocks.7.hook_mlp_out", prepend_bos=False, **MODEL),
     Site("gpt2-small", "blocks.7.hook_mlp_out", None, "none")),
    ("saelens", metadata(hook_name="a", hf_hook_name="model.layers.3", hook_head_index=None),
     Site(None, "model.layers.3", None, "drop")),
    ("saelens", metadata(hook_name="blocks.7.attn.hook_z", hook_head_index=3), Site(bos="drop")),
    ("saelens", metadata(model_from_pretrained_kwargs={"center_writing_weights": True}),
     Site(bos="drop", centred=True)),
    ("saelens", metadata(hook_name=3, model_name=["x"], context_size=-1), Site(bos="drop")),
    ("saelens", metadata(hook_name="a\nb", model_name="x" * 300, context_size=True,
                         model_from_pretrained_kwargs=[1]), Site(bos="drop")),
    ("gemma_scope_2", {"type": "sae", "hf_hook_point_in": "model.layers.13.output",
                       "model_name": "gemma-v3-1b-pt"},
     Site("google/gemma-3-1b-pt", "model.layers.13.output")),
    ("gemma_scope_2", {"model_name": "google/gemma-3-270m-pt",
                       "hf_hook_point_in": "model.layers.{5,9,12,15}.output"},
     Site("google/gemma-3-270m")),
    ("gemma_scope", None, UNKNOWN),
    ("qwen_scope", None, Site(hook="blocks.2.hook_resid_post")),
    ("goodfire", None, Site(hook="blocks.19.hook_resid_post")),
    ("dl_autoencoder", {"trainer": trainer(lm_name="EleutherAI/pythia-70m", layer=3,
                                                submodule_name="resid_post_layer_3"),
                             "buffer": {"ctx_len": 128, "io": "out"}},
     Site("EleutherAI/pythia-70m", "blocks.3.hook_resid_post", 128)),
    ("dl_autoencoder", {"trainer": trainer(layer=3, submodule_name="mlp3")}, UNKNOWN),
    ("dl_autoencoder", {"trainer": trainer(layer=3), "buffer": {"io": "in"}}, UNKNOWN),
    ("dl_autoencoder", {"trainer": trainer(layer="x"), "buffer": 3}, UNKNOWN),
]  # fmt: skip


@pytest.mark.parametrize(("family", "config", "site"), SITES)
def test_what_files_say(
    family: str, config: dict[str, Any] | None, site: Site, tmp_path: Path
) -> None:
    file = getattr(layouts, family)(tmp_path)
    names = {"saelens": "cfg.json"}
    if config is not None:
        (file.parent / names.get(family, "config.json")).write_text(json.dumps(config))
    assert read_weights(file).weights.site == site


@pytest.mark.parametrize(
    ("folder", "transcode", "hook"),
    [
        ("layers.5", False, "layers.5:out"),
        ("h.3.mlp", True, "h.3.mlp:in"),
        ("model.layers.11", False, "model.layers.11:out"),
        ("my run", False, None),
    ],
)
def test_sparsify_folders_are_hooks(
    folder: str, transcode: bool, hook: str | None, tmp_path: Path
) -> None:
    made = layouts.sparsify(tmp_path)
    config = json.loads((made.parent / "cfg.json").read_text()) | {"transcode": transcode}
    (made.parent / "cfg.json").write_text(json.dumps(config))
    file = made.parent.rename(tmp_path / folder) / made.name
    assert read_weights(file).weights.site.hook == hook


def test_a_publisher_who_centred(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "models--jbloom--GPT2-Small-SAEs-Reformatted/snapshots/0a"
    place.mkdir(parents=True)
    assert read_weights(layouts.saelens(place)).weights.site.centred is True
    assert translate("blocks.8.hook_resid_pre", GPT2) == "h.8:in"


def test_short_names_of_models() -> None:
    names = {
        "gpt2-small": "openai-community/gpt2", "gpt2": "openai-community/gpt2",
        "gpt2-xl": "openai-community/gpt2-xl", "gemma-2-2b": "google/gemma-2-2b",
        "pythia-70m-deduped": "EleutherAI/pythia-70m-deduped",
        "mistral-7b": "mistralai/Mistral-7B-v0.1", "qwen3-0.6b": "Qwen/Qwen3-0.6B",
        "meta-llama/Llama-3.1-8B": "meta-llama/Llama-3.1-8B", "mine": "mine",
    }  # fmt: skip
    assert {name: hub_id(name) for name in names} == names


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("[a]", "collect is .* a mapping"),
        ("{hook: a}", "unknown key collect.hook .known: hooks, context, bos"),
        ("{hooks: a}", "collect.hooks is 'a'; a mapping of patterns"),
        ("{hooks: {a: [b]}}", "collect.hooks.a is"),
        ("{hooks: {a: 'blocks.{layer}.hook_z'}}", "a path that has {layer}, too"),
        ("{hooks: {'{layer}{layer}': a}}", "a hook for the SAEs of a path"),
        ("{context: 0}", "a number of tokens"),
        ("{context: 1.5}", "a number of tokens"),
        ("{context: yes}", "a number of tokens"),
        ("{bos: maybe}", "keep, drop, none"),
        ("{bos: [keep]}", "keep, drop, none"),
    ],
)
def test_bad_sections(section: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(f"release: a\nsource: hf://a/b\ncollect: {section}\n")
    with pytest.raises(AuditError, match=says) as caught:
        load_release(file)
    assert caught.value.where == str(file)


def test_a_section_needs_a_source(tmp_path: Path) -> None:
    from saeaudit.policy.config import load_config

    file = tmp_path / "c.yaml"
    file.write_text("collect: {context: 8}\n")
    with pytest.raises(AuditError, match="source is missing"):
        load_config(file)
    assert Release("a", "hf://a/b").reads.site("x") == UNKNOWN
    assert replace(UNKNOWN, hook="h").over(Site(hook="g", bos="keep")) == Site(hook="h", bos="keep")
