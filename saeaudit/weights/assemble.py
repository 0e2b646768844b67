"""From stored tensors to `Weights`: a family names its tensors, this does the rest."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, TypeGuard

from saeaudit.dictionary import Architecture, Weights
from saeaudit.errors import WeightsError
from saeaudit.untrusted import finite, whole
from saeaudit.weights.dtypes import DTYPES
from saeaudit.weights.orient import Layout, orient
from saeaudit.weights.tensors import Stored, Tensors

if TYPE_CHECKING:
    from torch import Tensor


class Names(NamedTuple):
    """Names of one family's tensors; the first that is there is taken."""

    decoder: tuple[str, ...] = ("W_dec", "w_dec")
    encoder: tuple[str, ...] = ("W_enc", "w_enc")
    b_enc: tuple[str, ...] = ("b_enc",)
    b_dec: tuple[str, ...] = ("b_dec",)
    threshold: tuple[str, ...] = ("threshold",)
    b_gate: tuple[str, ...] = ("b_gate",)
    b_mag: tuple[str, ...] = ("b_mag",)
    r_mag: tuple[str, ...] = ("r_mag",)


TRANSCODER_NOTE = "a transcoder: its decoder writes to another space than its encoder reads"
TRANSPOSED = ("W_enc", "w_enc", "W_E")
"""Names of encoders that are stored [d, F] beside an nn.Linear decoder, too."""
EXPECTS_SCALED = "the encoder expects activations scaled to a mean norm of sqrt(d)"

LINEAR = Names(
    decoder=("decoder.weight", "decoder_linear.weight"),
    encoder=("encoder.weight", "encoder_linear.weight"),
    b_enc=("encoder.bias", "encoder_linear.bias"),
    b_dec=("b_dec", "bias", "decoder_bias", "decoder.bias", "decoder_linear.bias"),
    b_gate=("gate_bias",),
    b_mag=("mag_bias",),
)
"""nn.Linear layers: the decoder is stored [d, F], the encoder [F, d]."""


def assemble(
    family: str,
    where: str,
    tensors: Tensors,
    names: Names,
    architecture: Architecture,
    layout: Layout,
    **fields: Any,
) -> Weights:
    """Orient and check one SAE's tensors.

    Args:
        family: the format's name.
        where: the file, for messages.
        tensors: what the file holds.
        names: how the family calls them.
        architecture: the encoder's formula; "decoder-only" replaces it where no encoder is there.
        layout: what the family and its configuration say about the shapes.
        **fields: further fields of `Weights`. That it is a transcoder is added to its notes.

    Raises:
        WeightsError: no decoder, or shapes that contradict each other.
    """
    name = next((n for n in names.decoder if n in tensors), None)
    if name is None:
        present = ", ".join(sorted(tensors)[:8]) or "nothing"
        raise WeightsError(f"no {names.decoder[0]}; it has {present}", where=where)
    shape = tensors[name].shape
    vectors = {
        field: vector(tensors, getattr(names, field))
        for field in ("b_enc", "b_dec", "b_gate", "b_mag", "r_mag")
    }
    threshold = vector(tensors, names.threshold)
    settled = _settled(layout, shape, vectors | {"threshold": threshold})
    encoder = next((n for n in names.encoder if n in tensors), None)
    if encoder and encoder.endswith("weight"):  # nn.Linear's
        settled = settled._replace(encoder_first=True)
    elif encoder in TRANSPOSED and name.endswith("weight") and layout.encoder_first is None:
        settled = settled._replace(encoder_first=False)
    stored = tensors[encoder] if encoder else None
    oriented = orient(tensors[name], stored, settled, name, where)
    if threshold is not None and threshold.numel() == 1:  # shared by all features
        threshold = threshold.reshape(()).expand(oriented.features)
    cross_layer = len(shape) == 3
    if cross_layer:
        vectors["b_dec"] = None  # one bias a layer, or of one layer only
    weights = Weights(
        format=family,
        decoder=oriented.decoder(),
        architecture=architecture if oriented.encoder else "decoder-only",
        encoder=oriented.encoder,
        threshold=threshold,
        maps_elsewhere=layout.maps_elsewhere,
        b_enc=vectors["b_enc"],
        b_dec=vectors["b_dec"],
        b_gate=vectors["b_gate"],
        b_mag=vectors["b_mag"],
        r_mag=vectors["r_mag"],
        **fields,
    )
    if layout.maps_elsewhere and not cross_layer:
        weights = replace(weights, notes=(*weights.notes, TRANSCODER_NOTE))
    return replace(weights, notes=(*weights.notes, *oriented.notes))


