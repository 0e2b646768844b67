"""Activations from files, folders and globs: what is read, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saeaudit.errors import AuditError
from saeaudit.sources.activations import read_activations
from saeaudit.sources.collected.reader import CollectedTexts
from saeaudit.sources.collected.writer import Document, Writer
from saeaudit.sources.paths import activation_files, collected_folders
from tests.support.collecting import MANIFEST, WIDTH, collect, documents, text_of


def rows(count: int, seed: int = 0, width: int = WIDTH) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def save(path: Path, x: torch.Tensor) -> Path:
    """Write a tensor as the end of the file's name says; every .npz is compressed."""
    if path.suffix == ".npy":
        np.save(path, x.numpy())
    elif path.suffix == ".npz":
        np.savez_compressed(path, activations=x.numpy())
    elif path.suffix == ".pt":
        torch.save(x, path)
    else:
        save_file({"activations": x}, path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 14 shards; tests copy what they damage."""
    place = tmp_path_factory.mktemp("collected") / "acts"
    collect(place)
    return place


# --- what is read --------------------------------------------------------------------------------


def test_a_collected_folder(folder: Path) -> None:
    activations, tokens, of = read_activations([folder], WIDTH)
    kept = [(d, position) for d in documents() for position in d.positions.tolist()]
    whole = torch.cat([d.activations for d in documents()]).half()
    assert activations.shape == (len(kept), WIDTH) and activations.dtype == torch.float16
    order = torch.randperm(len(kept))[:200].repeat(2)
    assert torch.equal(activations[order], whole[order])
    assert torch.equal(activations[40:330:7], whole[40:330:7])
    assert of is not None and of.tolist() == [d.number for d, _ in kept]
    assert isinstance(tokens, CollectedTexts) and len(tokens) == len(kept)
    for row in (0, 49, 50, 51, 333, len(kept) - 1):
        document, position = kept[row]
        texts = [text_of(token) for token in document.ids.tolist()]
        assert tokens[row] == texts[position]
        before = "".join(texts[max(position - 8, 0) : position])
        assert tokens.around(row) == (before, "".join(texts[position + 1 : position + 5]))
    assert tokens[48:52] == [tokens[row] for row in (48, 49, 50, 51)]


def test_words_in_pieces_stand_apart_around_a_token(tmp_path: Path) -> None:
    texts = ["[CLS]", "put", "##out", "##s", "set", "."]
    x = torch.ones(len(texts), WIDTH)
    with Writer(tmp_path / "acts", MANIFEST) as writer:
        writer.append(Document(0, torch.arange(len(texts)), torch.arange(len(texts)), x, {}))
        writer.finish(texts.__getitem__)
    tokens = read_activations([tmp_path / "acts"], WIDTH).tokens
    assert isinstance(tokens, CollectedTexts)
    around = [tokens.around(row) for row in range(len(texts))]
    assert [f"{a}<{text}>{b}" for (a, b), text in zip(around, tokens, strict=True)] == [
        "<[CLS]> putouts set", "[CLS] <put>outs set .", "[CLS] put<##out>s set .",
        "[CLS] putout<##s> set .", "[CLS] putouts <set> .", "[CLS] putouts set <.>",
    ]  # fmt: skip


def test_documents_of_two_collected_folders_are_told_apart(folder: Path) -> None:
    activations, tokens, of = read_activations([folder, folder], WIDTH)
    half = len(activations) // 2
    assert torch.equal(activations[:half], activations[half:])
    assert of is not None and not set(of[:half].tolist()) & set(of[half:].tolist())
    assert tokens is not None and tokens[half + 3] == tokens[3]


def test_files_of_any_kind_one_behind_the_other(tmp_path: Path) -> None:
    names = ["shard_10.pt", "shard_1.npy", "shard_2.npz", "shard_3.safetensors", "shard_4.npy"]
    order = ["shard_1.npy", "shard_2.npz", "shard_3.safetensors", "shard_4.npy", "shard_10.pt"]
    parts = {name: rows(5 + n, n) for n, name in enumerate(names)}
    for name, part in parts.items():
        save(tmp_path / name, part.T.contiguous().T if name == "shard_4.npy" else part)
    (tmp_path / "notes.txt").write_text("not activations")
    whole = torch.cat([parts[name] for name in order])
    drawn = torch.randint(len(whole), (100,))
    for paths in (
        [tmp_path],
        [str(tmp_path / "shard_*")],
        [tmp_path / name for name in order],
        [tmp_path / "shard_1.npy", str(tmp_path / "shard_[234].*"), tmp_path / "shard_10.pt"],
    ):
        activations, tokens, of = read_activations(paths, WIDTH)
        assert tokens is None and of is None
        assert torch.equal(activations[drawn], whole[drawn])
        assert torch.equal(activations[:], whole)
        assert activations[drawn[:0]].shape == (0, WIDTH)
    assert {path.name for path in activation_files([tmp_path])} == set(names)
    assert collected_folders([tmp_path]) == []


def test_documents_of_three_axes_and_of_big_endian_files(tmp_path: Path) -> None:
    texts = rows(12, 1).view(3, 4, WIDTH)
    save(tmp_path / "a.npy", texts)
    np.save(tmp_path / "b.npy", rows(8, 2).view(2, 4, WIDTH).numpy().astype(">f4"))
    activations, _, of = read_activations([tmp_path], WIDTH)
    assert of is not None and of.tolist() == [n for n in range(5) for _ in range(4)]
    assert torch.equal(activations[:], torch.cat([texts.view(12, WIDTH), rows(8, 2)]))


def test_numbers_of_documents_hold_across_the_files_that_say_them(tmp_path: Path) -> None:
    for name, numbers in (("a", [0, 0, 5]), ("b", [5, 6, 6])):
        save_file(
            {"activations": rows(3).bfloat16(), "document": torch.tensor(numbers)},
            tmp_path / f"{name}.safetensors",
        )
    activations, _, of = read_activations([tmp_path], WIDTH)
    assert of is not None and of.tolist() == [0, 0, 5, 5, 6, 6]
    assert activations.dtype == torch.bfloat16


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="Linux tells what is mapped")
def test_nothing_stays_mapped(folder: Path, tmp_path: Path) -> None:
    """A mapping counts as resident memory as far as it was read, which would be all of it."""
    save(tmp_path / "x.npy", rows(100))
    for path in (folder, tmp_path):
        activations, _, _ = read_activations([path], WIDTH)
        assert activations[torch.arange(90)].shape == (90, WIDTH)
        assert str(path) not in Path("/proc/self/maps").read_text()


# --- what is refused -----------------------------------------------------------------------------


def manifest(change: Callable[[dict], object]) -> Callable[[Path], object]:
    def apply(folder: Path) -> None:
        path = folder / "manifest.json"
        said = json.loads(path.read_text())
        change(said)
        path.write_text(json.dumps(said))

    return apply


def shard(folder: Path, number: int = 3) -> Path:
    return folder / f"activations-{number:05d}.safetensors"


def linked(folder: Path, target: str) -> None:
    shard(folder).unlink()
    shard(folder).symlink_to(target)


def vocabulary(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "vocabulary.json").write_text(text)


LIES = {
    "no JSON": (lambda f: (f / "manifest.json").write_text("{"), "Invalid JSON"),
    "a list": (lambda f: (f / "manifest.json").write_text("[]"), "valid dictionary|object"),
    "endless": (lambda f: (f / "manifest.json").write_text(" " * (2 << 20)), "more than 1,048,576"),
    "deep": (lambda f: (f / "manifest.json").write_text("[" * 99 + "]" * 99), "nested more than"),
    "another version": (manifest(lambda m: m.update(format="saeaudit/activations/9")), "format"),
    "an unknown field": (manifest(lambda m: m.update(sudo=True)), "sudo: Unexpected"),
    "a text for a number": (manifest(lambda m: m.update(width="16")), "width: Input should be"),
    "not complete": (manifest(lambda m: m.update(totals=None)), "is not complete .*--resume"),
    "more rows": (manifest(lambda m: m["totals"].update(rows=10**15)), r"00013.*activations is"),
    "fewer rows": (manifest(lambda m: m["totals"].update(rows=101)), r"00002.*of \[1, 16\]"),
    "no rows": (manifest(lambda m: m["totals"].update(rows=0)), "0 rows"),
    "fewer than none": (manifest(lambda m: m["totals"].update(rows=-1)), "negative"),
    "other shards": (manifest(lambda m: m.update(shard_rows=25)), r"00000.*of \[25, 16\]"),
    "no shards": (manifest(lambda m: m.update(shard_rows=0)), "negative, or a width of 0"),
    "another width": (manifest(lambda m: m.update(width=8)), r"\[50, 8\]"),
    "another dtype": (manifest(lambda m: m.update(dtype="bfloat16")), "float16 of shape"),
    "missing": (lambda f: shard(f).unlink(), "00003.safetensors: a file of this folder is missing"),
    "cut": (lambda f: os.truncate(shard(f), 900), "00003.safetensors.*: truncated"),
    "empty": (lambda f: shard(f).write_bytes(b""), "00003.safetensors: the file is empty"),
    "a folder": (lambda f: (shard(f).unlink(), shard(f).mkdir()), "a folder, not a file"),
    "a FIFO": (lambda f: (shard(f).unlink(), os.mkfifo(shard(f))), "a FIFO, not a file"),
    "a device": (lambda f: linked(f, "/dev/zero"), "a device, not a file"),
    "a link to itself": (lambda f: linked(f, shard(f).name), "00003.safetensors: "),
    "another tensor": (lambda f: save(shard(f), rows(50).half()), "has no tensor tokens"),
    "a list of texts": (vocabulary("[]"), "no object of token ids"),
    "numbers for texts": (vocabulary('{"1": 2}'), "no object of token ids"),
    "no ids": (vocabulary('{"\u0661": "one"}'), "no token id"),
    "no vocabulary": (lambda f: (f / "vocabulary.json").unlink(), "vocabulary.json: cannot be rea"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
def test_folders_that_lie(folder: Path, tmp_path: Path, lie: str) -> None:
    damage, message = LIES[lie]
    place = tmp_path / "acts"
    shutil.copytree(folder, place)
    damage(place)
    with pytest.raises(AuditError, match=message) as caught:
        read_activations([place], WIDTH)
    assert "\n" not in caught.value.line()


def test_a_text_that_is_not_there(folder: Path, tmp_path: Path) -> None:
    place = tmp_path / "acts"
    shutil.copytree(folder, place)
    vocabulary("{}")(place)
    tokens = read_activations([place], WIDTH).tokens
    assert tokens is not None
    with pytest.raises(AuditError, match=r"vocabulary.json: has no text of token \d+"):
        tokens[0]


def test_paths_that_name_nothing_to_read(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "empty").mkdir()
    narrow, other = save(tmp_path / "narrow.npy", rows(3)[:, :8]), save(tmp_path / "d.npy", rows(3))
    np.save(tmp_path / "flat.npy", np.zeros(3))
    np.save(tmp_path / "none.npy", np.zeros((0, WIDTH)))
    for paths, message in (
        ([tmp_path / "empty"], "no file of activations in this folder .known: .npz, .npy"),
        ([tmp_path / "gone"], "no such file or folder"),
        ([tmp_path / "*.gone"], "matches no file"),
        (["a**b*"], "cannot be looked up|matches no file"),
        ([narrow], "activations of width 8; the SAE reads 16"),
        ([other, narrow], "narrow.npy: activations of width 8"),
        ([tmp_path / "flat.npy"], "holds no matrix of activations"),
        ([tmp_path / "none.npy"], "holds no activations: 0 rows"),
        ([other, folder], "float16 of width 16; .*d.npy has float32"),
    ):
        with pytest.raises(AuditError, match=message):
            read_activations(paths, WIDTH)
    numbers = torch.tensor([0, 1, (1 << 63) - 1])
    save_file({"activations": rows(3), "document": numbers}, tmp_path / "huge.safetensors")
    with pytest.raises(AuditError, match=r"huge.safetensors: has a document 9223372036854775807"):
        read_activations([tmp_path / "huge.safetensors", other], WIDTH)
