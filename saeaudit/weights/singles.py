"""Families of one file a layer: Qwen Scope, circuit-tracer transcoders and CLTs, Goodfire."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from saeaudit.errors import WeightsError
from saeaudit.weights.assemble import LINEAR, Names, assemble, positive
from saeaudit.weights.gemma_scope import CROSS_LAYER, ELSEWHERE
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.tensors import read_json, read_tensors


class QwenScope:
    """``layerN.sae.pt``: W_dec [d, F] and W_enc [F, d], transposed against all others; TopK."""

    name = "qwen_scope"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is called layerN.sae.pt."""
        return bool(re.fullmatch(r"layer\d+\.sae\.pt", file.name))

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration."""
        return (file.parent / "config.json",)

    def home(self, file: PurePath) -> PurePath:
        """The file: a folder holds one a layer."""
        return file

    def read(self, file: Path) -> Loaded:
        """Read the weights; k stands in config.json, or in the folder's name as …L0_<k>."""
        config_file = file.parent / "config.json"
        config = read_json(config_file) if config_file.is_file() else {}
        tensors, _ = read_tensors(file)
        k = positive(config, "k", str(config_file))
        named = re.search(r"L0_(\d+)", str(file.parent))
        if k is None and named:
            k = int(named[1])
        weights = assemble(
            self.name, str(file), tensors, Names(), "topk", features_last=True, k=k,
            features=positive(config, "d_sae", str(config_file)),
            width=positive(config, "d_model", str(config_file)),
        )  # fmt: skip
        return Loaded(weights, (file, *((config_file,) if config else ())))


class CircuitTracer:
    """``layer_N.safetensors``: W_dec [F, d], W_enc [F, d]; ReLU, or JumpReLU with thresholds."""

    name = "circuit_tracer"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is called layer_N.safetensors."""
        return bool(re.fullmatch(r"layer_\d+\.safetensors", file.name))

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Nothing."""
        return ()

    def home(self, file: PurePath) -> PurePath:
        """The file: a folder holds one a layer."""
        return file

    def read(self, file: Path) -> Loaded:
        """Read one layer's transcoder."""
        tensors, _ = read_tensors(file)
        threshold = "activation_function.threshold"
        weights = assemble(
            self.name, str(file), tensors, Names(threshold=(threshold,)),
            "jumprelu" if threshold in tensors else "standard",
            maps_elsewhere=True, notes=(ELSEWHERE,),
        )  # fmt: skip
        return Loaded(weights, (file,))


class CrossLayerTranscoder:
    """``W_enc_N.safetensors`` + ``W_dec_N.safetensors``: W_dec_N [F, layers, d], W_enc_N [F, d]."""

    name = "clt"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is called W_dec_N.safetensors (the encoder lies beside it)."""
        return bool(re.fullmatch(r"W_dec_\d+\.safetensors", file.name))

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its encoder."""
        return (file.with_name(file.name.replace("W_dec_", "W_enc_")),)

    def home(self, file: PurePath) -> PurePath:
        """The file: a folder holds one a layer."""
        return file

    def read(self, file: Path) -> Loaded:
        """Read one layer, its encoder included where that file is there."""
        tensors, _ = read_tensors(file)
        match = re.search(r"\d+", file.name)
        n = match[0] if match else ""
        beside = file.with_name(f"W_enc_{n}.safetensors")
        if beside.is_file():
            tensors |= read_tensors(beside)[0]
        decoder = tensors.get(f"W_dec_{n}")
        if decoder is None:
            raise WeightsError(f"no W_dec_{n}; it has {', '.join(tensors)}", where=str(file))
        notes = (ELSEWHERE,)
        if len(decoder.shape) == 3:
            _, layers, width = decoder.shape
            notes = (CROSS_LAYER.format(layers=layers, width=width, flat=layers * width),)
        names = Names(
            (f"W_dec_{n}",), (f"W_enc_{n}",), (f"b_enc_{n}",), (f"b_dec_{n}",), (f"threshold_{n}",)
        )
        weights = assemble(
            self.name, str(file), tensors, names,
            "jumprelu" if f"threshold_{n}" in tensors else "standard",
            maps_elsewhere=True, notes=notes,
        )  # fmt: skip
        return Loaded(weights, (file, *((beside,) if beside.is_file() else ())))


class Goodfire:
    """One ``.pt`` or ``.pth`` file: decoder_linear.weight [d, F], encoder_linear.weight [F, d]."""

    name = "goodfire"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is called like Goodfire's, …-SAE-lN.pt or .pth."""
        return bool(re.search(r"-SAE-l\d+\.pth?$", file.name))

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Nothing."""
        return ()

    def home(self, file: PurePath) -> PurePath:
        """The file: a folder holds one a layer."""
        return file

    def read(self, file: Path) -> Loaded:
        """Read the weights: ReLU, no centring (qresearch's DeepSeek SAE has the same form)."""
        tensors, _ = read_tensors(file)
        weights = assemble(self.name, str(file), tensors, LINEAR, "standard", features_last=True)
        return Loaded(weights, (file,))
