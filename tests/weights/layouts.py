"""Small SAEs in the true on-disk layout of every family, from one set of numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

F, D = 12, 5
RNG = np.random.default_rng(7)
DEC = RNG.normal(size=(F, D)).astype(np.float32)
ENC = RNG.normal(size=(D, F)).astype(np.float32)
B_ENC = RNG.normal(size=F).astype(np.float32)
B_DEC = RNG.normal(size=D).astype(np.float32)
THRESHOLD = RNG.uniform(0.1, 1, size=F).astype(np.float32)
B_GATE, B_MAG, R_MAG = (RNG.normal(size=F).astype(np.float32) * 0.3 for _ in range(3))
X = RNG.normal(size=(40, D)).astype(np.float64)


def t(array: Any) -> torch.Tensor:
    return torch.as_tensor(array).contiguous().clone()


def _json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))


def _safetensors(path: Path, **tensors: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name.replace("__", "."): t(value) for name, value in tensors.items()}, path)
    return path


def _torch(path: Path, **tensors: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({name.replace("__", "."): t(value) for name, value in tensors.items()}, path)
    return path


def gemma_scope(root: Path) -> Path:
    file = root / "layer_3/width_16k/average_l0_9/params.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, W_enc=ENC, W_dec=DEC, b_enc=B_ENC, b_dec=B_DEC, threshold=THRESHOLD)
    return file


def gemma_scope_2(root: Path) -> Path:
    folder = root / "resid_post/layer_13_width_16k_l0_medium"
    _json(folder / "config.json", {"architecture": "jump_relu", "type": "sae", "width": F})
    _safetensors(folder / "examples.safetensors", tokens=np.zeros((3, 4)))
    return _safetensors(
        folder / "params.safetensors",
        w_enc=ENC, w_dec=DEC, b_enc=B_ENC, b_dec=B_DEC, threshold=THRESHOLD,
    )  # fmt: skip


def gemma_scope_2_clt(root: Path) -> Path:
    return _safetensors(
        root / "clt/width_262k_l0_big/params_layer_1.safetensors",
        w_enc=ENC, w_dec=np.stack([DEC, 2 * DEC], 1), b_enc=B_ENC, b_dec=B_DEC,
        threshold=THRESHOLD,
    )  # fmt: skip


def saelens(root: Path, **config: Any) -> Path:
    folder = root / "blocks.0.hook_resid_pre"
    base = {"d_in": D, "d_sae": F, "architecture": "standard", "apply_b_dec_to_input": True,
            "metadata": {"sae_lens_version": "6.9.1"}}  # fmt: skip
    _json(folder / "cfg.json", base | config)
    vectors: dict[str, Any] = {"b_enc": B_ENC}
    if config.get("architecture") == "gated":
        vectors = {"b_gate": B_GATE, "b_mag": B_MAG, "r_mag": R_MAG}
    if config.get("architecture") == "jumprelu":
        vectors["threshold"] = THRESHOLD
    _safetensors(folder / "sparsity.safetensors", sparsity=np.zeros(F))
    return _safetensors(
        folder / "sae_weights.safetensors", W_enc=ENC, W_dec=DEC, b_dec=B_DEC, **vectors
    )


def saelens_old(root: Path) -> Path:
    folder = root / "v5"
    _json(folder / "cfg.json", {"d_in": D, "d_sae": F, "hook_point": "blocks.0.hook_resid_pre"})
    return _safetensors(
        folder / "sae_weights.safetensors", W_enc=ENC, W_dec=DEC, b_enc=B_ENC, b_dec=B_DEC
    )


def sparsify(root: Path) -> Path:
    _json(
        root / "layers.10/cfg.json",
        {"d_in": D, "num_latents": F, "k": 3, "expansion_factor": 32, "normalize_decoder": True},
    )
    return _safetensors(
        root / "layers.10/sae.safetensors",
        encoder__weight=ENC.T, encoder__bias=B_ENC, W_dec=DEC, b_dec=B_DEC,
    )  # fmt: skip


def _trainer(root: Path, name: str) -> Path:
    folder = root / "resid_post_layer_8/trainer_0"
    _json(folder / "config.json", {
        "trainer": {"dict_class": name, "activation_dim": D, "dict_size": F, "k": 3}, "buffer": {},
    })  # fmt: skip
    return folder / "ae.pt"


def dl_autoencoder(root: Path) -> Path:
    return _torch(
        _trainer(root, "AutoEncoder"),
        bias=B_DEC, encoder__weight=ENC.T, encoder__bias=B_ENC, decoder__weight=DEC.T,
    )  # fmt: skip


def dl_new(root: Path) -> Path:
    return _torch(
        _trainer(root, "AutoEncoderNew"), encoder__weight=ENC.T, encoder__bias=B_ENC,
        decoder__weight=DEC.T, decoder__bias=B_DEC,
    )  # fmt: skip


def dl_gated(root: Path) -> Path:
    return _torch(
        _trainer(root, "GatedAutoEncoder"), decoder_bias=B_DEC, encoder__weight=ENC.T,
        r_mag=R_MAG, gate_bias=B_GATE, mag_bias=B_MAG, decoder__weight=DEC.T,
    )  # fmt: skip


def dl_jumprelu(root: Path) -> Path:
    return _torch(
        _trainer(root, "JumpReluAutoEncoder"), W_enc=ENC, b_enc=B_ENC, W_dec=DEC, b_dec=B_DEC,
        threshold=THRESHOLD,
    )  # fmt: skip


def _dl_topk(root: Path, name: str) -> Path:
    return _torch(
        _trainer(root, name), encoder__weight=ENC.T, encoder__bias=B_ENC, decoder__weight=DEC.T,
        b_dec=B_DEC, k=torch.tensor(3), threshold=torch.tensor(0.5),
    )  # fmt: skip


def dl_topk(root: Path) -> Path:
    return _dl_topk(root, "AutoEncoderTopK")


def dl_batchtopk(root: Path) -> Path:
    return _dl_topk(root, "BatchTopKSAE")


def dl_matryoshka(root: Path) -> Path:
    return _torch(
        _trainer(root, "MatryoshkaBatchTopKSAE"), W_enc=ENC, b_enc=B_ENC, W_dec=DEC, b_dec=B_DEC,
        k=torch.tensor(3), threshold=torch.tensor(0.5), group_sizes=torch.tensor([4, 8]),
    )  # fmt: skip


def llama_scope(root: Path) -> Path:
    folder = root / "Llama3_1-8B-Base-L8R-8x"
    _json(folder / "hyperparams.json", {
        "d_model": D, "d_sae": F, "jump_relu_threshold": 0.4, "act_fn": "jumprelu",
        "dataset_average_activation_norm": {"in": 3.0, "out": 3.0},
        "hook_point_in": "blocks.8.hook_resid_post", "hook_point_out": "blocks.8.hook_resid_post",
    })  # fmt: skip
    return _safetensors(
        folder / "checkpoints/final.safetensors", encoder__weight=ENC.T, encoder__bias=B_ENC,
        decoder__weight=DEC.T, decoder__bias=B_DEC,
    )  # fmt: skip


def llama_scope_r1(root: Path) -> Path:
    folder = root / "800M-Slimpajama-0-OpenR1-Math-220k/L8R"
    _json(
        folder / "config.json",
        {"d_model": D, "expansion_factor": F / D, "hook_point_in": "blocks.8.hook_resid_post"},
    )
    return _safetensors(
        folder / "sae_weights.safetensors", encoder__weight=ENC.T, encoder__bias=B_ENC,
        decoder__weight=DEC.T, decoder__bias=B_DEC, log_jumprelu_threshold=np.log(THRESHOLD),
    )  # fmt: skip


def qwen_scope(root: Path) -> Path:
    return _torch(
        root / "SAE-Res-Qwen3-1.7B-Base-W32K-L0_3/layer2.sae.pt",
        W_enc=ENC.T, W_dec=DEC.T, b_enc=B_ENC, b_dec=B_DEC,
    )  # fmt: skip


def goodfire(root: Path) -> Path:
    return _torch(
        root / "Llama-3.1-8B-Instruct-SAE-l19.pth", encoder_linear__weight=ENC.T,
        encoder_linear__bias=B_ENC, decoder_linear__weight=DEC.T, decoder_linear__bias=B_DEC,
    )  # fmt: skip


def circuit_tracer(root: Path) -> Path:
    return _safetensors(
        root / "layer_4.safetensors", W_enc=ENC.T, W_dec=DEC, b_enc=B_ENC, b_dec=B_DEC
    )


def clt(root: Path) -> Path:
    _safetensors(root / "W_enc_2.safetensors", W_enc_2=ENC.T, b_enc_2=B_ENC, b_dec_2=B_DEC)
    return _safetensors(root / "W_dec_2.safetensors", W_dec_2=np.stack([DEC, 3 * DEC], 1))


def temporal(root: Path) -> Path:
    """As in canrager/temporalSAEs."""
    folder = root / "layer_12/temporal"
    folder.mkdir(parents=True)
    (folder / "conf.yaml").write_text("sae: {tied_weights: false}\n")
    return _safetensors(
        folder / "latest_ckpt.safetensors", D=DEC, E=ENC, b=B_DEC,
        attn_layers__0__c_proj__weight=np.eye(3),
    )  # fmt: skip


def state_dictionary(root: Path) -> Path:
    return _safetensors(root / "a.safetensors", W_enc=ENC, W_dec=DEC, b_enc=B_ENC, b_dec=B_DEC)


def matching_pursuit(root: Path) -> Path:
    file = saelens(root, architecture="matching_pursuit", max_iterations=3)
    return _safetensors(file, W_dec=DEC, b_dec=B_DEC)


def overcomplete(root: Path) -> Path:
    return _torch(
        root / "sae.pt", encoder__final_block__0__weight=ENC.T, encoder__final_block__0__bias=B_ENC,
        dictionary___weights=DEC, dictionary__multiplier=torch.tensor(0.5),
    )  # fmt: skip


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


def jump(x: np.ndarray, threshold: Any) -> np.ndarray:
    pre = x @ ENC.astype(float) + B_ENC
    return np.where((pre > threshold) & (pre > 0), pre, 0.0)


def top(x: np.ndarray, k: int = 3) -> np.ndarray:
    out = np.zeros((len(x), F))
    for row, values in enumerate(relu(x @ ENC.astype(float) + B_ENC)):
        for best in sorted(range(F), key=lambda n: -values[n])[:k]:
            out[row, best] = values[best]
    return out


def gate(x: np.ndarray) -> np.ndarray:
    shared = x @ ENC.astype(float)
    return np.where(shared + B_GATE > 0, relu(np.exp(R_MAG) * shared + B_MAG), 0.0)


def centred() -> np.ndarray:
    return X - B_DEC


Codes = Callable[[], np.ndarray]
LAYOUTS: dict[str, tuple[Callable[[Path], Path], str, str, Codes]] = {
    "gemma_scope": (gemma_scope, "gemma_scope", "layer_3/width_16k/average_l0_9",
                    lambda: jump(X, THRESHOLD)),
    "gemma_scope_2": (gemma_scope_2, "gemma_scope_2", "resid_post/layer_13_width_16k_l0_medium",
                      lambda: jump(X, THRESHOLD)),
    "saelens": (saelens, "saelens", "blocks.0.hook_resid_pre",
                lambda: relu(centred() @ ENC + B_ENC)),
    "saelens old": (saelens_old, "saelens", "v5", lambda: relu(centred() @ ENC + B_ENC)),
    "saelens topk": (lambda p: saelens(p, architecture="topk", k=3), "saelens",
                     "blocks.0.hook_resid_pre", lambda: top(centred())),
    "saelens jumprelu": (
        lambda p: saelens(p, architecture="jumprelu", apply_b_dec_to_input=False), "saelens",
        "blocks.0.hook_resid_pre", lambda: jump(X, THRESHOLD)),
    "saelens gated": (lambda p: saelens(p, architecture="gated"), "saelens",
                      "blocks.0.hook_resid_pre", lambda: gate(centred())),
    "sparsify": (sparsify, "sparsify", "layers.10", lambda: top(centred())),
    "AutoEncoder": (dl_autoencoder, "dictionary_learning", "resid_post_layer_8/trainer_0",
                    lambda: relu(centred() @ ENC + B_ENC)),
    "AutoEncoderNew": (dl_new, "dictionary_learning", "resid_post_layer_8/trainer_0",
                       lambda: relu(X @ ENC + B_ENC)),
    "GatedAutoEncoder": (dl_gated, "dictionary_learning", "resid_post_layer_8/trainer_0",
                         lambda: gate(centred())),
    "JumpReluAutoEncoder": (dl_jumprelu, "dictionary_learning", "resid_post_layer_8/trainer_0",
                            lambda: jump(X, THRESHOLD)),
    "AutoEncoderTopK": (dl_topk, "dictionary_learning", "resid_post_layer_8/trainer_0",
                        lambda: top(centred())),
    "BatchTopKSAE": (dl_batchtopk, "dictionary_learning", "resid_post_layer_8/trainer_0",
                     lambda: jump(centred(), 0.5)),
    "MatryoshkaBatchTopKSAE": (dl_matryoshka, "dictionary_learning",
                               "resid_post_layer_8/trainer_0", lambda: jump(centred(), 0.5)),
    "llama_scope": (llama_scope, "llama_scope", "Llama3_1-8B-Base-L8R-8x",
                    lambda: jump(X * D**0.5 / 3, 0.4)),
    "llama_scope_r1": (llama_scope_r1, "llama_scope_r1",
                       "800M-Slimpajama-0-OpenR1-Math-220k/L8R", lambda: jump(X, THRESHOLD)),
    "qwen_scope": (qwen_scope, "qwen_scope", "SAE-Res-Qwen3-1.7B-Base-W32K-L0_3/layer2.sae.pt",
                   lambda: top(X)),
    "goodfire": (goodfire, "goodfire", "Llama-3.1-8B-Instruct-SAE-l19.pth",
                 lambda: relu(X @ ENC + B_ENC)),
    "circuit_tracer": (circuit_tracer, "circuit_tracer", "layer_4.safetensors",
                       lambda: relu(X @ ENC + B_ENC)),
}  # fmt: skip
"""Family → how to write it, its format's name, its id below the root, and its codes for X."""

WRITERS: dict[str, Callable[[Path], Path]] = {
    **{name: write for name, (write, *_) in LAYOUTS.items()},
    "clt": clt,
    "gemma_scope_2 clt": gemma_scope_2_clt,
    "temporal": temporal,
    "state dictionary": state_dictionary,
    "overcomplete": overcomplete,
    "saelens matching pursuit": matching_pursuit,
    "saelens abstopk": lambda root: saelens(root, architecture="abstopk", k=3),
    "saelens temporal": lambda root: saelens(root, architecture="temporal"),
}
"""All families, those included whose decoders write to several layers or whose encoder is open."""
