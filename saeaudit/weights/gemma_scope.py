"""Gemma Scope: ``params.npz`` (Gemma 2) and ``params.safetensors`` (Gemma 3, "Gemma Scope 2")."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

from saeaudit.site import Site
from saeaudit.weights.assemble import Names, assemble
from saeaudit.weights.hooks import named
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Contents, read_json

TRANSCODERS = re.compile(r"(models--google--)?gemma-scope-\w+-\w+-transcoders")
"""The release's name, as a folder or in the hub's cache."""


class GemmaScope:
    """W_dec [F, d], W_enc [d, F]; JumpReLU without centring: x is encoded as it is."""

    name = "gemma_scope"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is called params.npz."""
        return file.name == "params.npz"

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Nothing."""
        return ()

    def home(self, file: PurePath) -> PurePath:
        """Its folder."""
        return file.parent

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read params.npz; some files spell the matrices w_enc and w_dec.

        It does not say what it is of: only its release does, by the repository's name for
        transcoders and by a folder for the SAEs of embeddings, which see them divided by sqrt(d).
        """
        transcoder = any(TRANSCODERS.fullmatch(part) for part in file.parts)
        weights = assemble(
            self.name, str(file), contents.tensors, Names(), "jumprelu",
            Layout(maps_elsewhere=transcoder),
        )  # fmt: skip
        if file.parent.match("embedding/width_*/average_l0_*"):
            scale = 1 / math.sqrt(weights.decoder.shape[1])
            weights = replace(weights, input_scale=scale, output_scale=scale)
        return Loaded(weights, (file,))


class GemmaScope2:
    """w_dec [F, o], w_enc [d, F], JumpReLU without centring; layers of a CLT: w_dec [F, L, o]."""

    name = "gemma_scope_2"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is params.safetensors or one layer's params_layer_N.safetensors."""
        return bool(re.fullmatch(r"params(_layer_\d+)?\.safetensors", file.name))

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration."""
        return (file.parent / "config.json",)

    def home(self, file: PurePath) -> PurePath:
        """Its folder; the file for one layer of a cross-layer transcoder."""
        return file.parent if file.name == "params.safetensors" else file

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read the tensors; config.json, where it is there, tells transcoders."""
        tensors = contents.tensors
        config_file = file.parent / "config.json"
        config = read_json(config_file) if config_file.is_file() else {}
        decoder = tensors.get("w_dec") or tensors.get("W_dec")
        cross_layer = decoder is not None and len(decoder.shape) == 3
        skips = "affine_skip_connection" in tensors
        transcoder = cross_layer or skips or _reads_another(config, file)
        weights = assemble(
            self.name,
            str(file),
            tensors,
            Names(),
            "jumprelu",
            Layout(maps_elsewhere=transcoder, layers_second=True),
            site=_site(config),
        )
        return Loaded(weights, (file, *((config_file,) if config else ())))


def _site(config: dict[str, Any]) -> Site:
    """The place by its own name for it; of several layers at once none.

    Files spell models in three ways: google/gemma-3-1b-pt, gemma-v3-1b-pt, and 270m with -pt.
    """
    hook, model = named(config, "hf_hook_point_in"), named(config, "model_name")
    if model is not None:
        model = f"google/{model.removeprefix('google/').replace('-v3', '-3')}"
        model = model.replace("-270m-pt", "-270m")
    return Site(model, None if hook is not None and "{" in hook else hook)


def _reads_another(config: dict[str, Any], file: Path) -> bool:
    """Whether it is a transcoder; without a configuration the release's folder of its site says."""
    if config:
        return bool(config.get("type", "sae") != "sae")
    return file.parent.parent.name in ("transcoder", "transcoder_all")
