"""Bringing a file's tensors into saeaudit's orientation: W_dec [F, d], W_enc [d, F].

The decoder of a file for several layers is brought into the form [F, L, d].

Nothing is guessed from which axis is longer. The name of the tensor says how the family stores
it; the lengths of the biases must agree, and where they contradict the name they win only if they
settle it. What cannot be settled is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from saeaudit.errors import WeightsError
from saeaudit.weights.tensors import FLOATS, Stored

if TYPE_CHECKING:
    from torch import Tensor

ASSUMED_LAYERS = "assumed: {} {} is [layers, features, d], as there are more features than layers"
ASSUMED_ENCODER = (
    "assumed: the square encoder [{}, {}] is [d, F], as its name says; "
    "{} [d, F] would have one [F, d] beside it"
)


class Layout(NamedTuple):
    """What is known of an SAE's shapes before its decoder is looked at."""

    features: int | None = None
    """F, from a configuration or the length of a vector of one number a feature."""
    width: int | None = None
    """d of a decoder row, from a configuration or the decoder's bias."""
    features_last: bool = False
    """What the tensor's name implies: [d, F] (nn.Linear) rather than [F, d]."""
    maps_elsewhere: bool = False
    """Whether the encoder may read a space of another width (transcoders)."""
    encoder_first: bool | None = None
    """Whether the encoder is stored [F, d] whatever the decoder is, which settles a square one;
    None: transposed to the decoder."""
    layers: int | None = None
    """L, from a decoder's bias of each layer."""
    layers_second: bool = False
    """Whether the family stores a decoder of several layers as [F, L, d]."""


@dataclass(frozen=True)
class Oriented:
    """A decoder and encoder whose orientation is settled."""

    features: int
    """F."""
    width: int
    """d, the length of a decoder row."""
    decoder: Callable[[], Tensor]
    """Returns ``[F, d]``, or ``[F, L, d]`` where it is of several layers."""
    encoder: Callable[[], Tensor] | None
    """Returns ``[d_in, F]``."""
    notes: tuple[str, ...] = ()
    """What was assumed."""


def matrix(stored: Stored, name: str, where: str) -> tuple[int, int]:
    """Shape of a stored matrix of floats.

    Raises:
        WeightsError: not two axes, or not a float type saeaudit reads.
    """
    if len(stored.shape) != 2:
        raise WeightsError(
            f"{name} has shape {list(stored.shape)}; a matrix [F, d] was expected", where=where
        )
    _check_floats(stored, name, where)
    return stored.shape[0], stored.shape[1]


def _check_floats(stored: Stored, name: str, where: str) -> None:
    if stored.dtype not in FLOATS:
        raise WeightsError(
            f"{name} has dtype {stored.dtype.name}",
            where=where,
            hint="known: float32, float16, bfloat16, float64",
        )
    if 0 in stored.shape:
        raise WeightsError(f"{name} is empty: shape {list(stored.shape)}", where=where)


def orient(
    decoder: Stored, encoder: Stored | None, layout: Layout, name: str, where: str
) -> Oriented:
    """Settle which axis of the decoder counts features.

    Args:
        decoder: the decoder as stored.
        encoder: the encoder as stored, or None.
        layout: what else is known of the shapes.
        name: of the decoder tensor, for messages.
        where: the file, for messages.

    Raises:
        WeightsError: the shapes contradict each other.
    """
    if len(decoder.shape) == 3:
        return _orient_layers(decoder, encoder, layout, name, where)
    shape = matrix(decoder, name, where)
    options = [
        last
        for last in (layout.features_last, not layout.features_last)
        if layout.features in (None, shape[last]) and layout.width in (None, shape[not last])
    ]
    if not options:
        raise WeightsError(
            f"{name} has shape {list(shape)}, which fits neither way round: per-feature vectors "
            f"have length {layout.features}, the decoder bias {layout.width}",
            where=where,
        )
    last = options[0]
    features, width = shape[last], shape[not last]

    def rows() -> Tensor:
        loaded = decoder.load()
        return loaded.T.contiguous() if last else loaded

    settled = layout._replace(features=features, width=width, features_last=last)
    alike = encoder is not None and features == width and last and layout.encoder_first is False
    notes = (ASSUMED_ENCODER.format(features, width, name),) if alike else ()
    return Oriented(features, width, rows, _encoder(encoder, settled, where), notes)


