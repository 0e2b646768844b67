"""What a plain file's tensors leave open about its encoder, and what a user says of that.

An encoder's state dictionary need not tell whether the decoder's bias is subtracted from the input,
nor what follows the matrix. What is assumed is one note; ``--assume`` says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from saeaudit.dictionary import Architecture, Weights
from saeaudit.errors import AuditError, WeightsError

ASSUMED = "assumed from its tensors: "
"""How the note begins where nobody has said."""
SHOWN: dict[Architecture, str] = {
    "standard": "ReLU", "jumprelu": "JumpReLU", "topk": "TopK", "gated": "gated",
    "unknown": "linear",
}  # fmt: skip
WORDS = "centred or uncentred; relu, linear or topk=K"
"""What ``--assume`` takes."""


@dataclass(frozen=True)
class Assumptions:
    """What a user says of a plain file; None leaves it to the file's tensors."""

    centred: bool | None = None
    """Whether the encoder sees the activation less the decoder's bias."""
    activation: Literal["relu", "linear", "topk"] | None = None
    """What follows the encoder's matrix."""
    k: int | None = None
    """Active features a token, for "topk"."""


def parse_assumptions(text: str) -> Assumptions:
    """Parse words with commas between them.

    >>> parse_assumptions("centred,topk=32")
    Assumptions(centred=True, activation='topk', k=32)

    Raises:
        AuditError: another word, or two that exclude each other.
    """
    said = Assumptions()
    for word in map(str.strip, text.split(",")):
        topk = re.fullmatch("topk=([1-9][0-9]{0,8})", word)
        if word in ("centred", "uncentred") and said.centred is None:
            said = replace(said, centred=word == "centred")
        elif word == "relu" and said.activation is None:
            said = replace(said, activation="relu")
        elif word == "linear" and said.activation is None:
            said = replace(said, activation="linear")
        elif topk and said.activation is None:
            said = replace(said, activation="topk", k=int(topk[1]))
        else:
            what = f"{word!r} in {text!r} is unknown, or contradicts another word"
            raise AuditError(what, where="--assume", hint=WORDS)
    return said


def assumed_note(architecture: Architecture, *, centred: bool, begin: str = ASSUMED) -> str:
    """How an encoder is read, in a line.

    >>> assumed_note("standard", centred=False)
    'assumed from its tensors: ReLU, input not centred'
    """
    how = "less the decoder's bias" if centred else "not centred"
    return f"{begin}{SHOWN[architecture]}, input {how}"


def assume(weights: Weights, said: Assumptions, where: str) -> Weights:
    """Read a plain file's encoder as a user says.

    Args:
        weights: as the file's tensors were read.
        said: what the user says.
        where: the file, for messages.

    Raises:
        WeightsError: the file says itself how it is read, or what is said does not fit it.
    """
    if not _is_open(weights):
        what = "has no encoder" if weights.encoder is None else f"is {weights.format}, not plain"
        raise WeightsError(
            f"{what}: nothing to assume", where=where, hint="leave --assume out, or --sae picks"
        )
    features = weights.decoder.shape[0]
    if said.k is not None and said.k > features:
        raise WeightsError(f"--assume topk={said.k}, but {features} features", where=where)
    if said.centred and weights.b_dec is None:
        raise WeightsError("--assume centred, but the file has no decoder bias", where=where)
    centred = weights.subtract_b_dec if said.centred is None else said.centred
    architecture, k, reason = weights.architecture, weights.k, weights.codes_unavailable
    if said.activation == "topk":
        architecture, k = "topk", said.k
    elif said.activation == "relu":
        architecture, k = "standard", None
    elif said.activation == "linear":
        architecture, k = "unknown", None
        reason = "a linear encoder, whose codes may be negative"
    note = assumed_note(architecture, centred=centred, begin="assumed as --assume says: ")
    others = tuple(line for line in weights.notes if not line.startswith(ASSUMED))
    return replace(
        weights, architecture=architecture, k=k, subtract_b_dec=centred,
        codes_unavailable=reason, notes=(*others, note),
    )  # fmt: skip


def other_reading(weights: Weights) -> Weights | None:
    """The same encoder with its input centred if it was not, and the reverse.

    None where the file or the user says which, or where it makes no difference.
    """
    if not _is_open(weights) or weights.b_dec is None or not bool(weights.b_dec.any()):
        return None
    return replace(weights, subtract_b_dec=not weights.subtract_b_dec)


def _is_open(weights: Weights) -> bool:
    return any(line.startswith(ASSUMED) for line in weights.notes)
