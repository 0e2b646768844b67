"""What a scan looks for."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from saeaudit.core.budget import DEFAULT, Budget
from saeaudit.errors import AuditError


@dataclass(frozen=True)
class ScanOptions:
    """What a scan looks for; see the command line's help for the same words."""

    min_cosine: float = 0.9
    """Least |cosine| of a pair, in (0, 1]."""
    max_residual: float = 0.2
    """Largest residual of a triple, in [0, 1)."""
    min_gain: float = 2.0
    """Least ratio of single residual to residual of a genuine triple, at least 1."""
    triples: tuple[tuple[int, int, int], ...] = ()
    """Triples to report whatever the thresholds."""
    include_collapsed: bool = False
    """Whether collapsed rows take part."""
    max_findings: int = 100_000
    """Most pairs, and most triples, written for an SAE; counts are exact whatever the limit."""
    screen: Literal["auto", "int8", "bf16", "fp32"] = "auto"
    """Kind of product that proposes candidates."""
    device: str = "cpu"
    """Where products run."""
    budget: Budget = field(default=DEFAULT, repr=False)
    """How much is held at once; findings do not depend on it."""

    def __post_init__(self) -> None:
        for name, value, low, high, allowed in (
            ("--min-cosine", self.min_cosine, 0.01, 1.0, "0.01 to 1"),
            ("--max-residual", self.max_residual, 0.0, 0.8, "0 to 0.8"),
            ("--min-gain", self.min_gain, 1.0, float("inf"), "1 or more"),
            ("--max-findings", self.max_findings, 0, float("inf"), "0 or more"),
        ):
            if not low <= value <= high:
                raise AuditError(f"{value} is out of range", where=name, hint=f"allowed: {allowed}")