def _orient_layers(
    decoder: Stored, encoder: Stored | None, layout: Layout, name: str, where: str
) -> Oriented:
    """A cross-layer decoder, whose order `_features_first` settles.

    An encoder for each layer is left out: no layer's codes come from its matrix alone.
    """
    _check_floats(decoder, name, where)
    first, second, width = decoder.shape
    counts = [n for n in (first, second) if layout.features in (None, n)]
    if not counts or layout.width not in (None, width):
        raise WeightsError(
            f"{name} has shape {list(decoder.shape)}, which is neither [F, layers, d] nor "
            f"[layers, F, d]: there are {layout.features} features of width {layout.width or 'd'}",
            where=where,
        )
    features_first = _features_first(decoder, encoder, layout, name, where)
    notes: tuple[str, ...] = ()
    if features_first is None:
        features_first = first > second
        notes = () if features_first else (ASSUMED_LAYERS.format(name, list(decoder.shape)),)

    def rows() -> Tensor:
        loaded = decoder.load()
        return loaded if features_first else loaded.transpose(0, 1)

    features = first if features_first else second
    shared = encoder if encoder and len(encoder.shape) == 2 else None
    settled = layout._replace(features=features, width=width, features_last=False)
    return Oriented(features, width, rows, _encoder(shared, settled, where), notes)


def _features_first(
    decoder: Stored, encoder: Stored | None, layout: Layout, name: str, where: str
) -> bool | None:
    """Whether a decoder is [F, L, d] rather than [L, F, d]; None where only the lengths may tell.

    Vectors of one number a feature settle it, then the family, then an encoder or the bias of
    each layer.

    Raises:
        WeightsError: these contradict each other, or there are as many layers as features.
    """
    first, second, width = decoder.shape
    if layout.features is not None and first != second:
        return layout.features == first
    if layout.layers_second:
        return True
    if first == second:
        raise WeightsError(
            f"{name} has shape {list(decoder.shape)}, which may be [F, layers, d] or "
            "[layers, F, d]: there are as many layers as features",
            where=where,
        )
    lengths = [
        {n for n in (first, second) if encoder and _may_count_features(n, encoder, width, layout)},
        {n for n in (first, second) if layout.layers == first + second - n},
    ]
    settled = {n for one in lengths if len(one) == 1 for n in one}
    if len(settled) > 1:
        raise WeightsError(
            f"{name} has shape {list(decoder.shape)}, and its encoder and its bias contradict each "
            f"other: there are {first} features for one and {second} for the other",
            where=where,
        )
    return settled == {first} if settled else None


def _may_count_features(count: int, encoder: Stored, width: int, layout: Layout) -> bool:
    """Whether an encoder is one of so many features: [F, d], [d, F], or [L, d, F] for each layer.

    One of three axes that ends with the width has the order of its decoder, and tells nothing.
    """
    if len(encoder.shape) == 3:
        return encoder.shape[1] == width and encoder.shape[2] == count
    return _fits(encoder.shape, count, width, layout)


def _fits(shape: tuple[int, ...], features: int, width: int, layout: Layout) -> bool:
    """Whether an encoder's matrix and a decoder belong together."""
    return features in shape if layout.maps_elsewhere else set(shape) == {features, width}


def _encoder(stored: Stored | None, decoder: Layout, where: str) -> Callable[[], Tensor] | None:
    """What loads the encoder as ``[d_in, F]``, its orientation settled by the decoder's."""
    if stored is None:
        return None
    shape, features, width = matrix(stored, "the encoder", where), decoder.features, decoder.width
    if features is None or width is None or not _fits(shape, features, width, decoder):
        raise WeightsError(
            f"the encoder {list(shape)} and the decoder of {features} features x {width} do not "
            "belong together",
            where=where,
        )
    # Pairs are stored transposed to each other, but for those of which the family says otherwise.
    first = decoder.features_last if decoder.encoder_first is None else decoder.encoder_first
    feature_first = first if shape[0] == shape[1] else shape[0] == features
    return (lambda: stored.load().T) if feature_first else stored.load
