"""overcomplete: the dictionary of a state dictionary; its encoders are networks the file names not.

A file holds neither the kind of SAE nor its activation or k, so codes cannot be had unless the user
says them, or thresholds show a JumpSAE. Encoders are known that are one matrix, be it the
dictionary's (tied); a file without an encoder is one of a pursuit. The rows are those that the
library has folded when it is in evaluation mode.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from saeaudit.dictionary import Weights
from saeaudit.errors import WeightsError
from saeaudit.weights.assemble import Names, assemble, exponential
from saeaudit.weights.assumptions import assumed_note
from saeaudit.weights.orient import Layout, matrix
from saeaudit.weights.tensors import FLOATS, Stored, Tensors

if TYPE_CHECKING:
    from torch import Tensor

PLAIN_ROWS, RELAXATION = "dictionary._weights", "dictionary.Relax"
FACTORS = ("dictionary.W", "dictionary.C")
MULTIPLIER = "dictionary.multiplier"
UNAVAILABLE = "overcomplete's files do not say what follows their encoder's matrix; --assume does"
NETWORK = "overcomplete's encoder is here more than a matrix and an activation"
LAYOUT = Layout(encoder_first=True)


def is_overcomplete(name: str) -> bool:
    """Whether a decoder's name is one of this library's."""
    return name in (PLAIN_ROWS, RELAXATION)


def read_overcomplete(tensors: Tensors, where: str) -> Weights:
    """Assemble the dictionary: rows, or for archetypal SAEs W C + Relax, times exp(multiplier).

    Args:
        tensors: of a state dictionary, without a common prefix.
        where: the file, for messages.

    Raises:
        WeightsError: a part is missing, or the shapes contradict each other.
    """
    decoder = _decoder(tensors, where)
    named = {"W_dec": decoder} | _encoder(tensors, decoder)
    if "W_enc" not in named or "Q" in tensors:  # a network, or levels that codes are rounded to
        return assemble(
            "overcomplete", where, named, Names(), "unknown", LAYOUT, codes_unavailable=NETWORK
        )
    jumps = "thresholds" in tensors
    if jumps:
        named["threshold"] = exponential(tensors["thresholds"])
    return assemble(
        "overcomplete", where, named, Names(), "jumprelu" if jumps else "unknown", LAYOUT,
        codes_unavailable=None if jumps else UNAVAILABLE, unstated=("activation",),
        notes=(assumed_note("jumprelu", centred=False),) if jumps else (),
    )  # fmt: skip


def _decoder(tensors: Tensors, where: str) -> Stored:
    """The rows ``[F, d]``, put together when they are loaded.

    Raises:
        WeightsError: a part is missing, or of another shape or type than the others.
    """
    name = PLAIN_ROWS if PLAIN_ROWS in tensors else RELAXATION
    rows = tensors[name]
    shape = matrix(rows, name, where)
    factors = () if name == PLAIN_ROWS else _factors(tensors, shape, where)
    multiplier = tensors.get(MULTIPLIER)
    if multiplier and (math.prod(multiplier.shape) != 1 or multiplier.dtype not in FLOATS):
        raise WeightsError(
            f"{MULTIPLIER} has shape {list(multiplier.shape)} and type "
            f"{multiplier.dtype.name}; one real number was expected",
            where=where,
        )

    def load() -> Tensor:
        loaded = rows.load()
        if factors:
            loaded = loaded + factors[0].load() @ factors[1].load()
        return loaded * multiplier.load().reshape(()).exp() if multiplier else loaded

    return Stored(rows.shape, rows.dtype, load)


def _factors(tensors: Tensors, shape: tuple[int, int], where: str) -> tuple[Stored, ...]:
    """The matrices ``[F, n]`` and ``[n, d]`` whose product an archetypal SAE's rows relax.

    Raises:
        WeightsError: one is missing, or their product has not the shape and type of the rows.
    """
    missing = [name for name in FACTORS if name not in tensors]
    if missing:
        raise WeightsError(
            f"{RELAXATION} without {' and '.join(missing)}, which its rows are made of", where=where
        )
    first, second = (matrix(tensors[name], name, where) for name in FACTORS)
    if (first[0], second[1]) != shape or first[1] != second[0]:
        raise WeightsError(
            f"{FACTORS[0]} {list(first)} times {FACTORS[1]} {list(second)} does not make the "
            f"{list(shape)} of {RELAXATION}",
            where=where,
        )
    if len({tensors[name].dtype for name in (RELAXATION, *FACTORS)}) > 1:
        raise WeightsError(
            f"{RELAXATION}, {' and '.join(FACTORS)} are of several types", where=where
        )
    return tuple(tensors[name] for name in FACTORS)


def _encoder(tensors: Tensors, decoder: Stored) -> dict[str, Stored]:
    """The encoder's matrix ``[F, d]`` and bias where these are all that precede the activation."""
    if any(name.startswith(("encoder.mlp_blocks.", "encoder.final_block.1.")) for name in tensors):
        return {}
    parts = {
        "W_enc": tensors.get("encoder.weight") or tensors.get("encoder.final_block.0.weight"),
        "b_enc": tensors.get("encoder.bias") or tensors.get("encoder.final_block.0.bias"),
    }
    encoders = [name for name in tensors if name.startswith("encoder.")]
    if all(name.startswith(("encoder.tied_to.", "encoder.bias")) for name in encoders):
        parts["W_enc"] = decoder
    return {name: stored for name, stored in parts.items() if stored is not None}
