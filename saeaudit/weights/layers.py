"""Cross-layer decoders [F, L, d]: each layer's rows are a dictionary of their own."""

from __future__ import annotations

from dataclasses import replace

from saeaudit.dictionary import Weights

NOTE = "layer {layer} (from 0) of a decoder [{features}, {layers}, {width}] that writes to several"
UNAVAILABLE = "a cross-layer decoder: a code stands for rows in every layer, not in this one alone"


def take_layer(weights: Weights, layer: int) -> Weights:
    """The rows of one layer ``[F, d]``, which have no codes; a view, so that nothing is copied.

    Args:
        weights: of a cross-layer decoder ``[F, L, d]``.
        layer: from 0, below L.
    """
    features, layers, width = weights.decoder.shape
    note = NOTE.format(layer=layer, features=features, layers=layers, width=width)
    return replace(
        weights, decoder=weights.decoder[:, layer], codes_unavailable=UNAVAILABLE,
        notes=(*weights.notes, note),
    )  # fmt: skip