def _settled(
    layout: Layout, shape: tuple[int, ...], vectors: Mapping[str, Tensor | None]
) -> Layout:
    """The layout, where a configuration is silent by the lengths of the vectors."""
    lengths = [len(v) for v in (vectors["b_enc"], vectors["threshold"]) if _is_per_feature(v)]
    gate = vectors["b_gate"]
    if _is_per_feature(gate) and len(gate) in shape:  # validation names one of another length
        lengths.append(len(gate))
    bias = vectors["b_dec"]
    layers = None
    if bias is not None and len(shape) == 3 and bias.shape[1:] == shape[2:]:
        layers = len(bias)
    return layout._replace(
        layers=layers,
        features=layout.features or next(iter(lengths), None),
        width=layout.width or _length(vectors["b_dec"], cross_layer=len(shape) == 3),
    )


def vector(tensors: Tensors, names: tuple[str, ...]) -> Tensor | None:
    """The first of the named tensors that is there; axes of length 1 are dropped from a vector."""
    stored = next((tensors[name] for name in names if name in tensors), None)
    if stored is None:
        return None
    loaded = stored.load()
    flat = loaded.ndim > 1 and max(loaded.shape) == loaded.numel()
    return loaded.reshape(-1) if flat else loaded


def exponential(logarithms: Stored) -> Stored:
    """Thresholds that are stored as logarithms."""
    return Stored(logarithms.shape, logarithms.dtype, lambda: logarithms.load().exp())


def constant(number: float) -> Stored:
    """A number from a configuration, as if it were stored beside the weights."""

    def load() -> Tensor:
        import torch

        return torch.tensor(number)

    return Stored((), DTYPES["float32"], load)


def _is_per_feature(value: Tensor | None) -> TypeGuard[Tensor]:
    """Whether it is a vector; one number alone may be shared by all features."""
    return value is not None and value.ndim == 1 and len(value) > 1


def _length(value: Tensor | None, *, cross_layer: bool) -> int | None:
    return len(value) if value is not None and value.ndim == 1 and not cross_layer else None


def scalar(tensors: Tensors, name: str) -> float | None:
    """A stored real number that is finite, or None."""
    stored = tensors.get(name)
    if stored is None or stored.dtype.is_complex or math.prod(stored.shape) != 1:
        return None
    return finite(stored.load().reshape(()).item())


def stored_count(tensors: Tensors, name: str, where: str) -> int | None:
    """A stored whole number, of any dtype and of shape [] or [1]; None where it is absent.

    Raises:
        WeightsError: something else stands there.
    """
    stored = tensors.get(name)
    if stored is None:
        return None
    number = whole(scalar(tensors, name))
    if number is None:
        held = stored.load()
        shown = repr(held.item()) if held.numel() == 1 else f"of shape {list(held.shape)}"
        raise WeightsError(f"{name} is {shown}; a whole number was expected", where=where)
    return number


def positive(config: Mapping[str, Any], key: str, where: str) -> int | None:
    """A positive whole number from a configuration, or None where it is absent.

    Raises:
        WeightsError: something else stands there.
    """
    value = config.get(key)
    if value is None:
        return None
    number = whole(value)
    if number is None:
        raise WeightsError(f"{key} is {value!r}; a whole number was expected", where=where)
    if number < 1:
        raise WeightsError(f"{key} is {value!r}; it must be at least 1", where=where)
    return number


def number_of(config: Mapping[str, Any], key: str, where: str) -> float:
    """A finite number above zero from a configuration.

    Raises:
        WeightsError: it is absent or something else.
    """
    number = finite(config.get(key))
    if number is None:
        raise WeightsError(f"{key} is {config.get(key)!r}; a number was expected", where=where)
    if number <= 0:
        raise WeightsError(f"{key} is {number!r}; it must be above zero", where=where)
    return number


def multiplied(config: Mapping[str, Any], width: str, where: str) -> int | None:
    """The number of features as a width times `expansion_factor`; None where one is absent.

    Raises:
        WeightsError: one of them is no number, or the product is not whole.
    """
    if config.get(width) is None or not config.get("expansion_factor"):
        return None
    product = number_of(config, width, where) * number_of(config, "expansion_factor", where)
    return positive({f"{width} * expansion_factor": product}, f"{width} * expansion_factor", where)
