"""Decoder-only fetches of every layout that a listing knows, read by the family they came from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from saeaudit.audit.fetch import fetch_all
from saeaudit.audit.open import open_layers
from saeaudit.dictionary import Dictionary
from saeaudit.records import ListingRecord
from saeaudit.sources.cache import DECODER_SUFFIX
from saeaudit.sources.target import resolve
from saeaudit.weights.families import FAMILIES
from saeaudit.weights.tensors import read_tensors
from tests.support.hub import Hub
from tests.support.notes import Notes
from tests.weights.layouts import LAYOUTS, WRITERS

WHOLE = (".pt", ".pth")
"""What can only be read whole."""


def opened(target: str) -> list[Dictionary]:
    (sae,) = resolve(target, offline=True)
    return open_layers(sae)


def described(dictionaries: list[Dictionary]) -> list[tuple[object, ...]]:
    return [
        (d.weights.format, d.weights.maps_elsewhere, d.weights.layers, d.weights.input_scale,
         d.weights.norm_scaled, d.weights.k, d.zero_rows.tolist())
        for d in dictionaries
    ]  # fmt: skip


def test_every_family_is_here(tmp_path: Path) -> None:
    formats = {
        opened(str(write(tmp_path / str(number))))[0].weights.format
        for number, write in enumerate(WRITERS.values())
    }
    assert formats >= {family.name for family in FAMILIES}


@pytest.mark.parametrize("name", WRITERS)
def test_a_copy_is_read_as_its_family_reads_the_whole(
    name: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = WRITERS[name](hub.root / "an" / "owner")
    whole = opened(str(file))
    observer = Notes()
    saes = resolve("hf://an/owner", note=observer.note)
    (record,) = fetch_all(saes, decoder_only=True, observer=observer)
    assert isinstance(record, ListingRecord), record
    copies = opened("hf://an/owner")
    assert described(copies) == described(whole)
    for copy, other in zip(copies, whole, strict=True):
        assert np.array_equal(copy.weights.decoder, other.weights.decoder)
        kept = [note for note in other.weights.notes if not note.startswith("assumed")]
        assert [note for note in copy.weights.notes if not note.startswith("assumed")] == kept
        shown = [read.path for read in copy.source.files]
        assert not any(Path(path).is_absolute() for path in shown)
    assert not [path for path in hub.sent if "W_enc_" in path]
    if file.suffix in WHOLE:
        assert any("fetched the whole file, because a " in line for line in observer.lines)
        return
    assert record.files[0].endswith(DECODER_SUFFIX)
    tensors = read_tensors(Path(record.files[0])).tensors
    assert len([stored for stored in tensors.values() if len(stored.shape) > 1]) == 1
    copy = Path(record.files[0])
    monkeypatch.chdir(copy.parent)
    for path in (str(copy), copy.name, "."):  # its own path does as well, and its folder
        assert described(opened(path)) == described(whole)


def test_the_configuration_of_a_copy_is_fetched_where_it_is_missing(hub: Hub) -> None:
    file = LAYOUTS["saelens"][0](hub.root / "an" / "owner")
    saes = resolve("hf://an/owner")
    list(fetch_all(saes, decoder_only=True))
    (remote,) = [sae.remote for sae in saes if sae.remote]
    (configuration,) = remote.listed.configuration
    assert Path(configuration).name == "cfg.json"
    remote.repo.local(configuration).unlink()
    (dictionary,) = open_layers(resolve("hf://an/owner")[0])
    assert dictionary.weights.format == "saelens"
    assert remote.repo.local(configuration).is_file()
    assert not remote.repo.local(file.relative_to(hub.root / "an/owner").as_posix()).exists()
