"""Plain files: a bare matrix, or the state dictionary of an autoencoder saved by its authors.

Understood: a lone matrix [F, d]; W_dec [F, d] with W_enc; nn.Linear layers `decoder.weight`
[d, F] and `encoder.weight` [F, d], perhaps numbered (`decoder.0.weight`) or nested
(`state_dict.decoder.weight`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor

from saeaudit.dictionary import Architecture, Weights
from saeaudit.errors import WeightsError
from saeaudit.untrusted import whole
from saeaudit.weights.assemble import scalar
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import matrix, orient
from saeaudit.weights.tensors import FLOATS, Stored, read_tensors

_LINEAR = r"(?:\d+\.)?weight"
DECODERS = (
    (re.compile(r"(?:^|\.)(?:[Ww]_dec|W_D)$"), False),
    (re.compile(rf"(?:^|\.)decoder(?:_linear)?\.{_LINEAR}$"), True),
    (re.compile(r"(?:^|\.)(?:decoder|dictionary)$"), False),
)
"""Names of decoders, and whether such a tensor is stored [d, F]."""
NAMES = {
    "encoder": r"(?:[Ww]_enc|W_E|encoder(?:_linear)?\.(?:\d+\.)?weight)",
    "b_enc": r"(?:b_enc|encoder(?:_linear)?\.(?:\d+\.)?bias|latent_bias)",
    "b_dec": r"(?:b_dec|decoder(?:_linear)?\.(?:\d+\.)?bias|decoder_bias|pre_bias|bias)",
    "threshold": r"threshold",
}


def decoder_name(tensors: Mapping[str, Stored]) -> str | None:
    """Name of the tensor that holds the decoder, or None where none is obvious."""
    for pattern, _ in DECODERS:
        named = [name for name in tensors if pattern.search(name)]
        if len(named) == 1:
            return named[0]
    matrices = [name for name, t in tensors.items() if len(t.shape) == 2 and t.dtype in FLOATS]
    # The only tensor, unless its name says that it is something else.
    if len(matrices) == 1 and len(tensors) == 1 and "activation" not in matrices[0].lower():
        return matrices[0]
    return None


class Plain:
    """Whatever no other family claims."""

    name = "plain"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Every file: the last family asked."""
        return True

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Nothing."""
        return ()

    def home(self, file: PurePath) -> PurePath:
        """The file: a folder may hold several."""
        return file

    def read(self, file: Path) -> Loaded:
        """Read a state dictionary or a lone matrix."""
        tensors, scalars = read_tensors(file)
        name = decoder_name(tensors)
        if name is None:
            if len(tensors) == 1:
                ((only, stored),) = tensors.items()
                matrix(stored, only or "the array", str(file))
            raise WeightsError(
                f"no obvious decoder among {_listing(tensors)}",
                where=str(file),
                hint="name it W_dec [F, d] or decoder.weight [d, F]",
            )
        where = str(file)
        prefix = _prefix(name)
        parts = {part: _sibling(tensors, prefix, pattern) for part, pattern in NAMES.items()}
        threshold = parts["threshold"]
        per_feature = [
            p for p in (parts["b_enc"], threshold) if p is not None and len(p.shape) == 1
        ]
        b_dec = parts["b_dec"]
        linear = next((last for pattern, last in DECODERS if pattern.search(name)), False)
        shown = name or "the array"
        matrix(tensors[name], shown, where)
        oriented = orient(
            tensors[name],
            parts["encoder"],
            features_last=linear,
            feature_length=per_feature[0].shape[0] if per_feature else None,
            width_length=b_dec.shape[0] if b_dec is not None and len(b_dec.shape) == 1 else None,
            name=shown,
            where=where,
        )
        k = _k(tensors, scalars)
        weights = Weights(
            format=_format(scalars.get("saeaudit.format"), self.name),
            decoder=oriented.decoder(),
            architecture=_architecture(oriented.encoder is not None, threshold, k),
            encoder=oriented.encoder,
            b_enc=_vector(parts["b_enc"]),
            b_dec=_vector(b_dec),
            threshold=_expanded(threshold, oriented.features),
            k=k,
            notes=_notes(oriented.features, oriented.width, lone=len(tensors) == 1 and not linear),
        )
        return Loaded(weights, (file,))


def _format(given: Any, default: str) -> str:
    """The family that a decoder-only copy was made from, if that is what the file says."""
    named = isinstance(given, str) and re.fullmatch(r"[a-z0-9_]{1,40}", given)
    return given if named else default


def _listing(tensors: Mapping[str, Stored]) -> str:
    some = [f"{name or 'array'} {list(t.shape)}" for name, t in sorted(tensors.items())[:6]]
    return ", ".join(some) + (" …" if len(tensors) > 6 else "")


def _prefix(decoder: str) -> str:
    match = re.search(r"(?:[Ww]_dec|decoder|dictionary)", decoder)
    return decoder[: match.start()] if match else ""


def _sibling(tensors: Mapping[str, Stored], prefix: str, pattern: str) -> Stored | None:
    named = [name for name in tensors if re.fullmatch(re.escape(prefix) + pattern, name)]
    return tensors[named[0]] if len(named) == 1 else None


def _vector(stored: Stored | None) -> Tensor | None:
    return stored.load() if stored is not None and len(stored.shape) == 1 else None


def _expanded(stored: Stored | None, features: int) -> Tensor | None:
    if stored is None:
        return None
    loaded = stored.load()
    return loaded if loaded.ndim else loaded.expand(features)


def _k(tensors: Mapping[str, Stored], scalars: Mapping[str, Any]) -> int | None:
    for name in ("k", "top_k"):
        for key, stored in tensors.items():
            if key.split(".")[-1] == name and stored.shape == ():
                return whole(scalar(tensors, key))
        for key, value in scalars.items():
            if key.split(".")[-1] == name and isinstance(value, int):
                return value
    return None


def _architecture(encoder: bool, threshold: Stored | None, k: int | None) -> Architecture:
    if not encoder:
        return "decoder-only"
    if k is not None:
        return "topk"
    return "jumprelu" if threshold is not None else "standard"


def _notes(features: int, width: int, *, lone: bool) -> tuple[str, ...]:
    if lone and features < width:
        return (
            f"a lone matrix is read as [features, width]: {features} features of width {width}; "
            "transpose it if its columns are the features",
        )
    return ()
