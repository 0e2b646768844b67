"""What is priced, and how finely."""

from __future__ import annotations

import math
from dataclasses import dataclass

from saeaudit.audit.token_options import TokenOptions
from saeaudit.errors import AuditError
from saeaudit.vocabulary import MARGIN, MAX_CHOICES, ScoreControl


@dataclass(frozen=True)
class ScoreOptions(TokenOptions):
    """What is priced, and how finely."""

    max_tokens: int = MAX_CHOICES
    """Most activations whose shortest code is searched for; 0 for all."""
    bin_width: float | None = None
    """Common width of bins in activation space; chosen by the error where None."""
    distortion: float | None = None
    """Squared error over the variance at which codes are quantised."""
    margin: float = MARGIN
    """Bits by which the shortest code must lead to be resolved."""
    canonicalise: bool = False
    """Whether to go on exchanging while codes get shorter."""
    explain: int | None = None
    """A token to look at alone."""
    control: ScoreControl | None = None
    """The null to measure in place of the SAE, with its yardstick where it needs one."""
    device: str = "cpu"
    """Where to compute."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, value, low in (
            ("--bin-width", self.bin_width, 0.0),
            ("--distortion", self.distortion, 0.0),
            ("--margin", self.margin, -1e-300),
            ("--explain", self.explain, -1),
        ):
            if value is not None and not (low < value < math.inf):
                what = "a positive number" if low == 0 else "a number of at least 0"
                raise AuditError(f"{value} is not {what}", where=name)
        if self.control is not None and self.explain is not None:
            raise AuditError("--explain shows codes of the SAE, not of a control")
        if self.bin_width is not None and self.distortion is not None:
            raise AuditError(
                "--bin-width and --distortion both fix the width of the bins", where="--distortion"
            )
