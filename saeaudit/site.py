"""Which activations an SAE reads, as far as its publisher says: a model, a place in it, its texts.

Readers take it from the files, releases from configs/*.yaml; `audit.collect.places` finds the
module that a hook names. Scaling is not here: the encoder does it (`Weights.input_scale`).
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

from saeaudit.vocabulary import Bos


@dataclass(frozen=True)
class Site:
    """What an SAE reads; None where nobody says."""

    model: str | None = None
    """The model's id on the hub, or TransformerLens's name for it."""
    hook: str | None = None
    """A module's path, ``layers.3.mlp:in`` or ``….output``, or a name of TransformerLens's."""
    context: int | None = None
    """Most tokens of a text."""
    bos: Bos | None = None
    """What becomes of the token that begins a text."""
    centred: bool | None = None
    """Whether what is written to the residual stream has its mean taken off, as TransformerLens
    does it to models with LayerNorm (`center_writing_weights`)."""

    def over(self, other: Site) -> Site:
        """This site, and where it does not say by another.

        >>> Site(hook="h.3").over(Site(model="gpt2", hook="h.4")).hook
        'h.3'
        """
        told: dict[str, Any] = {
            field.name: getattr(self, field.name)
            for field in fields(self)
            if getattr(self, field.name) is not None
        }
        return replace(other, **told)


UNKNOWN = Site()
"""Nobody says anything."""
