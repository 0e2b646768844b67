"""Bringing a file's tensors into saeaudit's orientation: W_dec [F, d], W_enc [d, F].

Nothing is guessed from which axis is longer. The name of the tensor says how the family stores
it; the lengths of the biases must agree, and where they contradict the name they win only if they
settle it. What cannot be settled is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from saeaudit.errors import WeightsError
from saeaudit.weights.tensors import FLOATS, Stored


@dataclass(frozen=True)
class Oriented:
    """A decoder and encoder whose orientation is settled."""

    features: int
    """F."""
    width: int
    """d, the length of a decoder row."""
    decoder: Callable[[], Tensor]
    """Returns ``[F, d]``."""
    encoder: Callable[[], Tensor] | None
    """Returns ``[d_in, F]``."""


def matrix(stored: Stored, name: str, where: str) -> tuple[int, int]:
    """Shape of a stored matrix of floats.

    Raises:
        WeightsError: not two axes, or not a float type saeaudit reads.
    """
    if len(stored.shape) != 2:
        raise WeightsError(
            f"{name} has shape {list(stored.shape)}; a matrix [F, d] was expected", where=where
        )
    if stored.dtype not in FLOATS:
        raise WeightsError(
            f"{name} has dtype {str(stored.dtype).removeprefix('torch.')}",
            where=where,
            hint="known: float32, float16, bfloat16, float64",
        )
    if 0 in stored.shape:
        raise WeightsError(f"{name} is empty: shape {list(stored.shape)}", where=where)
    return stored.shape[0], stored.shape[1]


def orient(
    decoder: Stored,
    encoder: Stored | None,
    *,
    features_last: bool,
    feature_length: int | None,
    width_length: int | None,
    name: str,
    where: str,
    maps_elsewhere: bool = False,
) -> Oriented:
    """Settle which axis of the decoder counts features.

    Args:
        decoder: the decoder as stored.
        encoder: the encoder as stored, or None.
        features_last: what the tensor's name implies: [d, F] (nn.Linear) rather than [F, d].
        feature_length: length of a per-feature vector of the file (b_enc, threshold), if any.
        width_length: length of b_dec, if any.
        name: of the decoder tensor, for messages.
        where: the file, for messages.
        maps_elsewhere: whether the encoder may read a space of another width (transcoders).

    Raises:
        WeightsError: the shapes contradict each other.
    """
    shape = matrix(decoder, name, where)
    options = [
        last
        for last in (features_last, not features_last)
        if feature_length in (None, shape[last]) and width_length in (None, shape[not last])
    ]
    if not options:
        raise WeightsError(
            f"{name} has shape {list(shape)}, which fits neither way round: per-feature vectors "
            f"have length {feature_length}, the decoder bias {width_length}",
            where=where,
        )
    last = options[0]
    features, width = shape[last], shape[not last]

    def rows() -> Tensor:
        loaded = decoder.load()
        return loaded.T.contiguous() if last else loaded

    return Oriented(
        features, width, rows, _encoder(encoder, (features, width), last, maps_elsewhere, where)
    )


def _encoder(
    encoder: Stored | None, decoder: tuple[int, int], last: bool, maps_elsewhere: bool, where: str
) -> Callable[[], Tensor] | None:
    if encoder is None:
        return None
    stored, (features, width) = encoder, decoder
    shape = matrix(stored, "the encoder", where)
    if features not in shape if maps_elsewhere else sorted(shape) != sorted(decoder):
        raise WeightsError(
            f"the encoder {list(shape)} and the decoder of {features} features x {width} do not "
            "belong together",
            where=where,
        )
    # nn.Linear pairs are stored [F, d] where the decoder is [d, F]; W_enc is [d, F].
    feature_first = last if shape[0] == shape[1] else shape[0] == features
    return (lambda: stored.load().T) if feature_first else stored.load
