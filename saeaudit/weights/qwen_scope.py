"""Qwen Scope: one ``layerN.sae.pt`` a layer, TopK."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from saeaudit.site import Site
from saeaudit.weights.assemble import Names, assemble, positive
from saeaudit.weights.hooks import residual_of
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Contents, read_json


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

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read the weights; k stands in config.json, or in the folder's name as …L0_<k>."""
        config_file = file.parent / "config.json"
        config = read_json(config_file) if config_file.is_file() else {}
        k = positive(config, "k", str(config_file))
        named = re.search(r"L0_(\d+)", str(file.parent))
        if k is None and named:
            k = int(named[1])
        layout = Layout(
            features=positive(config, "d_sae", str(config_file)),
            width=positive(config, "d_model", str(config_file)),
            features_last=True,
        )
        site = Site(hook=residual_of(file, r"layer(\d+)"))
        weights = assemble(
            self.name, str(file), contents.tensors, Names(), "topk", layout, k=k, site=site
        )
        return Loaded(weights, (file, *((config_file,) if config else ())))
