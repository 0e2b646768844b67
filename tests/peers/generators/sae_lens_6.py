"""SAELens from 6.0 on: every architecture, option and way of saving."""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import sae_lens
import torch
from cases import Cases, D, F, K, activations, train
from sae_lens.registry import get_sae_class, get_sae_training_class
from sae_lens.saes.sae import SAE, SAEMetadata, TrainStepInput
from sae_lens.training.activation_scaler import ActivationScaler
from safetensors.torch import load_file
from torch import Tensor

warnings.filterwarnings("ignore")
NORMALISE = ("none", "expected_average_only_in", "constant_norm_rescale", "layer_norm",
             "covariance_whitening")  # fmt: skip
PLAIN = ("standard", "jumprelu", "topk", "gated", "abstopk", "matching_pursuit")
SCALE = 1.75
TRAINED = (*PLAIN, "batchtopk", "matryoshka_batchtopk")
cases = Cases(f"sae-lens {sae_lens.__version__}")


def extra(architecture: str) -> dict[str, Any]:
    if "topk" in architecture:
        return {"k": K}
    if architecture == "matching_pursuit":
        return {"max_iterations": K, "residual_threshold": 0.5}
    return {}


def reference(folder: Path, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """Decoder, codes, reconstruction and encoder as the library has them, in float64."""
    sae = SAE.load_from_disk(folder, dtype="float64")
    sae.eval()
    given = x.double()
    if sae.cfg.reshape_activations == "hook_z":
        given = given.reshape(len(x), 2, -1)
    with torch.no_grad():
        codes = sae.encode(given)
        decoded = sae.decode(codes)
        if getattr(sae, "W_skip", None) is not None:
            decoded = sae(given)
    codes = codes.to_dense() if codes.is_sparse else codes
    if getattr(sae.cfg, "rescale_acts_by_decoder_norm", False):
        codes = codes / sae.W_dec.norm(dim=-1)
    encoder = None if "matching" in sae.cfg.architecture() else sae.W_enc
    return sae.W_dec, codes, decoded.reshape(len(x), -1), encoder


def add(name: str, folder: Path, **options: Any) -> None:
    x = activations()
    decoder, codes, decoded, encoder = reference(folder, x)
    cases.add(name, folder, decoder, x=x, codes=codes, decoded=decoded, encoder=encoder, **options)


def add_checkpoint(
    name: str, folder: Path, final: Path, scale: float = 1.0, **options: Any
) -> None:
    """A checkpoint of training: what it means is what the same SAE saved for inference says.

    The two differ in the norms of their rows, where these are folded for inference, and in the
    activations' scale, where the checkpoint has it beside it.
    """
    x = activations()
    decoder, codes, decoded, _ = reference(final, scale * x)
    rows = load_file(folder / "sae_weights.safetensors")["W_dec"].double()
    codes = codes * decoder.norm(dim=-1) / rows.norm(dim=-1)
    cases.add(name, folder, rows, x=x, codes=codes, decoded=decoded / scale, **options)


def inference() -> None:
    options = itertools.product(PLAIN, (True, False), NORMALISE)
    for architecture, centred, normalise in options:
        for rescaled in (True, False) if "topk" in architecture else (None,):
            model, config = get_sae_class(architecture)
            more = {} if rescaled is None else {"rescale_acts_by_decoder_norm": rescaled}
            sae = model(config(
                d_in=D, d_sae=F, apply_b_dec_to_input=centred, normalize_activations=normalise,
                **extra(architecture), **more,
            ))  # fmt: skip
            train(sae, lambda x, sae=sae: (sae(x) - x).square().mean())
            label = f"{architecture} {normalise}{' centred' * centred}"
            label += " rescaled" * bool(rescaled)
            folder = cases.folder(label)
            sae.save_model(folder)
            add(label, folder, architecture=architecture, normalise=normalise, centred=centred,
                rescaled=rescaled)  # fmt: skip


def dtypes_and_folds() -> None:
    for architecture in PLAIN:
        for dtype in ("float16", "bfloat16", "float64"):
            model, config = get_sae_class(architecture)
            sae = model(config(d_in=D, d_sae=F, **extra(architecture)))
            train(sae, lambda x, sae=sae: (sae(x) - x).square().mean())
            folder = cases.folder(f"{architecture} {dtype}")
            sae.to(getattr(torch, dtype)).save_model(folder)
            add(f"{architecture} {dtype}", folder, architecture=architecture, dtype=dtype)
        if architecture != "matching_pursuit":
            more = {"rescale_acts_by_decoder_norm": True} if "topk" in architecture else {}
            sae = model(config(d_in=D, d_sae=F, **extra(architecture), **more))
            train(sae, lambda x, sae=sae: (sae(x) - x).square().mean())
            sae.fold_W_dec_norm()
            folder = cases.folder(f"{architecture} folded")
            sae.save_model(folder)
            add(f"{architecture} folded", folder, architecture=architecture, folded="W_dec_norm")
    model, config = get_sae_class("standard")
    metadata = SAEMetadata(hook_name="blocks.0.attn.hook_z")
    sae = model(config(d_in=D, d_sae=F, reshape_activations="hook_z", metadata=metadata))
    train(sae, lambda x: (sae(x.reshape(len(x), 2, -1)).reshape(len(x), -1) - x).square().mean())
    sae.save_model(cases.folder("standard hook_z"))
    add("standard hook_z", cases.root / "standard_hook_z", architecture="standard", hook_z=True)


def trained(architecture: str, **options: Any) -> Any:
    model, config = get_sae_training_class(architecture)
    more = extra(architecture)
    if architecture.startswith("matryoshka"):
        more["matryoshka_widths"] = [F // 4, F // 2, F]
    sae = model(config(d_in=D, d_sae=F, **more, **options))
    coefficients = {
        name: float(getattr(value, "value", value)) * 0.01
        for name, value in sae.get_coefficients().items()
    }

    def loss(x: Tensor) -> Tensor:
        step = TrainStepInput(sae_in=x, coefficients=coefficients, dead_neuron_mask=None,
                              n_training_steps=10, is_logging_step=False)  # fmt: skip
        return sae.training_forward_pass(step).loss

    train(sae, loss)
    sae.eval()
    return sae


def save_both(label: str, sae: Any, **options: Any) -> None:
    checkpoint, final = cases.folder(f"{label} checkpoint"), cases.folder(f"{label} final")
    sae.save_model(checkpoint)
    sae.save_inference_model(final)
    add_checkpoint(f"{label} checkpoint", checkpoint, final, **options)
    add(f"{label} final", final, **options)


def training() -> None:
    for architecture, centred in itertools.product(TRAINED, (True, False)):
        rescaled = (True, False) if "topk" in architecture else (None,)
        for rescale in rescaled:
            more = {} if rescale is None else {"rescale_acts_by_decoder_norm": rescale}
            sae = trained(architecture, apply_b_dec_to_input=centred, **more)
            label = f"trained {architecture}{' centred' * centred}{' rescaled' * bool(rescale)}"
            save_both(label, sae, architecture=architecture, centred=centred, rescaled=rescale)


def scaled() -> None:
    """A checkpoint with activation_scaler.json beside it, and the folded SAE at the end."""
    for architecture in TRAINED:
        sae = trained(architecture, normalize_activations="expected_average_only_in")
        label = f"scaled {architecture}"
        checkpoint, unfolded = cases.folder(f"{label} checkpoint"), cases.folder(label)
        sae.save_model(checkpoint)
        ActivationScaler(scaling_factor=SCALE).save(str(checkpoint / "activation_scaler.json"))
        sae.save_inference_model(unfolded)
        add_checkpoint(
            f"{label} checkpoint", checkpoint, unfolded, SCALE, architecture=architecture
        )
        sae.fold_activation_norm_scaling_factor(SCALE)
        folded = cases.folder(f"{label} folded")
        sae.save_inference_model(folded)
        add(f"{label} folded", folded, architecture=architecture, folded="scale")


def whitened() -> None:
    sae = trained("standard", normalize_activations="covariance_whitening")
    scaler = ActivationScaler()
    batches = iter(activations(seed=100 + n) for n in range(10**6))
    scaler.estimate_whitening(D, batches, n_batches_for_norm_estimate=20)
    checkpoint, final = cases.folder("whitened checkpoint"), cases.folder("whitened folded")
    sae.save_model(checkpoint)
    scaler.save(str(checkpoint / "activation_scaler.json"))
    x = activations()
    unfolded = cases.folder("whitened unfolded")
    sae.save_inference_model(unfolded)
    decoder, codes, decoded, encoder = reference(unfolded, scaler.scale(x.double()))
    cases.add(
        "whitened checkpoint", checkpoint, decoder, x=x, codes=codes, encoder=encoder,
        decoded=scaler.unscale(decoded), architecture="standard",
    )  # fmt: skip
    white = scaler.whitening
    sae.fold_activation_whitening(white.mean, white.matrix, white.inverse_matrix)
    sae.save_inference_model(final)
    add("whitened folded", final, architecture="standard", folded="whitening")


def transcoders() -> None:
    kinds = ("transcoder", "skip_transcoder", "jumprelu_transcoder", "jumprelu_skip_transcoder")
    for kind, width in itertools.product(kinds, (D, D + 4)):
        model, config = get_sae_class(kind)
        sae = model(config(d_in=D, d_sae=F, d_out=width, apply_b_dec_to_input=False))
        target = torch.randn(D, width, generator=torch.Generator().manual_seed(5)) / 4
        train(sae, lambda x, sae=sae, target=target: (sae(x) - x @ target).square().mean())
        folder = cases.folder(f"{kind} {width}")
        sae.save_model(folder)
        add(f"{kind} {width}", folder, architecture=kind, d_out=width)


def temporal() -> None:
    for tied, kind, normalise in itertools.product(
        (True, False), ("topk", "relu"), ("none", "constant_scalar_rescale")
    ):
        model, config = get_sae_class("temporal")
        sae = model(config(
            d_in=D, d_sae=F, n_heads=2, bottleneck_factor=4, sae_diff_type=kind, kval_topk=K,
            tied_weights=tied, normalize_activations=normalise, activation_normalization_factor=1.5,
        ))  # fmt: skip
        train(sae, lambda x, sae=sae: (sae(x[None])[0] - x).square().mean())
        label = f"temporal {kind} {normalise}{' tied' * tied}"
        folder = cases.folder(label)
        sae.save_model(folder)
        x = activations()
        sae = SAE.load_from_disk(folder, dtype="float64")
        with torch.no_grad():
            codes, decoded = sae.encode(x[None].double())[0], sae(x[None].double())[0]
        cases.add(label, folder, sae.W_dec, x=x, codes=codes, decoded=decoded,
                  architecture="temporal", tied=tied, normalise=normalise)  # fmt: skip


inference()
dtypes_and_folds()
training()
scaled()
whitened()
transcoders()
temporal()
