"""Cross-layer transcoders as circuit-tracer stores them: encoder and decoder apart, by layer."""

from __future__ import annotations

import re
from pathlib import Path, PurePath

from saeaudit.weights.assemble import Names, assemble
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Contents, read_tensors


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

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read one layer, its encoder included where that file is there."""
        tensors = dict(contents.tensors)
        match = re.search(r"\d+", file.name)
        n = match[0] if match else ""
        beside = file.with_name(f"W_enc_{n}.safetensors")
        if beside.is_file():
            tensors |= read_tensors(beside).tensors
        names = Names(
            (f"W_dec_{n}",), (f"W_enc_{n}",), (f"b_enc_{n}",), (f"b_dec_{n}",), (f"threshold_{n}",)
        )
        weights = assemble(
            self.name, str(file), tensors, names,
            "jumprelu" if f"threshold_{n}" in tensors else "standard",
            Layout(maps_elsewhere=True, encoder_first=True, layers_second=True),
        )  # fmt: skip
        return Loaded(weights, (file, *((beside,) if beside.is_file() else ())))
