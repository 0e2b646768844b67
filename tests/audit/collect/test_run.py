"""Collecting from end to end, of a tiny model."""

from __future__ import annotations

import json
import resource
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from saeaudit import AuditError
from saeaudit.audit.collect import run
from saeaudit.audit.collect.options import CollectOptions, parse_count
from saeaudit.audit.collect.reader import Reader
from saeaudit.audit.collect.run import Collected, collect
from saeaudit.audit.misfit import TRIED
from saeaudit.sources.target import resolve
from saeaudit.sources.texts import open_texts
from tests.support.models import write_model
from tests.support.notes import Notes

PLACE = "layers.1:out"
WIDTH = 24


def texts_of(count: int) -> list[str]:
    """Texts of 1 to 12 words that the tiny models know."""
    generator = torch.Generator().manual_seed(count)
    lengths = torch.randint(1, 13, (count,), generator=generator).tolist()
    words = torch.randint(3, 50, (count, 12), generator=generator).tolist()
    return [" ".join(map(str, row[:length])) for row, length in zip(words, lengths, strict=True)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an SAE that explains all that it is given, and texts."""
    folder = tmp_path_factory.mktemp("collect")
    write_model(folder / "llama", "llama")
    eye = torch.eye(WIDTH)
    decoder = torch.cat([eye, -eye])
    save_file(
        {"W_dec": decoder, "W_enc": decoder.T.contiguous(), "b_enc": torch.zeros(2 * WIDTH),
         "b_dec": torch.zeros(WIDTH)},
        folder / "sae.safetensors",
    )  # fmt: skip
    (folder / "texts.txt").write_text("".join(f"{text}\n" for text in texts_of(60)))
    return folder


OPTIONS = CollectOptions(hook=PLACE, tokens=0, batch=7, device="cpu")


def collected(
    folder: Path, place: Path, options: CollectOptions = OPTIONS, **more: Any
) -> Collected:
    (sae,) = resolve(str(folder / "sae.safetensors"), assumptions="uncentred,relu")
    options = replace(options, model=str(folder / (options.model or "llama")))
    texts = open_texts(str(folder / more.pop("texts", "texts.txt")))
    return collect(sae, texts, place, options, **more)


def columns(place: Path) -> dict[str, Tensor]:
    shards = [load_file(path) for path in sorted(place.glob("*.safetensors"))]
    return {name: torch.cat([shard[name] for shard in shards]) for name in shards[0]}


def bytes_of(place: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(place.iterdir())}


def by_model(folder: Path, text: str) -> Tensor:
    """The residual stream after the second layer, by transformers' own list of hidden states."""
    from transformers import AutoModel

    ids = torch.tensor([[1, *map(int, text.split())]])
    with torch.no_grad():
        model = AutoModel.from_pretrained(folder / "llama")
        return model(ids, output_hidden_states=True).hidden_states[2][0]


def test_activations_are_those_of_each_text_by_itself(folder: Path, tmp_path: Path) -> None:
    done = collected(folder, tmp_path / "acts")
    kept, texts = columns(tmp_path / "acts"), texts_of(60)
    totals = done.manifest.totals
    assert totals and totals.documents == 60 and totals.dropped == {"bos": 60}
    assert totals.rows == sum(len(text.split()) for text in texts) == len(kept["tokens"])
    for number in (0, 13, 59):
        rows = kept["document"] == number
        assert kept["tokens"][rows].tolist() == list(map(int, texts[number].split()))
        assert kept["position"][rows].tolist() == list(range(1, int(rows.sum()) + 1))
        expected = by_model(folder, texts[number])[1:]
        torch.testing.assert_close(kept["activations"][rows], expected, rtol=1e-4, atol=1e-4)
    assert done.fit.fvu is not None and done.fit.fvu < 1e-6
    origin = done.manifest.origin
    assert origin.place == PLACE and origin.computed_in == "float32"
    assert origin.options["context"] == 64 and origin.options["bos"] == "drop"


def test_a_number_of_activations_and_of_each_document(folder: Path, tmp_path: Path) -> None:
    notes = Notes()
    collected(folder, tmp_path / "all")
    every = columns(tmp_path / "all")
    collected(folder, tmp_path / "some", replace(OPTIONS, tokens=101))
    some = columns(tmp_path / "some")
    assert all(some[name].equal(every[name][:101]) for name in every)
    done = collected(
        folder, tmp_path / "few", replace(OPTIONS, tokens=10**6, per_document=2, bos="keep"),
        observer=notes,
    )  # fmt: skip
    few = columns(tmp_path / "few")
    lengths = [len(text.split()) + 1 for text in texts_of(60)]
    assert few["document"].bincount().tolist() == [min(length, 2) for length in lengths]
    assert (few["position"] == 0).any()
    totals = done.manifest.totals
    assert totals and totals.dropped == {"sampled": sum(lengths) - totals.rows}
    (line,) = notes.lines
    assert line.endswith(f"its texts give {totals.rows} of 1,000,000 activations")
    whole = {tuple(row): x for *row, x in zip(every["document"].tolist(),
             every["position"].tolist(), every["activations"], strict=True)}  # fmt: skip
    for document, position, x in zip(
        few["document"].tolist(), few["position"].tolist(), few["activations"], strict=True
    ):
        assert position == 0 or x.equal(whole[document, position])


def test_large_norms_are_dropped_and_counted(folder: Path, tmp_path: Path) -> None:
    collected(folder, tmp_path / "all", replace(OPTIONS, bos="keep"))
    lengths = columns(tmp_path / "all")["activations"].double().norm(dim=1)
    options = replace(OPTIONS, bos="keep", drop_norm_above=1.2)
    done = collected(folder, tmp_path / "cut", options)
    limit = 1.2 * float(lengths[:TRIED].median())
    totals = done.manifest.totals
    assert totals and totals.dropped["norm"] == int((lengths > limit).sum()) > 0
    assert totals.rows == int((lengths <= limit).sum())


class Stopped(Exception):
    pass


@pytest.mark.parametrize("options", [OPTIONS, replace(OPTIONS, tokens=210, per_document=5)])
def test_whoever_goes_on_ends_at_the_same_bytes(
    folder: Path, tmp_path: Path, options: CollectOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "rows_for", lambda width, size: 16)
    collected(folder, tmp_path / "whole", options)
    expected = bytes_of(tmp_path / "whole")
    read = Reader.kept
    for stop in (9, 1, 20):

        def kept(reader: Reader, document: int = 0, stop: int = stop) -> Iterator[Any]:
            for count, row in enumerate(read(reader, document)):
                if count == stop:
                    raise Stopped
                yield row

        with monkeypatch.context() as patched, pytest.raises(Stopped):
            patched.setattr(Reader, "kept", kept)
            collected(folder, tmp_path / "parts", options, resume=True)
    collected(folder, tmp_path / "parts", options, resume=True)
    assert bytes_of(tmp_path / "parts") == expected
    collected(folder, tmp_path / "parts", options, resume=True)  # there is nothing to do
    assert bytes_of(tmp_path / "parts") == expected


def said(folder: Path, place: Path, options: CollectOptions = OPTIONS, **more: Any) -> str:
    with pytest.raises(AuditError) as raised:
        collected(folder, place, options, **more)
    line = raised.value.line()
    assert "\n" not in line
    return line


def test_arguments_that_changed_are_refused(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "acts"
    collected(folder, place, replace(OPTIONS, tokens=50))
    assert "holds collected activations already (--resume goes on" in said(folder, place)
    changed = said(folder, place, replace(OPTIONS, tokens=60), resume=True)
    assert "was begun with tokens 50, not 60" in changed
    (folder / "other.txt").write_text("3 4 5\n" * 30)
    fewer = replace(OPTIONS, tokens=50)
    assert "was begun with texts" in said(folder, place, fewer, resume=True, texts="other.txt")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("mine")
    assert "holds other files" in said(folder, tmp_path / "full")
    assert "is no folder" in said(folder, folder / "texts.txt")


def test_another_model_in_the_same_folder_does_not_go_on(folder: Path, tmp_path: Path) -> None:
    place, model = tmp_path / "acts", folder / "retrained"
    shutil.copytree(folder / "llama", model)
    options = replace(OPTIONS, tokens=50, model="retrained")
    collected(folder, place, options)
    collected(folder, place, options, resume=True)
    weights = load_file(model / "model.safetensors")
    weights["norm.weight"] *= 2
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    assert "was begun with revision sha256:" in said(folder, place, options, resume=True)


def test_no_model_is_looked_for_before_a_text_is_read(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, nowhere = tmp_path / "acts", replace(OPTIONS, model="nowhere")
    (folder / "rows.jsonl").write_text('{"content": "3 4"}\n')
    assert "--field takes one of: content" in said(folder, place, nowhere, texts="rows.jsonl")
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "saeaudit[collect]" in said(folder, place, nowhere)


def test_a_place_that_is_not_the_publishers_is_said(folder: Path, tmp_path: Path) -> None:
    published = tmp_path / "published"
    published.mkdir()
    shutil.copy(folder / "sae.safetensors", published / "sae_weights.safetensors")
    configuration = {"architecture": "standard", "d_in": WIDTH, "d_sae": 2 * WIDTH}
    told = json.dumps(configuration | {"hook_point": "blocks.1.hook_resid_post"})
    (published / "cfg.json").write_text(told)
    (sae,) = resolve(str(published))
    texts, model = open_texts(str(folder / "texts.txt")), str(folder / "llama")
    for hook, lines in (
        ("model.layers.1.output", []),
        ("blocks.1.hook_resid_pre", [f"{published}: its publisher says that it reads "
                                     "blocks.1.hook_resid_post, not layers.1:in"]),
    ):  # fmt: skip
        notes = Notes()
        options = replace(OPTIONS, hook=hook, model=model, tokens=20)
        collect(sae, texts, tmp_path / hook, options, observer=notes)
        assert notes.lines == lines


def test_the_usual_mistakes_are_a_line_each(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "acts"
    (folder / "double.txt").write_text("3 4\n<s> 5 6\n")
    assert "double.txt: row 1: begins twice" in said(folder, place, texts="double.txt")
    (folder / "packed.txt").write_text("3 4 </s> 5 6\n")
    assert "row 0: holds several documents" in said(folder, place, texts="packed.txt")
    (folder / "empty.txt").write_text("\n\n")
    assert "empty.txt: holds no text" in said(folder, place, texts="empty.txt")
    other = texts_of(60)[0] + " stranger"
    (folder / "texts of another.txt").write_text(other)
    tokenizer = json.loads((folder / "llama/tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["stranger"] = 50
    stranger = folder / "stranger"
    shutil.copytree(folder / "llama", stranger)
    (stranger / "tokenizer.json").write_text(json.dumps(tokenizer))
    unknown = said(folder, place, replace(OPTIONS, model="stranger"), texts="texts of another.txt")
    assert "its tokeniser gives a token 50; the model knows 50" in unknown
    long = said(folder, place, replace(OPTIONS, context=65))
    assert "--context 65" in long and "takes at most 64 tokens" in long
    wide = said(folder, place, replace(OPTIONS, hook="layers.0.mlp.down_proj:in"))
    assert "activations of width 40; the SAE reads 24" in wide
    assert "does not say where it reads (--hook does)" in said(
        folder, place, replace(OPTIONS, hook=None)
    )
    assert not place.exists()


def test_a_full_disk_is_one_line_and_can_be_gone_on_with(folder: Path, tmp_path: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        line = said(folder, tmp_path / "acts")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert "acts: cannot be written: File too large" in line
    collected(folder, tmp_path / "acts", resume=True)
    collected(folder, tmp_path / "again")
    assert bytes_of(tmp_path / "acts") == bytes_of(tmp_path / "again")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": -1}, "--tokens: -1 is not 0 or more"),
        ({"context": 1}, "--context: 1 is not 2 or more"),
        ({"per_document": 0}, "--per-document: 0 is not 1 or more"),
        ({"batch": 0}, "--batch: 0 is not 1 or more"),
        ({"drop_norm_above": 0.5}, "--drop-norm-above: 0.5 times the median norm"),
        ({"drop_norm_above": float("nan")}, "--drop-norm-above: nan"),
        ({"model": ""}, "--model: is empty"),
        ({"hook": " "}, "--hook: is empty"),
        ({"bos": "no"}, "--bos: 'no' is none of keep, drop, none"),
        ({"dtype": "int8"}, "--dtype: 'int8' is none of auto, float32"),
    ],
)
def test_options_are_checked(options: dict[str, Any], words: str) -> None:
    with pytest.raises(AuditError) as raised:
        CollectOptions(**options)
    assert raised.value.line().startswith(words)


@pytest.mark.parametrize("text", ["", "-3", "1e5", "100K", "1.5", "k", "\u0663"])
def test_numbers_of_tokens(text: str) -> None:
    with pytest.raises(AuditError, match="is no number of tokens"):
        parse_count(text, "--tokens")
