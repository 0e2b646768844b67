"""Every SAE of SAELens's registry: its name means its file, and its labels are its own.

Its name keeps it out of the suite: only ``make peer-test`` has the registry. No network: the
repositories are made of the files that SAELens's loaders ask for, with others beside them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest

from saeaudit.errors import AuditError
from saeaudit.sources import grammar, target
from saeaudit.sources.hub import Repo
from saeaudit.sources.hubapi import RemoteFile
from saeaudit.sources.known_sources import known_sources
from saeaudit.sources.neuronpedia import source_of
from saeaudit.sources.registry import registry_listing, registry_release
from saeaudit.sources.sae import Sae
from tests.peers.registry import Row, by_rule, read_registry, table_of

LAYOUTS = {
    "None": ("{}/sae_weights.safetensors", "{}/cfg.json", "{}/sparsity.safetensors"),
    "connor_rob_hook_z": ("{}", "{}_cfg.json"),
    "deepseek_r1": ("{}", "config.json"),
    "dictionary_learning_1": ("{}/ae.pt", "{}/config.json", "{}/checkpoints/ae_100.pt"),
    "gemma_2": ("{}/params.npz",),
    "gemma_2_transcoder": ("{}/params.npz",),
    "gemma_3": ("{}/params.safetensors", "{}/config.json"),
    "goodfire": ("{}", "README.md"),
    "llama_scope": ("{}/checkpoints/final.safetensors", "{}/hyperparams.json"),
    "llama_scope_r1_distill": ("{}/sae_weights.safetensors", "{}/config.json"),
    "mntss_clt_layer_transcoder": ("W_dec_{}.safetensors", "W_enc_{}.safetensors"),
    "mwhanna_transcoder": ("{}", "config.yaml"),
    "qwen_scope": ("{}", "config.json"),
    "temporal": ("{}/latest_ckpt.safetensors", "{}/conf.yaml"),
}
"""What a repository holds of an SAE, by the name of SAELens's loader; the weights first."""


@dataclass
class Listing(Repo):
    """A repository of which only the names of its files are known."""

    names: list[str] = field(default_factory=list)

    def files(self, prefix: str = "") -> dict[str, RemoteFile]:
        folder = prefix.rpartition("/")[0] if prefix in self.names else prefix
        below = f"{folder}/" if folder else ""
        return {
            name: RemoteFile(name, 1, None, None) for name in self.names if name.startswith(below)
        }


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """All SAEs of the registry; their repositories are opened without a network."""
    libraries = Path(os.environ["SAEAUDIT_PEERS"]).parent / "libraries"
    (library,) = libraries.glob("sae-lens==6.*")
    monkeypatch.syspath_prepend(str(library))
    found = list(read_registry(library / "sae_lens/pretrained_saes.yaml"))
    names: dict[str, set[str]] = defaultdict(set)
    for row in found:
        names[row.repo].update(form.format(row.path) for form in LAYOUTS[row.conversion])

    def opened(repo: str, *_: object, **__: object) -> Listing:
        return Listing(repo, "0" * 40, True, names=sorted(names[repo]))

    monkeypatch.setattr(target, "open_repo", cache(opened))
    monkeypatch.setattr(grammar, "registry_release", cache(registry_release))
    return found


def resolved(rows: list[Row]) -> Iterator[tuple[Row, Sae | None]]:
    for row in rows:
        try:
            found = target.resolve(f"{row.release}/{row.id}", offline=True)
        except AuditError as error:
            print(error)
            found = []
        yield row, found[0] if len(found) == 1 else None


def test_every_name_means_its_file_and_has_its_labels(rows: list[Row]) -> None:
    registered = defaultdict(set)
    for row in rows:
        registered[row.repo, row.file] |= {row.source} - {None}
    right = foreign = 0
    for row, local in resolved(rows):
        weights = LAYOUTS[row.conversion][0].format(row.path)
        if local is None or local.remote is None or local.remote.listed.file != weights:
            print(f"not its file: {row.release}/{row.id}: {local and local.file}")
            continue
        right += 1
        allowed = registered[row.repo, row.file] or {by_rule(row.repo, row.path)}
        try:
            source: str | None = source_of(local)
        except AuditError:
            source = None
        if source not in allowed:
            print(f"not its labels: {row.release}/{row.id}: {source}, not {allowed}")
            foreign += 1
    print(f"{right:,} of {len(rows):,} names ({right / len(rows):.2%}); {foreign} foreign labels")
    assert right >= 0.999 * len(rows)
    assert not foreign


def test_the_table_is_the_registrys(rows: list[Row]) -> None:
    assert known_sources() == table_of(iter(rows))


def test_a_glance_sees_what_the_parser_sees(rows: list[Row]) -> None:
    whole = defaultdict(list)
    for row in rows:
        whole[row.release, f"hf://{row.repo}"].append(row.id)
    seen = {(release.name, release.source): list(release.saes) for release in registry_listing()}
    assert seen == whole
