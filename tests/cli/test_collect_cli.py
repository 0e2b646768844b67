"""The command as users run it, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from saeaudit.cli.app import app
from tests.support.hub import Running
from tests.support.models import write_model

WIDTH = 24


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model, an SAE of its second layer, and texts for a thousand activations."""
    folder = tmp_path_factory.mktemp("inputs")
    write_model(folder / "model", "llama")
    rows = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    (folder / "sae").mkdir()
    save_file(
        {"W_dec": rows, "W_enc": rows.T.contiguous(), "b_enc": torch.full((len(rows),), -0.2),
         "b_dec": torch.zeros(WIDTH)},
        folder / "sae/sae_weights.safetensors",
    )  # fmt: skip
    configuration = {
        "architecture": "standard", "d_in": WIDTH, "d_sae": len(rows), "dtype": "float32",
        "apply_b_dec_to_input": False,
        "metadata": {"model_name": str(folder / "model"), "hook_name": "blocks.1.hook_resid_post",
                     "context_size": 20, "prepend_bos": True},
    }  # fmt: skip
    (folder / "sae/cfg.json").write_text(json.dumps(configuration))
    words = torch.randint(3, 50, (200, 12), generator=torch.Generator().manual_seed(0)).tolist()
    texts = [json.dumps({"words": " ".join(map(str, row))}) for row in words]
    (folder / "texts.jsonl").write_text("\n".join(texts))
    return folder


def arguments(inputs: Path) -> list[object]:
    return [
        "collect", inputs / "sae", "--texts", inputs / "texts.jsonl", "--field", "words",
        "--tokens", "1.2k", "--device", "cpu",
    ]  # fmt: skip


def run(*typed: object) -> int:
    """A command's exit status, run in this process: a new one takes seconds."""
    with pytest.raises(SystemExit) as ended:
        app(list(map(str, typed)))
    return int(ended.value.code or 0)


def test_from_texts_to_a_score(
    inputs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    acts, other = tmp_path / "acts", tmp_path / "other"
    assert run(*arguments(inputs), "-o", acts) == 0
    out, error = capsys.readouterr()
    assert out == "" and error.startswith(
        f"{acts}: 1,200 activations of width 24 in float32, of 100 documents, from layers.1:out of "
        f"{inputs / 'model'}; the SAE leaves "
    )
    manifest = json.loads((acts / "manifest.json").read_text())
    other.mkdir()
    (other / "manifest.json").write_text(json.dumps(manifest | {"totals": None}))
    assert run(*arguments(inputs), "-o", other, "--resume", "-q") == 0
    for path in acts.iterdir():
        assert (other / path.name).read_bytes() == path.read_bytes()
    assert run("score", inputs / "sae", "--activations", acts, "--max-tokens", 5) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [record["type"] for record in records[-3:]] == ["summary", "run", "verdict"]


Run = Callable[..., str]


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """The one line that a command ends in."""

    def refused(*typed: object) -> str:
        assert run(*typed) == 2
        out, error = capsys.readouterr()
        (line,) = error.splitlines()
        assert out == "" and not (tmp_path / "acts").exists()
        return line

    return refused


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--tokens", "many"], "--tokens: 'many' is no number of tokens"),
        (["--texts", "none.txt"], "none.txt: no such file"),
        (["--texts", "none.csv"], "none.csv: no table of texts"),
        (["--texts", "hf://datasets/o/gated"], "hf://datasets/o/gated: access is gated"),
        (["--texts", "hf://datasets/o/none"], "hf://datasets/o/none: no such repository"),
        (["--context", "1"], "--context: 1 is not 2 or more"),
        (["--device", "tpu"], "--device: 'tpu' is no device"),
        (["--sae", "x*"], "no SAE here matches --sae x*"),
        (["-o", "full"], "full: holds other files"),
        (["-o", "-"], "-o: the folder to make is to be named"),
        (["--model", "o/gated"], "hf://o/gated: access is gated"),
        (["--model", "o/gated", "--offline"], "hf://o/gated: revision main is not in the cache"),
    ],
)
def test_what_cannot_be_is_a_line(
    inputs: Path, tmp_path: Path, refusal: Run, monkeypatch: pytest.MonkeyPatch,
    more: list[str], words: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine").touch()
    for kind in ("", "datasets/"):
        (tmp_path / f"served/{kind}o/gated").mkdir(parents=True)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    with Running(tmp_path / "served") as hub:
        hub.faults["o/gated"] = ["always", 403]
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        assert words in refusal(*arguments(inputs), "-o", "acts", *more)


def test_without_a_network(
    inputs: Path, tmp_path: Path, refusal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_HUB_DOWNLOAD_TIMEOUT", "0.2")
    line = refusal(*arguments(inputs), "-o", tmp_path / "acts", "--model", "o/model")
    assert "127.0.0.1:9 cannot be reached" in line


@pytest.mark.parametrize(
    ("given", "missing"), [(("-o", "acts"), "--texts"), (("--texts", "t.txt"), "-o")]
)
def test_what_is_needed(given: tuple[str, str], missing: str, refusal: Run) -> None:
    assert f"saeaudit: {missing}: " in refusal("collect", "sample", *given)
