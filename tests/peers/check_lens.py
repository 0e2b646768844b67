"""Hooks of TransformerLens: what its own models have at every name that is translated.

Its name keeps it out of the suite: only ``make peer-test`` has the library.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from transformer_lens.model_bridge import TransformerBridge

from saeaudit.audit.collect.model import load_model, quiet
from saeaudit.audit.collect.names import family_of_model
from saeaudit.audit.collect.places import find_place
from saeaudit.audit.collect.tap import activations_at
from saeaudit.sources.models import find_model
from tests.support.models import CONFIGS, VOCABULARY, write_model

TEXT = torch.randint(3, VOCABULARY, (1, 11), generator=torch.Generator().manual_seed(1))
HEADS = {"bert": "BertForMaskedLM", "gpt2": "GPT2LMHeadModel", "gemma3_text": "Gemma3ForCausalLM"}
"""Classes of models with a head, which TransformerLens tells an architecture by."""


def bridged(folder: Path, name: str) -> TransformerBridge:
    """The model of a folder, with a head around it, as TransformerLens has it."""
    config_file = folder / "config.json"
    config = json.loads(config_file.read_text())
    head = HEADS.get(name) or config["architectures"][0].replace("Model", "ForCausalLM")
    config_file.write_text(json.dumps(config | {"architectures": [head]}))
    with quiet(transformers):
        model = getattr(transformers, head)(transformers.AutoConfig.from_pretrained(folder)).eval()
        base = transformers.AutoModel.from_pretrained(folder)
        model.base_model.load_state_dict(base.state_dict(), strict=False)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        return TransformerBridge.boot_transformers(
            str(folder), hf_model=model, tokenizer=tokenizer
        )  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CONFIGS)
def test_hooks_are_those_of_transformer_lens(name: str, tmp_path: Path) -> None:
    model = load_model(find_model(str(write_model(tmp_path, name))), device="cpu")
    family = family_of_model(model.decoder.config)
    assert family is not None
    with torch.no_grad():
        _, cache = bridged(tmp_path, name.partition(" ")[0]).run_with_cache(TEXT)
    for hook in (*family.outside, *(f"blocks.1.{inside}" for inside in family.inside)):
        place = find_place(model.decoder, hook)
        x = activations_at(model.decoder, place, TEXT, torch.ones_like(TEXT))[0]
        theirs = cache[hook].reshape(x.shape)
        assert (x - theirs).norm() <= 1e-5 * theirs.norm(), hook
