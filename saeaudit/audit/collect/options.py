"""What is collected, as options say it; checked before PyTorch is imported."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import get_args

from saeaudit.errors import AuditError
from saeaudit.vocabulary import COLLECTED, SEED, Bos, ModelDtype

COUNT = re.compile(r"(\d{1,15})(?:\.(\d{1,9}))?([kM]?)", re.ASCII)
"""A number of tokens: 250000, 100k, 1.5M."""
THOUSANDS = {"": 0, "k": 3, "M": 6}
BATCH = 8
"""Texts that a model reads at once."""
CONTEXT = 1024
"""Most tokens of a text, where nobody says and the model takes as many."""


@dataclass(frozen=True)
class CollectOptions:
    """What is collected; None where the SAE's publisher or its model says it."""

    model: str | None = None
    """An id on the hub, or a folder."""
    hook: str | None = None
    """A module's path with ``:in`` or ``:out``, or a name of TransformerLens's."""
    tokens: int = COLLECTED
    """Activations after which it is enough; 0 for those of all texts."""
    context: int | None = None
    """Most tokens of a text, those that begin and end it included."""
    bos: Bos | None = None
    """What becomes of the token that begins a text."""
    per_document: int | None = None
    """Most activations of a text, drawn at random; all where None."""
    seed: int = SEED
    """Of that draw."""
    dtype: ModelDtype = "auto"
    """What the model computes in, and activations are kept in."""
    batch: int = BATCH
    """Texts that the model reads at once."""
    drop_norm_above: float | None = None
    """Times the median norm of the first activations; larger ones are dropped."""
    device: str = "auto"
    """Where the model runs."""
    force: bool = False
    """Whether to collect what the SAE does not explain."""
    offline: bool = False
    """Whether to open no socket."""

    def __post_init__(self) -> None:
        for name, value, low in (
            ("--tokens", self.tokens, 0),
            ("--context", self.context, 2),
            ("--per-document", self.per_document, 1),
            ("--batch", self.batch, 1),
            ("--seed", self.seed, 0),
        ):
            if value is not None and not low <= value < 1 << 63:
                raise AuditError(f"{value} is not {low} or more", where=name)
        limit = self.drop_norm_above
        if limit is not None and not 1 < limit < math.inf:
            raise AuditError(
                f"{limit:g} times the median norm would drop the usual ones, too",
                where="--drop-norm-above", hint="more than 1; 10 for attention sinks",
            )  # fmt: skip
        for name, text in (("--model", self.model), ("--hook", self.hook)):
            if text is not None and not text.strip():
                raise AuditError("is empty", where=name)
        for name, word, known in (
            ("--bos", self.bos, get_args(Bos)), ("--dtype", self.dtype, get_args(ModelDtype)),
        ):  # fmt: skip
            if word is not None and word not in known:
                raise AuditError(f"{word!r} is none of {', '.join(known)}", where=name)


def parse_count(text: str, where: str) -> int:
    """A number of tokens as users write it.

    >>> parse_count("100k", ""), parse_count("1.5M", ""), parse_count("2048", "")
    (100000, 1500000, 2048)

    Raises:
        AuditError: another form.
    """
    match = COUNT.fullmatch(text)
    zeros = THOUSANDS[match[3]] - len(match[2] or "") if match else -1
    if match is None or zeros < 0:
        raise AuditError(
            f"{text[:40]!r} is no number of tokens", where=where, hint="100000, 100k or 1.5M"
        )
    return int(match[1] + (match[2] or "") + "0" * zeros)
