"""Which activations are looked at, as options say it; checked before PyTorch is imported."""

from __future__ import annotations

import math
from dataclasses import dataclass

from saeaudit.errors import AuditError
from saeaudit.vocabulary import MAX_TOKENS, SEED


@dataclass(frozen=True)
class TokenOptions:
    """Which activations are looked at."""

    max_tokens: int = MAX_TOKENS
    """Most activations whose alternatives are looked at; 0 for all."""
    seed: int = SEED
    """Of the draw."""
    keep_outliers: bool = False
    """Whether to look at activations of outlying norms too."""

    def __post_init__(self) -> None:
        for name, value, high in (
            ("--max-tokens", self.max_tokens, math.inf),
            ("--seed", self.seed, (1 << 63) - 1),
        ):
            if not 0 <= value <= high:
                raise AuditError(f"{value} is not in 0 to {high:g}", where=name)
