"""Gemma Scope (Gemma 2): ``params.npz`` with W_enc, W_dec, b_enc, b_dec and threshold."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from saeaudit.dictionary import Weights
from saeaudit.errors import WeightsError
from saeaudit.weights.interface import Loaded
from saeaudit.weights.orient import orient
from saeaudit.weights.tensors import read_tensors


class GemmaScope:
    """W_dec [F, d], W_enc [d, F]; JumpReLU without centring: x is encoded as it is."""

    name = "gemma_scope"

    def claims(self, file: Path) -> bool:
        """Whether the file is called params.npz."""
        return file.name == "params.npz"

    def read(self, file: Path) -> Loaded:
        """Read params.npz; some files spell the matrices w_enc and w_dec."""
        stored, _ = read_tensors(file)
        tensors = {name[:1].upper() + name[1:] if name.startswith("w_") else name: tensor
                   for name, tensor in stored.items()}  # fmt: skip
        if "W_dec" not in tensors:
            raise WeightsError(
                f"no W_dec in params.npz; it has {', '.join(sorted(stored)) or 'nothing'}",
                where=str(file),
            )
        vectors = {
            name: tensors[name].load() if name in tensors else None
            for name in ("b_enc", "b_dec", "threshold")
        }
        oriented = orient(
            tensors["W_dec"],
            tensors.get("W_enc"),
            features_last=False,
            feature_length=_length(vectors["b_enc"], vectors["threshold"]),
            width_length=_length(vectors["b_dec"]),
            name="W_dec",
            where=str(file),
        )
        weights = Weights(
            format=self.name,
            decoder=oriented.decoder(),
            architecture="jumprelu" if oriented.encoder else "decoder-only",
            encoder=oriented.encoder,
            b_enc=vectors["b_enc"],
            b_dec=vectors["b_dec"],
            threshold=vectors["threshold"],
        )
        return Loaded(weights, (file,))


def _length(*vectors: Tensor | None) -> int | None:
    return next((len(v) for v in vectors if v is not None and v.ndim == 1), None)
