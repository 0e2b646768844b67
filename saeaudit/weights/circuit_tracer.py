"""circuit-tracer: per-layer transcoders, one ``layer_N.safetensors`` a layer."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from saeaudit.weights.assemble import Names, assemble
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Contents


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

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read one layer's transcoder."""
        tensors = contents.tensors
        threshold = "activation_function.threshold"
        weights = assemble(
            self.name, str(file), tensors, Names(threshold=(threshold,)),
            "jumprelu" if threshold in tensors else "standard",
            Layout(maps_elsewhere=True, encoder_first=True),
        )  # fmt: skip
        return Loaded(weights, (file,))
