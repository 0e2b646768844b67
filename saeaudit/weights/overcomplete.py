"""overcomplete: the dictionary of a state dictionary; its encoders are networks the file names not.

A file holds neither the kind of SAE nor its activation or k, so codes cannot be had unless the user
says them, or thresholds show a JumpSAE. Encoders are known that are one matrix, be it the
dictionary's (tied); a file without an encoder is one of a pursuit. The rows are those that the
library has folded when it is in evaluation mode.
"""

from __future__ import annotations

from torch import Tensor

from saeaudit.dictionary import Weights
from saeaudit.weights.assemble import Names, assemble, exponential
from saeaudit.weights.assumptions import assumed_note
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Stored, Tensors

PLAIN_ROWS, RELAXATION = "dictionary._weights", "dictionary.Relax"
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
        WeightsError: shapes that contradict each other.
    """
    rows = tensors.get(PLAIN_ROWS) or tensors[RELAXATION]

    def load() -> Tensor:
        loaded = rows.load()
        if PLAIN_ROWS not in tensors:
            loaded = loaded + tensors["dictionary.W"].load() @ tensors["dictionary.C"].load()
        multiplier = tensors.get("dictionary.multiplier")
        return loaded if multiplier is None else loaded * multiplier.load().exp()

    decoder = Stored(rows.shape, rows.dtype, load)
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
