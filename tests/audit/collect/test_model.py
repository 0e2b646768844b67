"""Models from folders and from a hub on loopback, and what is refused of them."""

from __future__ import annotations

import json
import re
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import RobertaConfig, RobertaModel

from saeaudit import AuditError
from saeaudit.audit.collect.model import Model, load_model
from saeaudit.sources.models import find_model
from tests.support.hub import Hub, Running
from tests.support.models import CONFIGS, write_model, write_tokenizer

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model") / "llama", "llama")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "llama"))


@pytest.fixture
def hub(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = tmp_path / "served"
    shutil.copytree(written, served / "meta/tiny")
    for name in ("pytorch_model.bin", "modeling_tiny.py", "README.md", "onnx/model.safetensors"):
        (served / "meta/tiny" / name).parent.mkdir(exist_ok=True)
        (served / "meta/tiny" / name).write_text("not needed")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with Running(served) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


def load(model: Path | str) -> Model:
    return load_model(find_model(str(model)), device="cpu")


def edit(file: Path, **values: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_what_is_known_of_a_model(folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = load(folder)
    assert (model.kind, model.dtype, model.attention, model.device, model.longest) == (
        "llama", "float32", "sdpa", "cpu", 64,
    )  # fmt: skip
    assert model.files[:2] == (str(folder), folder) and not model.decoder.training
    assert re.fullmatch("sha256:[0-9a-f]{64}", model.files.revision)
    (folder / "notes.md").write_text("not of the model")
    assert find_model(str(folder)) == model.files
    assert model.tokenizer.bos_token_id == 1 and model.tokenizer("5 7")["input_ids"] == [5, 7]
    half = load_model(find_model(str(folder)), dtype="bfloat16", device="cpu")
    assert half.dtype == "bfloat16" and next(half.decoder.parameters()).dtype == torch.bfloat16
    assert capfd.readouterr() == ("", "")


def test_positions_behind_that_of_padding_are_counted(tmp_path: Path) -> None:
    sizes = CONFIGS["bert"] | {"max_position_embeddings": 66, "pad_token_id": 1}
    RobertaModel(RobertaConfig(**sizes)).save_pretrained(tmp_path)
    write_tokenizer(tmp_path)
    model = load(tmp_path)
    assert model.longest == 64
    model.decoder(input_ids=torch.full((1, 64), 3))
    with pytest.raises((IndexError, RuntimeError)):
        model.decoder(input_ids=torch.full((1, 65), 3))


def test_capped_scores_are_computed_plainly(model_of: Callable[[str], Model]) -> None:
    assert model_of("gemma2").attention == "eager"


def test_a_model_with_a_head_is_read_without_it(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    whole = {f"model.{name}": tensor for name, tensor in tensors.items()}
    save_file(
        whole | {"lm_head.weight": torch.ones(50, 24)}, folder / WEIGHTS, {"format": "pt"}
    )  # fmt: skip
    edit(folder / "config.json", architectures=["LlamaForCausalLM"])
    decoder = load(folder).decoder
    assert not any("head" in name for name, _ in decoder.named_modules())
    for name, parameter in decoder.named_parameters():
        assert torch.equal(parameter, tensors[name])


def test_of_an_image_model_the_texts_are_read(tmp_path: Path) -> None:
    """Gemma 3 above 1b: paths are the same as in the models for text alone."""
    import transformers

    from saeaudit.audit.collect.model import quiet
    from saeaudit.audit.collect.places import find_place
    from tests.support.models import CONFIGS, write_tokenizer

    vision = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
              "num_attention_heads": 1, "image_size": 8, "patch_size": 4}  # fmt: skip
    with quiet(transformers):
        config = transformers.Gemma3Config(
            text_config=CONFIGS["gemma3_text"] | {"vocab_size": 60}, vision_config=vision,
            mm_tokens_per_image=4, image_token_index=51,
        )  # fmt: skip
        transformers.AutoModel.from_config(config).save_pretrained(tmp_path)
        write_tokenizer(tmp_path)
    model = load(tmp_path)
    assert model.kind == "gemma3_text"
    for hook in ("model.layers.1.output", "model.language_model.layers.1.output"):
        assert str(find_place(model.decoder, hook)) == "layers.1:out"


def test_a_repository_is_fetched_and_no_more_than_needed(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = find_model("meta/tiny")
    assert files.revision == hub.commit and load_model(files, device="cpu").kind == "llama"
    asked = {line.rpartition("/")[2] for line in hub.requests if "/resolve/" in line}
    assert asked == {"config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"}

    def refuse(*_: object) -> None:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    again = find_model("hf://meta/tiny", offline=True)
    assert again.folder == files.folder and load_model(again, device="cpu").kind == "llama"


@pytest.mark.parametrize(
    ("name", "faults", "says"),
    [
        ("meta/tiny", {"meta/tiny": ["always", 403]}, "access is gated .*HF_TOKEN"),
        ("meta/none", {}, "no such repository, or it is private"),
        ("hf://meta/tiny@v9", {}, "no such revision"),
        ("tiny", {}, "no such folder .a folder, or owner/name on the hub"),
        ("./meta/tiny", {}, "no such folder"),
        ("a/" + "b" * 5000, {}, "cannot be read: File name too long"),
        ("meta/ti\0ny", {}, "not a repository name"),
        ("", {}, "no model: there is no config.json"),
        ("hf://meta/tiny/onnx", {}, "no such folder"),
    ],
)
def test_repositories_that_cannot_be_had(
    name: str, faults: dict[str, list[Any]], says: str, hub: Hub
) -> None:
    hub.faults = faults
    with pytest.raises(AuditError, match=says) as caught:
        find_model(name)
    assert "\n" not in caught.value.line()


def test_no_network(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr("time.sleep", lambda _: None)
    host = f"127.0.0.1:{port}"
    with pytest.raises(AuditError, match=f"{host} cannot be reached"):
        find_model("meta/tiny")
    with pytest.raises(AuditError, match="revision main is not in the cache"):
        find_model("meta/tiny", offline=True)


def test_weights_in_parts(hub: Hub) -> None:
    served = hub.root / "meta/tiny"
    tensors = load_file(served / WEIGHTS)
    (served / WEIGHTS).unlink()
    parts = {name: f"model-{i % 2}.safetensors" for i, name in enumerate(sorted(tensors))}
    for part in set(parts.values()):
        save_file({n: t for n, t in tensors.items() if parts[n] == part}, served / part,
                  {"format": "pt"})  # fmt: skip
    (served / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": parts}))
    decoder = load("meta/tiny").decoder
    assert all(torch.equal(p, tensors[name]) for name, p in decoder.named_parameters())
    (served / "model-1.safetensors").unlink()
    with pytest.raises(AuditError, match=r"model-1.safetensors is missing"):
        find_model("meta/tiny")
    for bad in ({"a": "../../x.safetensors"}, {"a": 3}, {"a": "x.bin"}, {}, []):
        (served / INDEX).write_text(json.dumps({"weight_map": bad}))
        with pytest.raises(AuditError, match="no index of files of weights"):
            find_model(str(served))


def _lacks(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    del tensors["layers.1.mlp.up_proj.weight"]
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def _other_shape(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    tensors["norm.weight"] = torch.ones(23)
    save_file(tensors, folder / WEIGHTS, {"format": "pt"})


def _no_tokenizer(folder: Path) -> None:
    for path in folder.glob("tokenizer*"):
        path.unlink()


def _pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


def _own_code(folder: Path) -> None:
    (folder / "configuration_own.py").write_text("raise SystemExit('it ran')\n")
    edit(folder / "config.json", model_type="own", auto_map={"AutoConfig": "configuration_own.C"})


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no config": (lambda f: (f / "config.json").unlink(), "no model: there is no config.json"),
    "pickled": (_pickled, "no weights in safetensors"),
    "own code": (_own_code, "its own code would have to run, which is never done"),
    "unknown": (lambda f: edit(f / "config.json", model_type="zzz"), "cannot load it: .*`zzz`"),
    "a number": (lambda f: edit(f / "config.json", hidden_size="x"), "cannot load it"),
    "no json": (lambda f: (f / "config.json").write_text("{"), "cannot load it"),
    "lacks": (_lacks, "its weights lack layers.1.mlp.up_proj.weight: is it the whole model"),
    "shape": (_other_shape, "it: weights are not of the shapes that its config.json says"),
    "cut": (lambda f: (f / WEIGHTS).write_bytes(b"1234"), "cannot load it"),
    "adapter": (lambda f: (f / "adapter_config.json").write_text("{}"), "an adapter lies beside"),
    "encoder": (lambda f: edit(f / "config.json", model_type="t5"), "an encoder and a decoder"),
    "no tokens": (_no_tokenizer, "no tokeniser lies beside the model"),
    "tokens": (lambda f: (f / "tokenizer.json").write_text("[]"), "cannot load it"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_spoilt_models_are_one_line(
    name: str, folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil, says = SPOILT[name]
    spoil(folder)
    with pytest.raises(AuditError, match=says) as caught:
        load(folder)
    assert str(folder) in caught.value.line() and len(caught.value.line()) < 500
    assert capfd.readouterr() == ("", "")


def test_other_refusals(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AuditError, match=r"'int8' is no dtype .auto, float32"):
        load_model(find_model(str(folder)), dtype="int8")  # type: ignore[arg-type]
    with pytest.raises(AuditError, match=r"no model: there is no config.json"):
        find_model(str(folder / "config.json"))
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(AuditError, match=r"needs transformers .*saeaudit\[collect\]"):
        load(folder)
