"""circuit-tracer: single-layer transcoders and cross-layer ones, ReLU and JumpReLU, with skips."""

from __future__ import annotations

import itertools
import warnings
from importlib.metadata import version

import torch
from cases import Cases, D, F, activations, train
from circuit_tracer.transcoder.activation_functions import JumpReLU
from circuit_tracer.transcoder.cross_layer_transcoder import CrossLayerTranscoder
from circuit_tracer.transcoder.single_layer_transcoder import (
    SingleLayerTranscoder,
    load_relu_transcoder,
)

warnings.filterwarnings("ignore")
cases = Cases(f"circuit-tracer {version('circuit-tracer')}")
LAYERS = 3


def started(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))


def single() -> None:
    for kind, skip, dtype in itertools.product(
        ("relu", "jumprelu", "jumprelu negative"), (False, True), (torch.float32, torch.bfloat16)
    ):
        activation = torch.nn.functional.relu if kind == "relu" else JumpReLU(torch.zeros(F))
        model = SingleLayerTranscoder(
            D, F, activation, 0, skip_connection=skip, dtype=torch.float32
        )
        started(model)
        if kind != "relu":
            with torch.no_grad():
                model.activation_function.threshold.abs_()
        target = torch.randn(D, D, generator=torch.Generator().manual_seed(5)) / 4
        train(model, lambda x, model=model, t=target: (model(x) - x @ t).square().mean())
        if kind != "relu":
            with torch.no_grad():
                model.activation_function.threshold.abs_()
                if kind.endswith("negative"):
                    model.activation_function.threshold[:4] = -0.5
        width = str(dtype).removeprefix("torch.")
        label = f"single {kind}{' skip' * skip} {width}"
        file = cases.folder(label) / "layer_0.safetensors"
        model.to(dtype).to_safetensors(str(file))
        again = load_relu_transcoder(str(file), 0, dtype=torch.float64, lazy_encoder=False,
                                     lazy_decoder=False)  # fmt: skip
        x = activations()
        with torch.no_grad():
            codes, decoded = again.encode(x.double()), again(x.double())
        cases.add(label, file, again.W_dec, x=x, codes=codes, decoded=decoded,
                  encoder=again.W_enc.T, activation=kind, skip=skip, dtype=width)  # fmt: skip


def cross_layer() -> None:
    for kind in ("relu", "jump_relu"):
        model = CrossLayerTranscoder(LAYERS, F, D, activation_function=kind, lazy_decoder=False,
                                     dtype=torch.float32)  # fmt: skip
        started(model)
        with torch.no_grad():
            if kind == "jump_relu":
                model.activation_function.threshold.abs_()
                # Its gradient has another shape than the thresholds in this version.
                model.activation_function.threshold.requires_grad_(False)

        def loss(x: torch.Tensor, model: CrossLayerTranscoder = model) -> torch.Tensor:
            stacked = torch.stack([x, x.flip(0), -x])
            codes = model.encode(stacked)
            rows = [
                sum(codes[i] @ model.W_dec[i][:, j - i] for i in range(j + 1)) + model.b_dec[j]
                for j in range(LAYERS)
            ]
            return (torch.stack(rows) - stacked).square().mean()

        train(model, loss)
        folder = cases.folder(f"clt {kind}")
        model.to_safetensors(str(folder))
        x = activations()
        for layer in range(LAYERS):
            codes = model.double().encode_layer(x.double(), layer)
            rows = model.W_dec[layer].reshape(F, -1)
            cases.add(f"clt {kind} layer {layer}", folder / f"W_dec_{layer}.safetensors", rows,
                      x=x, codes=codes, decoded=codes @ rows, encoder=model.W_enc[layer].T,
                      activation=kind, layers=LAYERS - layer)  # fmt: skip


single()
cross_layer()
