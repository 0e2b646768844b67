"""Llama Scope (OpenMOSS): v1 checkpoints, the R1 distill release, and the newer llamascopium."""

from __future__ import annotations

import math
from pathlib import Path, PurePath
from typing import Any

from saeaudit.dictionary import Architecture
from saeaudit.errors import WeightsError
from saeaudit.site import Site
from saeaudit.untrusted import finite
from saeaudit.weights.assemble import (
    EXPECTS_SCALED,
    LINEAR,
    Names,
    assemble,
    constant,
    exponential,
    multiplied,
    number_of,
    positive,
)
from saeaudit.weights.hooks import named
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.published import published_scale
from saeaudit.weights.tensors import Contents, Stored, read_json


class LlamaScope:
    """``hyperparams.json`` + ``checkpoints/final.safetensors``: decoder.weight [d, F], JumpReLU.

    Encodes activations scaled by sqrt(d) / their mean norm; one scalar threshold for all features.
    """

    name = "llama_scope"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is checkpoints/final.safetensors below a hyperparams.json."""
        return file.name == "final.safetensors" and present(_hyperparams(file))

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration."""
        return (_hyperparams(file),)

    def home(self, file: PurePath) -> PurePath:
        """The folder that its hyperparams.json lies in."""
        return file.parent.parent

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read the weights and fold the threshold of the json in."""
        config_file = Path(_hyperparams(file))
        config, where = read_json(config_file), str(config_file)
        tensors = dict(contents.tensors)
        width = positive(config, "d_model", where)
        features = positive(config, "d_sae", where)
        norms = config.get("dataset_average_activation_norm")
        if not isinstance(norms, dict):
            raise WeightsError("no dataset_average_activation_norm", where=where)
        if width is None or features is None:
            raise WeightsError("no d_model or no d_sae", where=where)
        scale = math.sqrt(width) / number_of(norms, "in", where)
        threshold = number_of(config, "jump_relu_threshold", where)
        tensors["threshold"] = constant(threshold)
        transcoder = config.get("hook_point_in") != config.get("hook_point_out")
        weights = assemble(
            self.name,
            str(file),
            tensors,
            LINEAR,
            "jumprelu",
            Layout(features, width, features_last=True, maps_elsewhere=transcoder),
            input_scale=scale,
            output_scale=math.sqrt(width) / number_of(norms, "out", where),
            site=Site(hook=named(config, "hook_point_in")),
        )
        return Loaded(weights, (file, config_file))


class LlamaScopeR1:
    """``config.json`` + ``sae_weights.safetensors`` with decoder.weight [d, F] or W_D [F, d]."""

    name = "llama_scope_r1"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is sae_weights.safetensors with a config.json and no cfg.json."""
        return (
            file.name == "sae_weights.safetensors"
            and not present(file.parent / "cfg.json")
            and present(file.parent / "config.json")
        )

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration."""
        return (file.parent / "config.json",)

    def home(self, file: PurePath) -> PurePath:
        """Its folder."""
        return file.parent

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read the weights; thresholds are stored as logarithms."""
        config_file = file.parent / "config.json"
        config, where = read_json(config_file), str(config_file)
        tensors = dict(contents.tensors)
        _exponentiate(tensors)
        linear = "decoder.weight" in tensors
        names = LINEAR if linear else Names(("W_D",), ("W_E",), ("b_E",), ("b_D",))
        width = positive(config, "d_model", where)
        features = positive(config, "d_sae", where) or multiplied(config, "d_model", where)
        transcoder = config.get("hook_point_in") != config.get(
            "hook_point_out", config.get("hook_point_in")
        )
        scale, notes = _scale(config, width, published_scale(file))
        weights = assemble(
            self.name,
            str(file),
            tensors,
            names,
            _architecture(config, tensors),
            Layout(features, width, features_last=linear, maps_elsewhere=transcoder),
            k=positive(config, "top_k", where),
            norm_scaled=bool(config.get("sparsity_include_decoder_norm", False)),
            input_scale=scale,
            output_scale=scale,
            notes=notes,
            site=Site(hook=named(config, "hook_point_in")),
        )
        return Loaded(weights, (file, config_file))


def _hyperparams(file: PurePath) -> PurePath:
    return file.parent.parent / "hyperparams.json"


def _exponentiate(tensors: dict[str, Stored]) -> None:
    for name in list(tensors):
        if name.split(".")[-1] == "log_jumprelu_threshold":
            tensors["threshold"] = exponential(tensors.pop(name))


def _architecture(config: dict[str, Any], tensors: dict[str, Stored]) -> Architecture:
    if "threshold" in tensors:
        return "jumprelu"
    return "topk" if "topk" in str(config.get("act_fn", "relu")) else "standard"


def _scale(
    config: dict[str, Any], width: int | None, published: float | None
) -> tuple[float, tuple[str, ...]]:
    norms = config.get("dataset_average_activation_norm")
    norm = finite(norms.get("in")) if isinstance(norms, dict) else None
    if config.get("norm_activation") == "dataset-wise" and width and norm and norm > 0:
        return math.sqrt(width) / norm, ()
    if published is not None:
        return published, ()
    if config.get("norm_activation") in (None, "inference", "none"):
        return 1.0, ()
    return 1.0, (EXPECTS_SCALED,)
