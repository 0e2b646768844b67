"""What a plain file's tensors leave open about its encoder, and what a user says of that.

An encoder's state dictionary need not tell whether the decoder's bias is subtracted from the input,
nor what follows the matrix. What is assumed is one note; ``--assume`` says otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from saeaudit.dictionary import Architecture, Weights
from saeaudit.errors import AuditError, WeightsError

ASSUMED = "assumed from its tensors: "
"""How the note begins where nobody has said."""
SHOWN: dict[Architecture, str] = {
    "standard": "ReLU", "jumprelu": "JumpReLU", "topk": "TopK", "gated": "gated",
    "matching_pursuit": "matching pursuit", "unknown": "linear",
}  # fmt: skip
WORDS = "centred or uncentred; relu, jumprelu, linear, topk=K or pursuit=K"
"""What ``--assume`` takes."""
ACTIVATIONS: dict[str, Architecture] = {
    "relu": "standard", "jumprelu": "jumprelu", "linear": "unknown", "topk": "topk",
    "pursuit": "matching_pursuit",
}  # fmt: skip
"""What follows the encoder's matrix, by the word for it."""
ACTIVATION = re.compile("(relu|jumprelu|linear)|(topk|pursuit)=([1-9][0-9]{0,8})", re.ASCII)


@dataclass(frozen=True)
class Assumptions:
    """What a user says of a plain file; None leaves it to the file's tensors."""

    centred: bool | None = None
    """Whether the encoder sees the activation less the decoder's bias."""
    activation: str | None = None
    """What follows the encoder's matrix, one of `ACTIVATIONS`."""
    k: int | None = None
    """Active features a token, for "topk"; steps, for "pursuit"."""


def parse_assumptions(text: str) -> Assumptions:
    """Parse words with commas between them.

    >>> parse_assumptions("centred,topk=32")
    Assumptions(centred=True, activation='topk', k=32)

    Raises:
        AuditError: another word, or two that exclude each other.
    """
    said = Assumptions()
    for word in map(str.strip, text.split(",")):
        activation = ACTIVATION.fullmatch(word)
        if word in ("centred", "uncentred") and said.centred is None:
            said = replace(said, centred=word == "centred")
        elif activation and said.activation is None:
            alone, counted, k = activation.groups()
            said = replace(said, activation=alone or counted, k=int(k) if k else None)
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
    _check(weights, said, where)
    centred = weights.subtract_b_dec if said.centred is None else said.centred
    architecture, k, reason = weights.architecture, weights.k, weights.codes_unavailable
    if said.activation is not None:
        architecture, k, reason = ACTIVATIONS[said.activation], said.k, None
    if said.activation == "linear":
        reason = "a linear encoder, whose codes may be negative"
    note = assumed_note(architecture, centred=centred, begin="assumed as --assume says: ")
    others = tuple(line for line in weights.notes if not line.startswith(ASSUMED))
    answered = {"centring": said.centred is not None, "activation": said.activation is not None}
    return replace(
        weights, architecture=architecture, k=k, subtract_b_dec=centred,
        ends_on_repeat=False, codes_unavailable=reason, notes=(*others, note),
        unstated=tuple(question for question in weights.unstated if not answered[question]),
    )  # fmt: skip


def _check(weights: Weights, said: Assumptions, where: str) -> None:
    """Refuse what does not fit the file."""
    if not weights.unstated:
        what = "has no encoder" if weights.encoder is None else f"is {weights.format}, not plain"
        raise WeightsError(
            f"{what}: nothing to assume", where=where, hint="leave --assume out, or --sae picks"
        )
    features = weights.decoder.shape[0]
    if said.k is not None and said.k > features:
        raise WeightsError(
            f"--assume {said.activation}={said.k}, but {features} features", where=where
        )
    if said.centred and weights.b_dec is None:
        raise WeightsError("--assume centred, but the file has no decoder bias", where=where)
    if said.activation == "jumprelu" and weights.threshold is None:
        raise WeightsError("--assume jumprelu, but the file has no thresholds", where=where)


def readings(weights: Weights) -> dict[str, Weights]:
    """What the file and the user leave open, answered in every way that the tensors allow.

    A TopK is among the readings where k is known: any other number would be a guess.

    Returns:
        By the words of ``--assume`` for them, as it is read first; that alone where nothing is open
        or no answer makes a difference.
    """
    activations: dict[str, Architecture] = {_word(weights): weights.architecture}
    if "activation" in weights.unstated and weights.architecture != "gated":
        activations["relu"] = "standard"
        if weights.k is not None:
            activations[f"topk={weights.k}"] = "topk"
        if weights.threshold is not None:
            activations["jumprelu"] = "jumprelu"
    centrings = [weights.subtract_b_dec]
    biased = weights.b_dec is not None and bool(weights.b_dec.any())
    if "centring" in weights.unstated and biased:
        centrings.append(not weights.subtract_b_dec)
    return {
        ",".join(filter(None, (word, "centred" if centred else "uncentred"))): replace(
            weights, architecture=architecture, subtract_b_dec=centred
        )
        for word, architecture in activations.items()
        for centred in centrings
    }


def _word(weights: Weights) -> str:
    """The word for what follows the encoder's matrix; none for gates, which are no assumption."""
    word = next((w for w, named in ACTIVATIONS.items() if named == weights.architecture), "")
    return f"{word}={weights.k}" if word in ("topk", "pursuit") else word
