"""What a scan looks for."""

from __future__ import annotations

from dataclasses import dataclass, field

from saeaudit.core.budget import DEFAULT, Budget
from saeaudit.errors import AuditError
from saeaudit.vocabulary import (
    MAX_FINDINGS,
    MAX_RESIDUAL,
    MIN_COSINE,
    MIN_GAIN,
    ScreenChoice,
    Threshold,
)


@dataclass(frozen=True)
class ScanOptions:
    """What a scan looks for; see the command line's help for the same words."""

    min_cosine: float = MIN_COSINE.default
    """Least |cosine| of a pair, in (0, 1]."""
    max_residual: float = MAX_RESIDUAL.default
    """Largest residual of a triple, in [0, 1)."""
    min_gain: float = MIN_GAIN.default
    """Least ratio of single residual to residual of a genuine triple, at least 1."""
    triples: tuple[tuple[int, int, int], ...] = ()
    """Claims to answer: that f3 is beta (f2 - alpha f1), for each (f1, f2, f3)."""
    pairs: tuple[tuple[int, int], ...] = ()
    """Claims to answer: that f1 and f2 are duplicates, for each (f1, f2)."""
    include_collapsed: bool = False
    """Whether collapsed rows take part."""
    max_findings: int = MAX_FINDINGS
    """Most pairs, and most triples, written for an SAE; counts are exact whatever the limit."""
    screen: ScreenChoice = "auto"
    """Kind of product that proposes candidates."""
    device: str = "cpu"
    """Where products run."""
    budget: Budget = field(default=DEFAULT, repr=False)
    """How much is held at once; findings do not depend on it."""

    def __post_init__(self) -> None:
        for name, value, threshold in (
            ("--min-cosine", self.min_cosine, MIN_COSINE),
            ("--max-residual", self.max_residual, MAX_RESIDUAL),
            ("--min-gain", self.min_gain, MIN_GAIN),
            ("--max-findings", self.max_findings, Threshold(MAX_FINDINGS, 0)),
        ):
            if not threshold.allows(value):
                raise AuditError(
                    f"{value} is out of range", where=name, hint=f"allowed: {threshold.allowed}"
                )
        for name, claims, size in (("--triple", self.triples, 3), ("--pair", self.pairs, 2)):
            for named in claims:
                if len(named) != size:
                    raise AuditError(f"{named!r} is not {size} feature numbers", where=name)
        for claim in self.claims:
            if len(set(claim)) < len(claim):
                raise AuditError("each feature must be another", where=claim_option(claim))

    @property
    def claims(self) -> tuple[tuple[int, ...], ...]:
        """All claims to answer, each once, in ascending order of what they name."""
        return tuple(sorted({*self.triples, *self.pairs}))


def claim_option(features: tuple[int, ...]) -> str:
    """A claim as it is made on the command line.

    Example: ``claim_option((3, 14))`` is "--pair 3,14".
    """
    name = "--pair" if len(features) == 2 else "--triple"
    return f"{name} {','.join(map(str, features))}"
