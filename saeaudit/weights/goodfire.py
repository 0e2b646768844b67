"""Goodfire: one ``…-SAE-lN.pt`` or ``.pth`` a layer, ReLU."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from saeaudit.site import Site
from saeaudit.weights.assemble import LINEAR, assemble
from saeaudit.weights.hooks import residual_of
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Contents


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

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read the weights: ReLU, no centring (qresearch's DeepSeek SAE has the same form)."""
        weights = assemble(
            self.name, str(file), contents.tensors, LINEAR, "standard", Layout(features_last=True),
            site=Site(hook=residual_of(file, r"-l(\d+)\.")),
        )  # fmt: skip
        return Loaded(weights, (file,))
