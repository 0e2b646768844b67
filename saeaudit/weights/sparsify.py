"""EleutherAI sparsify: ``cfg.json`` + ``sae.safetensors``, folders ``layers.N``."""

from __future__ import annotations

import re
from pathlib import Path, PurePath
from typing import Any

from saeaudit.dictionary import Architecture
from saeaudit.site import Site
from saeaudit.weights.assemble import Names, assemble, multiplied, positive
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Contents, read_json


class Sparsify:
    """W_dec [F, d], encoder.weight [F, d]; TopK or GroupMax of ReLU((x - b_dec) W_enc + bias)."""

    name = "sparsify"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is sae.safetensors with a cfg.json beside it."""
        return file.name == "sae.safetensors" and present(file.parent / "cfg.json")

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration."""
        return (file.parent / "cfg.json",)

    def home(self, file: PurePath) -> PurePath:
        """Its folder."""
        return file.parent

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read the weights; `skip_connection` alone already means a transcoder."""
        config_file = file.parent / "cfg.json"
        config, where = read_json(config_file), str(config_file)
        transcoder = bool(config.get("transcode") or config.get("skip_connection"))
        width = positive(config, "d_in", where)
        latents = config.get("num_latents") or multiplied(config, "d_in", where)
        features = positive({"num_latents": latents}, "num_latents", where)
        formula, unavailable = _formula(config, features)
        weights = assemble(
            self.name,
            str(file),
            contents.tensors,
            Names(encoder=("encoder.weight",), b_enc=("encoder.bias",)),
            formula,
            Layout(features, None if transcoder else width, maps_elsewhere=transcoder),
            subtract_b_dec=not config.get("transcode", False),
            k=positive(config, "k", where),
            codes_unavailable=unavailable,
            site=Site(hook=_hook(file, reads_input=bool(config.get("transcode")))),
        )
        return Loaded(weights, (file, config_file))


def _hook(file: Path, *, reads_input: bool) -> str | None:
    """The module that its folder is called after, such as layers.5 or h.3.mlp."""
    folder = file.parent.name
    if not re.fullmatch(r"(\w+\.)+\d+(\.\w+)*", folder, re.ASCII):
        return None
    return f"{folder}:{'in' if reads_input else 'out'}"


def _formula(config: dict[str, Any], features: int | None) -> tuple[Architecture, str | None]:
    """The encoder's formula, or "unknown" and why codes cannot be had."""
    activation, k = config.get("activation", "topk"), config.get("k")
    if config.get("signed"):
        return "unknown", "a signed encoder, whose codes may be negative"
    if activation == "groupmax" and isinstance(k, int) and k > 0 and features:
        uneven = f"GroupMax with {k} groups, which do not divide the {features} features"
        return "groupmax", uneven if features % k else None
    if activation == "topk":
        return "topk", None
    return "unknown", f"the activation {activation!r} is not known"
