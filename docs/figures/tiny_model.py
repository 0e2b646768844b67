"""Make a model of random numbers, an SAE that reads it, and texts, in the folder tiny/."""

import json
import random
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaModel, PreTrainedTokenizerFast

WORDS, WIDTH = 200, 32
torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=WORDS + 3, hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=3,
    num_attention_heads=4, max_position_embeddings=128, initializer_range=0.15,
)  # fmt: skip
LlamaModel(config).save_pretrained("tiny/model")

vocabulary = {"<pad>": 0, "<s>": 1, "</s>": 2} | {f"w{n}": n + 3 for n in range(WORDS)}
words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
words.pre_tokenizer = pre_tokenizers.Whitespace()
special = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>"}
PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained("tiny/model")

# Two features for each axis: one for what is above zero, one for what is below.
rows = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
bias = {"b_enc": torch.full((2 * WIDTH,), -0.2), "b_dec": torch.zeros(WIDTH)}
Path("tiny/sae").mkdir()
save_file({"W_dec": rows, "W_enc": rows.T.contiguous(), **bias}, "tiny/sae/sae_weights.safetensors")
told = {"model_name": "tiny/model", "hook_name": "blocks.1.hook_resid_post", "context_size": 64}
shape = {"architecture": "standard", "d_in": WIDTH, "d_sae": 2 * WIDTH, "dtype": "float32"}
Path("tiny/sae/cfg.json").write_text(json.dumps(shape | {"metadata": told}))

draw = random.Random(0)
texts = [" ".join(draw.choices(list(vocabulary)[3:], k=draw.randint(5, 60))) for _ in range(200)]
Path("tiny/texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
