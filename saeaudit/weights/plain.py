"""Plain files: a bare matrix, or the state dictionary of an autoencoder saved by its authors.

Understood: a lone matrix [F, d]; W_dec [F, d] with W_enc; nn.Linear layers `decoder.weight`
[d, F] and `encoder.weight` [F, d], perhaps numbered (`decoder.0.weight`) or nested
(`state_dict.decoder.weight`); the state dictionaries of dictionary_learning and overcomplete.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from saeaudit.dictionary import Architecture, Weights
from saeaudit.errors import WeightsError
from saeaudit.weights import dictionary_learning, overcomplete
from saeaudit.weights.assemble import Names, assemble, exponential, positive, stored_count
from saeaudit.weights.assumptions import assumed_note
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout, matrix
from saeaudit.weights.tensors import FLOATS, Contents, Stored, Tensors

if TYPE_CHECKING:
    from torch import Tensor

_LINEAR = r"(?:\d+\.)?weight"
DECODERS = (
    (re.compile(r"(?:^|\.)(?:[Ww]_dec|W_D)$"), False),
    (re.compile(rf"(?:^|\.)decoder(?:_linear)?\.{_LINEAR}$"), True),
    (re.compile(r"(?:^|\.)(?:decoder|dictionary)$"), False),
    (re.compile(r"(?:^|\.)dictionary\.(?:_weights|Relax)$"), False),
)
"""Names of decoders, and whether such a tensor is stored [d, F]."""
CENTRE = "pre_bias"
"""What a decoder's bias is called where the encoder subtracts it."""
LOGARITHMS = ("log_threshold", "log_jumprelu_threshold")
NAMES = {
    "encoder": r"(?:[Ww]_enc|W_E|encoder(?:_linear)?\.(?:\d+\.)?weight)",
    "b_enc": r"(?:b_enc|encoder(?:_linear)?\.(?:\d+\.)?bias|latent_bias)",
    "b_dec": rf"(?:b_dec|decoder(?:_linear)?\.(?:\d+\.)?bias|decoder_bias|{CENTRE}|bias)",
    "threshold": rf"(?:threshold|{'|'.join(LOGARITHMS)})",
    "b_gate": r"(?:b_gate|gate_bias)",
    "b_mag": r"(?:b_mag|mag_bias)",
    "r_mag": "r_mag",
}


def decoder_name(tensors: Tensors) -> str | None:
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


def obvious_decoder(tensors: Tensors, where: str) -> str:
    """Name of the tensor that holds the decoder.

    Raises:
        WeightsError: none is obvious.
    """
    name = decoder_name(tensors)
    if name is not None:
        return name
    if len(tensors) == 1:
        ((only, stored),) = tensors.items()
        matrix(stored, only or "the array", where)
    raise WeightsError(
        f"no obvious decoder among {_listing(tensors)}",
        where=where,
        hint="name it W_dec [F, d] or decoder.weight [d, F]",
    )


