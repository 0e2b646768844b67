"""Tiny random models of the families whose SAEs are read, in folders as the hub has them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoConfig, AutoModel, PreTrainedTokenizerFast

from saeaudit.audit.collect.model import quiet

VOCABULARY = 50
COMMON = {
    "vocab_size": VOCABULARY, "hidden_size": 24, "intermediate_size": 40,
    "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 64,
    "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
}  # fmt: skip
GROUPED = COMMON | {"num_key_value_heads": 2, "head_dim": 8}
SLIDING = ["sliding_attention", "full_attention", "sliding_attention"]
CONFIGS: dict[str, dict[str, Any]] = {
    "gemma": GROUPED,
    "gemma2": GROUPED
    | {"layer_types": SLIDING, "sliding_window": 4, "query_pre_attn_scalar": 12,
       "attn_logit_softcapping": 2.0},
    "gemma3_text": GROUPED
    | {"layer_types": SLIDING, "sliding_window": 4, "query_pre_attn_scalar": 12,
       "rope_parameters": {
           "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
           "full_attention": {"rope_type": "default", "rope_theta": 1e6}}},
    "llama": GROUPED,
    "mistral": GROUPED | {"sliding_window": 4},
    "qwen3": GROUPED,
    "gpt2": {"vocab_size": VOCABULARY, "n_embd": 24, "n_layer": 3, "n_head": 4, "n_positions": 64,
             "bos_token_id": 1, "eos_token_id": 2},
    "gpt_neox": COMMON | {"hidden_size": 64},  # a quarter of a head's 16 is rotated
    "gpt_neox in turn": COMMON | {"hidden_size": 64, "use_parallel_residual": False},
    "bert": COMMON,
}  # fmt: skip


def write_model(folder: Path, name: str) -> Path:
    """Save a model with random weights everywhere, norms and biases included."""
    import transformers

    with quiet(transformers):
        config = AutoConfig.for_model(name.partition(" ")[0], **CONFIGS[name])
        model = AutoModel.from_config(config)
        generator = torch.Generator().manual_seed(len(name))
        for parameter in model.parameters():
            noise = torch.empty_like(parameter).normal_(0, 0.3, generator=generator)
            parameter.data.add_(noise)
        model.save_pretrained(folder)
        write_tokenizer(folder)
    return folder


def write_tokenizer(folder: Path) -> None:
    """Save a tokenizer of the words 3 to 49, with a BOS."""
    words = {"<pad>": 0, "<s>": 1, "</s>": 2} | {str(n): n for n in range(3, VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = partial(PreTrainedTokenizerFast, pad_token="<pad>", bos_token="<s>")
    special(tokenizer_object=tokenizer, eos_token="</s>").save_pretrained(folder)
