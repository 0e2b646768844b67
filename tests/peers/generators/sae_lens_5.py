"""SAELens before 6.0 (5.x and 3.x): a flat configuration, and options that later were dropped."""

from __future__ import annotations

import itertools
import warnings
from importlib.metadata import version
from typing import Any

import sae_lens
import torch
from cases import Cases, D, F, K, activations, train
from sae_lens import config as settings
from sae_lens import sae as module
from torch import Tensor

warnings.filterwarnings("ignore")
VERSION = version("sae-lens")
cases = Cases(f"sae-lens {VERSION}")
ARCHITECTURES = ("standard", "gated", "jumprelu") + (("topk",) if VERSION[0] == "5" else ())
for table in (settings.DTYPE_MAP, module.DTYPE_MAP):
    table["torch.float64"] = torch.float64
BASE: dict[str, Any] = {
    "d_in": D, "d_sae": F, "context_size": 8, "model_name": "m", "hook_name": "blocks.0.resid",
    "hook_layer": 0, "hook_head_index": None, "prepend_bos": True, "dataset_path": "",
    "dataset_trust_remote_code": False, "dtype": "float32", "device": "cpu",
    "sae_lens_training_version": VERSION, "finetuning_scaling_factor": False,
    "normalize_activations": "none", "activation_fn_str": "relu", "activation_fn_kwargs": {},
    "apply_b_dec_to_input": True,
}  # fmt: skip


def build(architecture: str, **options: Any) -> Any:
    values = {**BASE, "architecture": architecture, **options}
    if architecture == "topk":
        values |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    sae = sae_lens.SAE(module.SAEConfig(**values))
    train(sae, lambda x: (sae.decode(sae.encode(x)) - x).square().mean())
    return sae


def add(name: str, sae: Any, **options: Any) -> None:
    """Save, then take the figures from the SAE that was saved, in float64.

    Not from the file: these versions cannot load what they save with finetuning_scaling_factor.
    """
    folder = cases.folder(name)
    sae.save_model(str(folder))
    sae.to(dtype=torch.float64)
    x = activations().double()
    with torch.no_grad():
        codes = sae.encode(x)
        decoded = sae.decode(codes)
    rows = sae.W_dec
    if sae.cfg.finetuning_scaling_factor:  # what a code is multiplied by, in effect
        rows = rows * sae.finetuning_scaling_factor[:, None]
    cases.add(name, folder, rows, x=x, codes=codes, decoded=decoded, encoder=sae.W_enc, **options)


def main() -> None:
    kinds = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm")
    for architecture, centred, normalise in itertools.product(ARCHITECTURES, (True, False), kinds):
        label = f"{architecture} {normalise}{' centred' * centred}"
        sae = build(architecture, apply_b_dec_to_input=centred, normalize_activations=normalise)
        add(label, sae, architecture=architecture, normalise=normalise, centred=centred)
    for architecture in ARCHITECTURES:
        if architecture == "standard" or (VERSION[0] == "5" and architecture != "gated"):
            label = f"{architecture} finetuning scale"
            sae = build(architecture, finetuning_scaling_factor=True)
            add(label, sae, architecture=architecture, finetuning_scaling_factor=True)
        for fold in ("W_dec_norm", "scale"):
            sae = build(architecture, normalize_activations="expected_average_only_in")
            if fold == "scale":
                sae.fold_activation_norm_scaling_factor(1.75)
            else:
                sae.fold_W_dec_norm()
            add(f"{architecture} folded {fold}", sae, architecture=architecture, folded=fold)
        for dtype in ("float16", "bfloat16"):
            sae = build(architecture).to(dtype=getattr(torch, dtype))
            add(f"{architecture} {dtype}", sae, architecture=architecture, dtype=dtype)
    for activation in ("tanh-relu", "topk"):
        for architecture in ("standard", "gated", "jumprelu"):
            kwargs = {"k": K} if activation == "topk" else {}
            sae = build(architecture, activation_fn_str=activation, activation_fn_kwargs=kwargs)
            label = f"{architecture} {activation}"
            add(label, sae, architecture=f"{architecture} of {activation}")


def noisy() -> None:
    """A training checkpoint with noise on the pre-activations: the file must not feel it."""
    from dataclasses import fields

    from sae_lens.training.training_sae import TrainingSAE, TrainingSAEConfig

    more = {
        "l1_coefficient": 1e-3, "lp_norm": 1.0, "use_ghost_grads": False,
        "normalize_sae_decoder": False, "noise_scale": 0.5, "decoder_orthogonal_init": False,
        "mse_loss_normalization": None, "jumprelu_init_threshold": 0.1, "jumprelu_bandwidth": 0.05,
        "decoder_heuristic_init": False, "init_encoder_as_decoder_transpose": True,
        "scale_sparsity_penalty_by_decoder_norm": True, "decoder_heuristic_init_norm": 0.1,
    }  # fmt: skip
    known = {field.name for field in fields(TrainingSAEConfig)}
    for architecture in ARCHITECTURES:
        values = {**BASE, **more, "architecture": architecture}
        if architecture == "topk":
            values |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
        if architecture == "jumprelu" and VERSION[0] == "3":
            continue  # 3.x could not train them
        sae = TrainingSAE(TrainingSAEConfig(**{k: v for k, v in values.items() if k in known}))

        def loss(x: Tensor, sae: Any = sae) -> Tensor:
            return sae.training_forward_pass(x, 1e-3).loss

        train(sae, loss)
        sae.eval()
        add(f"{architecture} noise", sae, architecture=architecture, noise_scale=0.5)


main()
noisy()
