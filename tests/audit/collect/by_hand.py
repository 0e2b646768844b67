"""Forward passes written out in float64 from a model's tensors alone, for the names of all hooks.

Independent of transformers' modules: rotary embeddings, masks, norms and attention are here, in the
order of the papers. Each returns every hook that TransformerLens names, ``[t, d]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import gelu, silu

Weights = dict[str, Tensor]
Hooks = dict[str, Tensor]


@dataclass(frozen=True)
class Rotary:
    """What tells the models with RMSNorm and rotary embeddings apart."""

    heads: int
    groups: int
    """Heads of keys and values."""
    width: int
    """Of a head."""
    scale: float
    """Of scores."""
    eps: float
    one_plus: bool = False
    """Norms multiply by one plus their weight."""
    sandwich: bool = False
    """A norm follows attention and MLP, too."""
    norms_heads: bool = False
    """Queries and keys are normalised."""
    embedding: float = 1.0
    cap: float | None = None
    """Scores are capped softly at this."""
    gelu: bool = False
    windows: tuple[int | None, ...] = (None, None, None)
    """Of each layer: how many tokens a token sees, itself included."""
    bases: tuple[float, ...] = field(default=(10_000.0,) * 3)


def rotated(x: Tensor, base: float, dims: int) -> Tensor:
    """Rotate the first dimensions of ``[heads, t, width]`` by position."""
    t = x.shape[1]
    frequencies = base ** -(torch.arange(0, dims, 2, dtype=torch.float64) / dims)
    angles = torch.arange(t, dtype=torch.float64)[:, None] * frequencies
    cos, sin = angles.cos(), angles.sin()
    first, second, rest = x[..., : dims // 2], x[..., dims // 2 : dims], x[..., dims:]
    return torch.cat([first * cos - second * sin, second * cos + first * sin, rest], -1)


def attention(
    q: Tensor, k: Tensor, v: Tensor, scale: float, *,
    causal: bool = True, window: int | None = None, cap: float | None = None,
) -> Tensor:  # fmt: skip
    """All heads' outputs ``[t, heads * width]`` of ``[heads, t, width]``."""
    t = q.shape[1]
    scores = q @ k.transpose(1, 2) * scale
    if cap:
        scores = cap * (scores / cap).tanh()
    distance = torch.arange(t)[:, None] - torch.arange(t)
    hidden = (distance < 0) if causal else torch.zeros(t, t, dtype=torch.bool)
    if window:
        hidden = hidden | (distance >= window)
    return (scores.masked_fill(hidden, -math.inf).softmax(-1) @ v).transpose(0, 1).reshape(t, -1)


def heads_of(x: Tensor, heads: int) -> Tensor:
    return x.reshape(len(x), heads, -1).transpose(0, 1)


