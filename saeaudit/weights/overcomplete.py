"""overcomplete: the dictionary of a state dictionary; its encoders are networks the file names not.

A file holds neither the kind of SAE nor its activation, k or normalisation, so codes cannot be had.
The rows are those that the library has folded when it is in evaluation mode.
"""

from __future__ import annotations

from torch import Tensor

from saeaudit.dictionary import Weights
from saeaudit.weights.assemble import Names, assemble
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Stored, Tensors

PLAIN_ROWS, RELAXATION = "dictionary._weights", "dictionary.Relax"
UNAVAILABLE = "overcomplete's files do not say what their encoder does after its matrix"


def is_overcomplete(name: str) -> bool:
    """Whether a decoder's name is one of this library's."""
    return name in (PLAIN_ROWS, RELAXATION)


def read_overcomplete(tensors: Tensors, where: str) -> Weights:
    """Assemble the dictionary: rows, or for archetypal SAEs W C + Relax, times exp(multiplier).

    Args:
        tensors: of a state dictionary, without a common prefix.
        where: the file, for messages.

    Raises:
        WeightsError: shapes that contradict each other.
    """
    rows = tensors.get(PLAIN_ROWS) or tensors[RELAXATION]

    def load() -> Tensor:
        loaded = rows.load()
        if PLAIN_ROWS not in tensors:
            loaded = loaded + tensors["dictionary.W"].load() @ tensors["dictionary.C"].load()
        multiplier = tensors.get("dictionary.multiplier")
        return loaded if multiplier is None else loaded * multiplier.load().exp()

    named = {"W_dec": Stored(rows.shape, rows.dtype, load)}
    encoder = _encoder(tensors)
    if encoder is not None:
        named["W_enc"] = encoder
    return assemble(
        "overcomplete", where, named, Names(), "unknown", Layout(), codes_unavailable=UNAVAILABLE
    )


def _encoder(tensors: Tensors) -> Stored | None:
    """The encoder's matrix ``[F, d]`` where it is all that stands before the activation."""
    if any(name.startswith(("encoder.mlp_blocks.", "encoder.final_block.1.")) for name in tensors):
        return None
    return tensors.get("encoder.weight") or tensors.get("encoder.final_block.0.weight")
