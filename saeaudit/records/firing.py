"""Records of how the features of a finding fire, written by mediators and score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saeaudit.records.common import STRICT, Interval
from saeaudit.records.mediators import Code
from saeaudit.vocabulary import Parts


@dataclass(frozen=True)
class Magnitudes:
    """How strong a feature's codes are where it fires."""

    __pydantic_config__ = STRICT

    bin_width: float | None
    """Width of a bin, in the file's own scale: a fiftieth of the least power of two above every
    code; null where the feature never fires."""
    counts: tuple[int, ...]
    """Tokens in each of 50 bins, the first of which begins at 0; empty where it never fires."""


@dataclass(frozen=True)
class Typical:
    """A code on all but one of the features, and the nearest one in which that one is on.

    Of the patterns in which all but one are on, the one of the most tokens counts among those that
    have such an exchange.
    """

    __pydantic_config__ = STRICT

    tokens: int
    """Tokens on which these features of the finding are on, and the other is not."""
    codes: tuple[Code, ...]
    """z: each feature's mean code on these tokens, in the file's own scale."""
    alternative: tuple[Code, ...]
    """z': the code >= 0 nearest to z with the feature that was off in place of another: least
    squares, by the decoder's rows."""
    difference: float | None
    """Norm of the difference of what the two decode to, over that of what z does."""
    bits: float | None
    """What z adds to the description length of a token on which none of the features is on: gates
    and values, each feature by itself; null where a feature has no price, and from mediators,
    which has no prices."""
    alternative_bits: float | None
    """The same of z'."""


@dataclass(frozen=True)
class FiringRecord:
    """How often the features of a pair or triple fire, alone and together, and how strongly."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    features: tuple[int, ...]
    """The features, in the order of their finding."""
    tokens: int
    """Activations whose codes were counted."""
    drawn_by: Parts
    """What is drawn anew for intervals: documents where 10 or more are known, else blocks of
    neighbours."""
    rates: tuple[float, ...]
    """Share of the tokens on which each feature fires."""
    rate_intervals: tuple[Interval | None, ...]
    """Their intervals; null where the feature never fires, or fires in so few documents (or blocks)
    that some resample has none of it, and with fewer than 10 of them, or fewer than 20 tokens."""
    patterns: tuple[int, ...]
    """Tokens by which of the features are on: number b counts those on which the p-th feature is on
    for each bit p of b, and no other. The last counts those on which all are."""
    together: float
    """Share of the tokens on which all fire."""
    together_interval: Interval | None
    """Its interval; null as above, and where they never fire together."""
    together_chance: float
    """What `together` would be if they fired independently: the product of their rates."""
    ratio: float | None
    """`together` over that; null where one never fires. At 1 they have nothing to do with each
    other, below 1 one fires where the other does not."""
    ratio_interval: Interval | None
    """Its interval."""
    magnitudes: tuple[Magnitudes, ...]
    """Of each feature."""
    typical: Typical | None
    """Two codes to compare; null where no token has all but one of the features on, or no exchange
    is possible there."""
    labels: tuple[str | None, ...] | None = None
    """What each feature's explanation says, as in the finding."""
    type: Literal["firing"] = "firing"
    """Always "firing"."""
