"""Hook names of TransformerLens, and so of SAELens, as modules of transformers' models.

A name is of a layer, ``blocks.3.hook_mlp_out``, or of the whole model, ``hook_embed``. Those are
here that SAEs read, with what TransformerLens means by them: what a layer adds to the residual
stream is what is added, after a norm that follows (Gemma 2 and 3); RMSNorm's ``hook_normalized``
is without its gain. `attn.hook_z` is ``[tokens, heads, width of a head]`` there and ``[tokens,
heads * width]`` here, as SAEs read it. A name by which its versions mean different things is not
known: ``hook_mlp_in``, LayerNorm's ``hook_normalized``, and what BERT has about its norms.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

LAYER = re.compile(r"blocks\.([0-9]{1,4})\.(.+)")
GAIN = "/gain"
"""Marks a norm whose gain is to be divided out."""


class Family(NamedTuple):
    """Models whose layers have the same modules."""

    layers: str
    """Path of the list of layers."""
    inside: Mapping[str, str]
    """A layer's hooks, as modules of the layer with ``:in`` or ``:out``."""
    outside: Mapping[str, str]
    """The model's hooks, as modules of the model."""
    centred: bool = False
    """Whether TransformerLens may take the mean off what is written to the residual stream."""


_STREAM = {
    "hook_resid_pre": ":in", "hook_resid_post": ":out",
    "hook_in": ":in", "hook_out": ":out",
    "mlp.hook_in": "mlp:in", "mlp.hook_out": "mlp:out",
}  # fmt: skip
_GATED = {"mlp.hook_pre": "mlp.gate_proj:out", "mlp.hook_post": "mlp.down_proj:in"}
_ATTENTION = {"attn.hook_z": "self_attn.o_proj:in"}
_ROTARY = {"hook_embed": "layers.0:in"}
"""What enters the first layer: Gemma's embeddings are scaled after the table that holds them."""

LLAMA = Family(
    "layers",
    _STREAM | _GATED | _ATTENTION | {
        "hook_resid_mid": "post_attention_layernorm:in",
        "hook_attn_out": "self_attn:out", "hook_mlp_out": "mlp:out",
        "ln1.hook_normalized": f"input_layernorm:out{GAIN}",
        "ln2.hook_normalized": f"post_attention_layernorm:out{GAIN}",
    },
    _ROTARY,
)  # fmt: skip
GEMMA = Family(
    "layers",
    _STREAM | _GATED | _ATTENTION | {
        "hook_resid_mid": "pre_feedforward_layernorm:in",
        "hook_attn_out": "post_attention_layernorm:out",
        "hook_mlp_out": "post_feedforward_layernorm:out",
        "ln1.hook_normalized": f"input_layernorm:out{GAIN}",
        "ln2.hook_normalized": f"pre_feedforward_layernorm:out{GAIN}",
    },
    _ROTARY,
)  # fmt: skip
"""Gemma 2 and 3, which have a norm before and one after attention and MLP."""
GPT2 = Family(
    "h",
    _STREAM | {
        "hook_resid_mid": "ln_2:in", "hook_attn_out": "attn:out", "hook_mlp_out": "mlp:out",
        "attn.hook_z": "attn.c_proj:in", "mlp.hook_pre": "mlp.c_fc:out",
        "mlp.hook_post": "mlp.c_proj:in",
    },
    {"hook_embed": "wte:out"},
    centred=True,
)  # fmt: skip
_PARALLEL = _STREAM | {
    "hook_attn_out": "attention:out", "hook_mlp_out": "mlp:out",
    "attn.hook_z": "attention.dense:in", "mlp.hook_pre": "mlp.dense_h_to_4h:out",
    "mlp.hook_post": "mlp.dense_4h_to_h:in",
}  # fmt: skip
NEOX = Family("layers", _PARALLEL, _ROTARY, centred=True)
"""Attention and MLP read the same residual stream: there is no place between them."""
NEOX_IN_TURN = NEOX._replace(
    inside=_PARALLEL | {"hook_resid_mid": "post_attention_layernorm:in"}
)  # fmt: skip
BERT = Family(
    "encoder.layer",
    {
        "hook_resid_pre": ":in", "hook_in": ":in", "hook_out": ":out",
        "hook_mlp_out": "output.dense:out", "attn.hook_z": "attention.output.dense:in",
        "mlp.hook_pre": "intermediate.dense:out", "mlp.hook_post": "output.dense:in",
    },
    {},
)  # fmt: skip
"""Norms follow what is added: whether `hook_resid_post` is before or after them is not agreed."""

WRITTEN = re.compile(
    r"(blocks\.[0-9]+\.)?(hook_(resid_\w+|attn_out|mlp_out|in|out|embed)|mlp\.hook_out)"
)
"""Hooks of the residual stream and of what is written to it."""

FAMILIES: dict[str, Family] = {
    **dict.fromkeys(
        ("llama", "mistral", "gemma", "qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "mixtral",
         "qwen3_5_text", "qwen3_5_moe_text", "gpt_oss", "ministral"),
        LLAMA,
    ),
    **dict.fromkeys(("gemma2", "gemma3_text"), GEMMA),
    "gpt2": GPT2, "gpt_neox": NEOX,
    **dict.fromkeys(("bert", "roberta", "xlm-roberta", "camembert", "electra"), BERT),
}  # fmt: skip
"""transformers' names of kinds of models (`model_type`) and what is in their layers."""


def family_of_model(config: Any) -> Family | None:
    """The family of a model's configuration; None where none is known."""
    if config.model_type == "gpt_neox" and not config.use_parallel_residual:
        return NEOX_IN_TURN
    return FAMILIES.get(config.model_type)


def translate(hook: str, family: Family) -> str | None:
    """A hook's name as a module's path with ``:in`` or ``:out``, and `GAIN`; None where not known.

    >>> translate("blocks.3.attn.hook_z", GPT2), translate("blocks.3.hook_resid_post", LLAMA)
    ('h.3.attn.c_proj:in', 'layers.3:out')
    """
    match = LAYER.fullmatch(hook)
    if match is None:
        return family.outside.get(hook)
    inside = family.inside.get(match[2])
    if inside is None:
        return None
    dot = "" if inside.startswith(":") else "."
    return f"{family.layers}.{int(match[1])}{dot}{inside}"
