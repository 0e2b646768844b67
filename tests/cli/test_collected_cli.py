"""`saeaudit mediators` and `score` on a folder that was collected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from saeaudit.records import parse
from tests.conftest import Cli
from tests.support.collecting import MANIFEST, WIDTH, collect, documents, text_of
from tests.support.files import sae, save


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """An SAE, and a folder of activations of it."""
    collect(tmp_path / "acts")
    return sae(tmp_path, np.random.default_rng(0).normal(size=(24, WIDTH))), tmp_path / "acts"


def records(cli: Cli, *arguments: object) -> list[dict]:
    done = cli(*arguments, "-q")
    assert done.returncode == 0, done.stderr
    for line in done.stdout.decode().splitlines():
        parse(line)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_records_say_what_was_collected_and_where_each_token_stands(
    cli: Cli, files: tuple[Path, Path]
) -> None:
    file, folder = files
    kept = [(d, position) for d in documents() for position in d.positions.tolist()]
    listed = records(cli, "mediators", file, "--activations", folder, "--max-tokens", 9)
    for run in (record for record in listed if record["type"] == "run"):
        (said,) = run["activations"]
        assert said["folder"] == str(folder) and said["model"] == MANIFEST.origin.model
        assert said["rows"] == len(kept) and said["documents"] == 60 and said["dropped"]["bos"]
    tokens = [r for r in listed if r["type"] in ("token", "mediator")]
    assert len({r["token"] for r in tokens}) == 9 < len(tokens)
    for record in tokens:
        document, position = kept[record["token"]]
        texts = [text_of(token) for token in document.ids.tolist()]
        assert record["text"] == texts[position]
        assert "".join(texts[:position]).endswith(record["context"]["before"])
        assert "".join(texts[position + 1 :]).startswith(record["context"]["after"])
    summary = next(record for record in listed if record["type"] == "summary")
    assert summary["drawn_by"] == "documents"
    shown = cli("mediators", file, "--activations", folder, "--max-tokens", 9, "--details",
                "--format", "table")  # fmt: skip
    stands = {f"{r['context']['before'][-48:]}[{r['text']}]" for r in tokens}
    out = " ".join(shown.stdout.decode().split())
    assert any(" ".join(place.split()) in out for place in stands)


def test_a_folder_scores_as_the_same_activations_in_a_file(
    cli: Cli, files: tuple[Path, Path]
) -> None:
    file, folder = files
    shards = [load_file(path) for path in sorted(folder.glob("*.safetensors"))]
    names = ("activations", "document")
    whole = {name: torch.cat([shard[name] for shard in shards]) for name in names}
    save_file(whole, folder.parent / "whole.safetensors")
    alike = []
    for path in (folder, folder / "*.safetensors", folder.parent / "whole.safetensors"):
        listed = records(cli, "score", file, "--activations", path, "--max-tokens", 2)
        assert (listed[0]["activations"] is None) == (path != folder)
        for record in listed:
            record.pop("text", None), record.pop("context", None)
        alike.append([record for record in listed if record["type"] != "run"])
    assert alike[0] == alike[1] == alike[2]


def test_folders_that_cannot_be_read_are_one_line(cli: Cli, files: tuple[Path, Path]) -> None:
    file, folder = files
    damaged = folder / "activations-00002.safetensors"
    nan = load_file(damaged)
    nan["activations"][7] = torch.nan
    other, manifest = folder / "activations-00013.safetensors", folder / "manifest.json"
    for change, message in (
        (lambda: save_file(nan, damaged), f"{file}: activation 107 is not finite (NaN or infi"),
        (damaged.unlink, f"{damaged}: a file of this folder is missing (collect it again)"),
        (lambda: shutil.copy(other, damaged), f"{damaged}: activations is float16 of shape [27,"),
        (lambda: manifest.write_text("{"), f"{manifest}: "),
    ):
        change()
        done = cli("score", file, "--activations", folder, "--explanations", "none")
        (line,) = done.stderr.decode().splitlines()
        assert done.returncode == 2 and message in line


def test_output_never_replaces_an_activation(cli: Cli, files: tuple[Path, Path]) -> None:
    file, folder = files
    shard = folder / "activations-00001.safetensors"
    before = shard.read_bytes()
    x = save(folder.parent, "x.npy", np.ones((20, WIDTH), np.float32))
    for path, output in ((folder, shard), (x, x), (folder.parent / "*.npy", x)):
        done = cli("score", file, "--activations", path, "-o", output)
        assert done.returncode == 2 and b"Traceback" not in done.stderr
        assert str(output) in done.stderr.decode()
    assert shard.read_bytes() == before
