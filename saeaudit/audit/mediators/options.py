"""What alternatives count, and how many are written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from saeaudit.audit.token_options import TokenOptions
from saeaudit.core.budget import DEFAULT, Budget
from saeaudit.errors import AuditError
from saeaudit.vocabulary import BEAM, EPSILONS, MAX_ALTERNATIVES, SWAPS, MediatorControl


@dataclass(frozen=True)
class MediatorOptions(TokenOptions):
    """What alternatives count, and how many are written."""

    epsilons: tuple[float, ...] = EPSILONS
    """Tolerances on the unsquared error, ascending."""
    min_change: float = 0.0
    """Write alternatives that differ from the refit by at least this change."""
    swaps: int = SWAPS
    """Exchanges to chain when counting."""
    beam: int = BEAM
    """Codes to go on from at each further exchange."""
    max_alternatives: int = MAX_ALTERNATIVES
    """Most alternatives written for a token and mode."""
    control: MediatorControl | None = None
    """The null to measure in place of the SAE, and its yardstick beside it."""
    device: str = "cpu"
    """Where to compute."""
    budget: Budget = field(default=DEFAULT, repr=False)
    """How much is held at once; alternatives do not depend on it."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, low, high in (
            *(("--epsilon", e, 0.0, 1.0) for e in self.epsilons),
            ("--min-change", self.min_change, 0.0, math.inf),
            ("--swaps", self.swaps, 1, 8),
            ("--beam", self.beam, 1, 1000),
            ("--max-alternatives", self.max_alternatives, 0, math.inf),
        ):
            if not low <= value <= high:
                raise AuditError(f"{value} is not in {low:g} to {high:g}", where=name)
        object.__setattr__(self, "epsilons", tuple(sorted(set(self.epsilons))))