def rms(x: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def layer_norm(x: Tensor, w: Weights, name: str, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    scaled = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    y = x @ w[f"{name}.weight"].T
    return y + w[f"{name}.bias"] if f"{name}.bias" in w else y


def rotary_model(w: Weights, ids: Tensor, f: Rotary) -> tuple[Hooks, Tensor]:
    """Gemma 1, 2 and 3, Llama, Mistral and Qwen: hooks, and what the last norm gives."""

    def gain(name: str) -> Tensor:
        return w[f"{name}.weight"] + f.one_plus

    x = w["embed_tokens.weight"][ids] * f.embedding
    hooks: Hooks = {"hook_embed": x}
    for number, (window, base) in enumerate(zip(f.windows, f.bases, strict=True)):
        at, hook = f"layers.{number}", f"blocks.{number}"
        hooks[f"{hook}.hook_resid_pre"] = hooks[f"{hook}.hook_in"] = x
        hooks[f"{hook}.ln1.hook_normalized"] = rms(x, f.eps)
        normed = rms(x, f.eps) * gain(f"{at}.input_layernorm")
        q = heads_of(linear(normed, w, f"{at}.self_attn.q_proj"), f.heads)
        k = heads_of(linear(normed, w, f"{at}.self_attn.k_proj"), f.groups)
        v = heads_of(linear(normed, w, f"{at}.self_attn.v_proj"), f.groups)
        if f.norms_heads:
            q = rms(q, f.eps) * gain(f"{at}.self_attn.q_norm")
            k = rms(k, f.eps) * gain(f"{at}.self_attn.k_norm")
        q, k = rotated(q, base, f.width), rotated(k, base, f.width)
        k, v = (y.repeat_interleave(f.heads // f.groups, 0) for y in (k, v))
        z = attention(q, k, v, f.scale, window=window, cap=f.cap)
        hooks[f"{hook}.attn.hook_z"] = z
        added = linear(z, w, f"{at}.self_attn.o_proj")
        if f.sandwich:
            added = rms(added, f.eps) * gain(f"{at}.post_attention_layernorm")
        hooks[f"{hook}.hook_attn_out"] = added
        x = x + added
        hooks[f"{hook}.hook_resid_mid"] = x
        hooks[f"{hook}.ln2.hook_normalized"] = rms(x, f.eps)
        before = "pre_feedforward_layernorm" if f.sandwich else "post_attention_layernorm"
        normed = rms(x, f.eps) * gain(f"{at}.{before}")
        hooks[f"{hook}.mlp.hook_in"] = normed
        gate = linear(normed, w, f"{at}.mlp.gate_proj")
        hooks[f"{hook}.mlp.hook_pre"] = gate
        inner = gelu(gate, approximate="tanh") if f.gelu else silu(gate)
        inner = inner * linear(normed, w, f"{at}.mlp.up_proj")
        hooks[f"{hook}.mlp.hook_post"] = inner
        added = linear(inner, w, f"{at}.mlp.down_proj")
        hooks[f"{hook}.mlp.hook_out"] = added
        if f.sandwich:
            added = rms(added, f.eps) * gain(f"{at}.post_feedforward_layernorm")
        hooks[f"{hook}.hook_mlp_out"] = added
        x = x + added
        hooks[f"{hook}.hook_resid_post"] = hooks[f"{hook}.hook_out"] = x
    return hooks, rms(x, f.eps) * gain("norm")


def gpt2(w: Weights, ids: Tensor, config: Any) -> tuple[Hooks, Tensor]:
    embedded, positions = w["wte.weight"][ids], w["wpe.weight"][: len(ids)]
    hooks: Hooks = {"hook_embed": embedded}
    x, eps = embedded + positions, config.layer_norm_epsilon

    def conv(x: Tensor, name: str) -> Tensor:
        return x @ w[f"{name}.weight"] + w[f"{name}.bias"]

    for number in range(config.n_layer):
        at, hook = f"h.{number}", f"blocks.{number}"
        hooks[f"{hook}.hook_resid_pre"] = hooks[f"{hook}.hook_in"] = x
        normed = layer_norm(x, w, f"{at}.ln_1", eps)
        q, k, v = (
            heads_of(part, config.n_head)
            for part in conv(normed, f"{at}.attn.c_attn").split(config.n_embd, -1)
        )
        z = attention(q, k, v, (config.n_embd // config.n_head) ** -0.5)
        hooks[f"{hook}.attn.hook_z"] = z
        added = conv(z, f"{at}.attn.c_proj")
        hooks[f"{hook}.hook_attn_out"] = added
        x = x + added
        hooks[f"{hook}.hook_resid_mid"] = x
        normed = layer_norm(x, w, f"{at}.ln_2", eps)
        hooks[f"{hook}.mlp.hook_in"] = normed
        inner = conv(normed, f"{at}.mlp.c_fc")
        hooks[f"{hook}.mlp.hook_pre"] = inner
        inner = gelu(inner, approximate="tanh")
        hooks[f"{hook}.mlp.hook_post"] = inner
        added = conv(inner, f"{at}.mlp.c_proj")
        hooks[f"{hook}.hook_mlp_out"] = hooks[f"{hook}.mlp.hook_out"] = added
        x = x + added
        hooks[f"{hook}.hook_resid_post"] = hooks[f"{hook}.hook_out"] = x
    return hooks, layer_norm(x, w, "ln_f", eps)


def gpt_neox(w: Weights, ids: Tensor, config: Any) -> tuple[Hooks, Tensor]:
    x, eps = w["embed_in.weight"][ids], config.layer_norm_eps
    hooks: Hooks = {"hook_embed": x}
    heads = config.num_attention_heads
    width = config.hidden_size // heads
    for number in range(config.num_hidden_layers):
        at, hook = f"layers.{number}", f"blocks.{number}"
        hooks[f"{hook}.hook_resid_pre"] = hooks[f"{hook}.hook_in"] = x
        normed = layer_norm(x, w, f"{at}.input_layernorm", eps)
        fused = linear(normed, w, f"{at}.attention.query_key_value")
        q, k, v = fused.reshape(len(x), heads, 3, width).permute(2, 1, 0, 3)
        q, k = rotated(q, 10_000.0, width // 4), rotated(k, 10_000.0, width // 4)
        z = attention(q, k, v, width**-0.5)
        hooks[f"{hook}.attn.hook_z"] = z
        attended = linear(z, w, f"{at}.attention.dense")
        hooks[f"{hook}.hook_attn_out"] = attended
        middle = x + attended
        if not config.use_parallel_residual:
            hooks[f"{hook}.hook_resid_mid"] = middle
        read = x if config.use_parallel_residual else middle
        normed = layer_norm(read, w, f"{at}.post_attention_layernorm", eps)
        hooks[f"{hook}.mlp.hook_in"] = normed
        inner = linear(normed, w, f"{at}.mlp.dense_h_to_4h")
        hooks[f"{hook}.mlp.hook_pre"] = inner
        inner = gelu(inner)
        hooks[f"{hook}.mlp.hook_post"] = inner
        added = linear(inner, w, f"{at}.mlp.dense_4h_to_h")
        hooks[f"{hook}.hook_mlp_out"] = hooks[f"{hook}.mlp.hook_out"] = added
        x = middle + added
        hooks[f"{hook}.hook_resid_post"] = hooks[f"{hook}.hook_out"] = x
    return hooks, layer_norm(x, w, "final_layer_norm", eps)


def bert(w: Weights, ids: Tensor, config: Any) -> tuple[Hooks, Tensor]:
    e, eps = "embeddings", config.layer_norm_eps
    x = w[f"{e}.word_embeddings.weight"][ids] + w[f"{e}.position_embeddings.weight"][: len(ids)]
    x = layer_norm(x + w[f"{e}.token_type_embeddings.weight"][0], w, f"{e}.LayerNorm", eps)
    hooks: Hooks = {}
    heads = config.num_attention_heads
    for number in range(config.num_hidden_layers):
        at, hook = f"encoder.layer.{number}", f"blocks.{number}"
        hooks[f"{hook}.hook_resid_pre"] = hooks[f"{hook}.hook_in"] = x
        q, k, v = (
            heads_of(linear(x, w, f"{at}.attention.self.{name}"), heads)
            for name in ("query", "key", "value")
        )
        z = attention(q, k, v, (config.hidden_size // heads) ** -0.5, causal=False)
        hooks[f"{hook}.attn.hook_z"] = z
        added = linear(z, w, f"{at}.attention.output.dense")
        x = layer_norm(x + added, w, f"{at}.attention.output.LayerNorm", eps)
        inner = linear(x, w, f"{at}.intermediate.dense")
        hooks[f"{hook}.mlp.hook_pre"] = inner
        inner = gelu(inner)
        hooks[f"{hook}.mlp.hook_post"] = inner
        added = linear(inner, w, f"{at}.output.dense")
        hooks[f"{hook}.hook_mlp_out"] = added
        x = layer_norm(x + added, w, f"{at}.output.LayerNorm", eps)
        hooks[f"{hook}.hook_out"] = x
    return hooks, x


ROTARY = Rotary(heads=4, groups=2, width=8, scale=8**-0.5, eps=1e-6)
GEMMA = {"one_plus": True, "gelu": True, "embedding": 24**0.5}
WINDOWS = (4, None, 4)
ROTARIES: dict[str, dict[str, Any]] = {
    "gemma": GEMMA,
    "gemma2": GEMMA | {"sandwich": True, "cap": 2.0, "scale": 12**-0.5, "windows": WINDOWS},
    "gemma3_text": GEMMA
    | {"sandwich": True, "norms_heads": True, "scale": 12**-0.5, "windows": WINDOWS,
       "bases": (1e4, 1e6, 1e4)},
    "llama": {},
    "mistral": {"windows": (4, 4, 4)},
    "qwen3": {"norms_heads": True},
}  # fmt: skip
OTHERS: dict[str, Callable[..., tuple[Hooks, Tensor]]] = {
    "gpt2": gpt2, "gpt_neox": gpt_neox, "bert": bert,
}  # fmt: skip


def by_hand(name: str, decoder: Any, ids: Tensor) -> tuple[Hooks, Tensor]:
    """All hooks of one text ``[t]``, and what the whole forward pass gives."""
    weights = {key: tensor.double() for key, tensor in decoder.state_dict().items()}
    kind = name.partition(" ")[0]
    if kind in OTHERS:
        return OTHERS[kind](weights, ids, decoder.config)
    fields = vars(ROTARY) | {"eps": decoder.config.rms_norm_eps} | ROTARIES[name]
    return rotary_model(weights, ids, Rotary(**fields))