def is_named_decoder(name: str) -> bool:
    """Whether a tensor's name says that it is a decoder; a lone matrix may be anything."""
    return any(pattern.search(name) for pattern, _ in DECODERS)


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

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read a state dictionary or a lone matrix."""
        tensors, scalars = contents.tensors, contents.scalars
        where = str(file)
        name = obvious_decoder(tensors, where)
        prefix = _prefix(name)
        inside = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
        name = name.removeprefix(prefix)
        library = dictionary_learning.recognise(inside)
        if library is not None:
            weights = dictionary_learning.build(library, inside, where)
            weights = replace(weights, notes=weights.notes + _unread(tensors, inside, prefix))
        elif overcomplete.is_overcomplete(name):
            weights = overcomplete.read_overcomplete(inside, where)
        else:
            kind = _format(scalars.get("saeaudit.format"), self.name)
            weights = _plain(kind, name, inside, _k(tensors, scalars, where), where)
            if weights.encoder is not None:
                read = [n for n in inside if n == name or _is_known(n)]
                weights = replace(weights, notes=weights.notes + _unread(tensors, read, prefix))
        return Loaded(weights, (file,))


def _format(stated: Any, default: str) -> str:
    """The family that a decoder-only copy was made from, if that is what the file says."""
    is_name = isinstance(stated, str) and re.fullmatch(r"[a-z0-9_]{1,40}", stated)
    return stated if is_name else default


def _plain(kind: str, decoder: str, tensors: Tensors, k: int | None, where: str) -> Weights:
    """Assemble what the tensors' names say.

    Args:
        kind: name of the format.
        decoder: the name of its tensor; empty for the one array of an .npy file.
        tensors: without a common prefix.
        k: active features a token, where the file says so.
        where: the file, for messages.
    """
    shown = decoder or "the array"
    if len(tensors[decoder].shape) != 3:
        matrix(tensors[decoder], shown, where)
    parts = _parts(tensors, where)
    chosen = {shown: tensors[decoder], **{name: tensors[name] for name in parts.values()}}
    if "threshold" in parts:
        chosen[parts["threshold"]] = _plain_scale(tensors, parts["threshold"])
    linear = next((last for pattern, last in DECODERS if pattern.search(decoder)), False)
    architecture = _architecture(parts, k)
    centred = CENTRE in tensors
    weights = assemble(
        kind,
        where,
        chosen,
        Names((shown,), **{part: (name,) for part, name in parts.items()}),
        architecture,
        Layout(features_last=linear),
        subtract_b_dec=centred,
        k=k,
    )
    if weights.encoder is not None:
        note = assumed_note(architecture, centred=centred)
        weights = replace(
            weights, notes=(note, *weights.notes), unstated=("activation", "centring")
        )
    if len(tensors) == 1 and not linear and weights.layers is None:
        weights = replace(weights, notes=_lone_matrix(*weights.decoder.shape))
    return weights


def _parts(tensors: Tensors, where: str) -> dict[str, str]:
    """Field of `Names` → the tensor that its pattern fits; one number is no vector.

    Raises:
        WeightsError: tensors of two names fit, and differ.
    """
    parts = {}
    for part, pattern in NAMES.items():
        fitting = [
            name
            for name, stored in tensors.items()
            if re.fullmatch(pattern, name) and (stored.shape or part == "threshold")
        ]
        # Names that differ by their number alone are the layers of a network: no single matrix.
        if len(fitting) > 1 and len({re.sub(r"\.\d+\.", ".", name) for name in fitting}) == 1:
            continue
        for other in fitting[1:]:
            if not _same(tensors, fitting[0], other):
                both = f"{fitting[0]} and {other}"
                raise WeightsError(
                    f"two names for {part}: {both}, which differ",
                    where=where,
                    hint="leave one of them out of the file",
                )
        if fitting:
            parts[part] = fitting[0]
    return parts


def _plain_scale(tensors: Tensors, name: str) -> Stored:
    """A tensor, not as logarithms."""
    return exponential(tensors[name]) if name in LOGARITHMS else tensors[name]


def _same(tensors: Tensors, first: str, second: str) -> bool:
    """Whether two tensors hold the same numbers, but for the rounding of logarithms."""
    import torch

    a, b = (_comparable(_plain_scale(tensors, name).load(), name) for name in (first, second))
    if a.shape != b.shape and a.ndim == b.ndim == 2:  # an encoder whose shape tells how it lies
        b = b.T
    if a.ndim == 2 or a.shape != b.shape:  # a matrix as it is stored: copies would be large
        return a.dtype == b.dtype and torch.equal(a, b)
    a, b = (tensor.to(torch.complex128) for tensor in (a, b))  # halves of complex ones count
    return torch.allclose(a, b, rtol=1e-5, atol=0, equal_nan=True)


def _comparable(tensor: Tensor, name: str) -> Tensor:
    """Vectors without axes of length 1; nn.Linear's matrices as the others lie."""
    if max(tensor.shape, default=1) == tensor.numel():
        return tensor.reshape(-1)
    return tensor.T if name.endswith("weight") and tensor.ndim == 2 else tensor


def _listing(tensors: Tensors) -> str:
    first = [f"{name or 'array'} {list(t.shape)}" for name, t in sorted(tensors.items())[:6]]
    return ", ".join(first) + (" …" if len(tensors) > 6 else "")


def _is_known(name: str) -> bool:
    patterns = (*NAMES.values(), "k", "top_k")
    return any(re.fullmatch(pattern, name) for pattern in patterns)


def _unread(tensors: Iterable[str], read: Iterable[str], prefix: str) -> tuple[str, ...]:
    """Which tensors beside an encoder's own may mean that codes are to be had otherwise."""
    unread = sorted(set(tensors) - {prefix + name for name in read})
    return (f"in the file and not used: {', '.join(unread[:6])}",) if unread else ()


def _prefix(decoder: str) -> str:
    match = re.search(r"(?:[Ww]_dec|decoder|dictionary)", decoder)
    return decoder[: match.start()] if match else ""


def _k(tensors: Tensors, scalars: Mapping[str, Any], where: str) -> int | None:
    """Active features a token, by any of its names; texts beside the tensors say nothing."""
    numbers = {key: v for key, v in scalars.items() if isinstance(v, (int, float, complex))}
    stated = {
        key: positive(numbers, key, where) if key in numbers else stored_count(tensors, key, where)
        for key in (*tensors, *numbers)
        if key.split(".")[-1] in ("k", "top_k")
    }
    if len(set(stated.values())) > 1:
        both = ", ".join(f"{key} = {value}" for key, value in stated.items())
        raise WeightsError(
            f"two names for k: {both}", where=where, hint="leave one of them out of the file"
        )
    return next(iter(stated.values()), None)


def _architecture(parts: Mapping[str, str], k: int | None) -> Architecture:
    if "encoder" not in parts:
        return "decoder-only"
    if {"b_gate", "b_mag", "r_mag"} & parts.keys():
        return "gated"
    if k is not None:
        return "topk"
    return "jumprelu" if "threshold" in parts else "standard"


def _lone_matrix(features: int, width: int) -> tuple[str, ...]:
    if features >= width:
        return ()
    return (
        f"a lone matrix is read as [features, width]: {features} features of width {width}; "
        "transpose it if its columns are the features",
    )
