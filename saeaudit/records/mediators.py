"""Records of `saeaudit mediators`: alternative codes, tokens and the summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saeaudit.records.common import STRICT, Context, Interval
from saeaudit.vocabulary import Control, Mode, Parts, SkipReason

MOVED = (0.01, 0.05, 0.1, 0.2, 0.33)
"""Shares of a code at which a score's summary gives incoherence."""
CHANGED = (0.0, 0.05, 0.1, 0.2, 0.33, 0.5)
"""Changes of a code at which summaries give the non-unique fraction; the first is any."""


@dataclass(frozen=True)
class Code:
    """One active feature."""

    __pydantic_config__ = STRICT

    feature: int
    """The feature."""
    value: float
    """Its code, in the file's own scale."""


@dataclass(frozen=True)
class Texts:
    """What the features that change say."""

    __pydantic_config__ = STRICT

    removed: tuple[str | None, ...]
    """Explanations of the features that leave; null where there is none."""
    added: tuple[str | None, ...]
    """Explanations of the features that enter."""


@dataclass(frozen=True)
class MediatorRecord:
    """Another code with the same L0 that reconstructs no worse."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    token: int | None
    """Index of the activation; null for the unit example of a pair or triple."""
    text: str | None
    """The token's text, where given."""
    l0: int
    """Active features of the reference code."""
    mode: Mode
    """What it is measured against: the encoder's error, the least-squares error on the encoder's
    own support (both to the activation), or the encoder's reconstruction itself."""
    epsilon: float
    """The least of the tolerances given within which it passes."""
    removed: tuple[int, ...]
    """Features that leave."""
    added: tuple[int, ...]
    """Features that enter."""
    codes: tuple[Code, ...]
    """The reference code: the encoder's, by feature."""
    alternative: tuple[Code, ...]
    """The alternative: non-negative least squares on the new support. A token's has as many
    features as the reference code; a unit example's may have fewer."""
    error: float
    """Squared error of the alternative."""
    reference_error: float
    """Squared error it is compared with (reconstruction: the squared norm of what is decoded)."""
    error_ratio: float | None
    """`error` over `reference_error`; null where that is zero."""
    moved: float
    """Share of the reference code's contribution (codes times decoder norms) that is removed."""
    change: float | None
    """How far the alternative is from the refit (the non-negative least-squares codes on the
    reference's own features; in reconstruction mode, and for unit examples, the reference code):
    the sum of absolute differences of codes times decoder norms, over the refit's sum. Null where
    that is zero."""
    attainable: bool | None
    """Whether every code is above its feature's threshold; null where the SAE has none."""
    valid: str | None
    """Unit examples only: "always", or the condition on the reference code's ratio."""
    features: tuple[int, ...]
    """Unit examples only: the features of the pair or triple that it comes from; else empty."""
    explanations: Texts | None = None
    """Of the features that are exchanged; null where no explanations are known."""
    context: Context | None = None
    """What stands around it, where activations were collected; else null."""
    type: Literal["mediator"] = "mediator"
    """Always "mediator"."""


@dataclass(frozen=True)
class Alternatives:
    """How many one-swap alternatives a token has."""

    __pydantic_config__ = STRICT

    mode: Mode
    """What they are measured against."""
    epsilon: float
    """Tolerance on the unsquared error."""
    count: int
    """Supports with one feature exchanged whose non-negative least-squares codes pass and use the
    feature that enters: its code is more than 1e-9 of the norm of the refit's codes (all times
    decoder norms)."""
    attainable: bool | None
    """Whether the codes of one of them are all above their features' thresholds; null where the
    SAE has none."""
    change: float | None
    """Largest change (as in mediator records) by one of them that has as many features as the
    reference code, each above the same 1e-9; null where there is none."""
    droppable: int
    """Features that can simply go: codes of all the others pass without any in its place."""
    unsigned: int
    """Supports with one feature exchanged whose codes of either sign pass: what a linear argument
    would count."""


@dataclass(frozen=True)
class TokenRecord:
    """One activation: its errors, and how many other codes it has."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    token: int
    """Index of the activation."""
    text: str | None
    """The token's text, where given."""
    l0: int
    """Active features."""
    encoder_error: float
    """Squared error of the encoder's code."""
    refit_error: float
    """Squared error of the least-squares codes on the same support."""
    refit_change: float | None
    """How far the encoder's code is from the non-negative refit, measured as the change of an
    alternative is; null where the refit is zero."""
    alternatives: tuple[Alternatives, ...]
    """Counts for every mode and tolerance."""
    best_error_ratio: float | None
    """Least squared error of an alternative looked at over the encoder's; null where none was."""
    log2_size: float
    """Lower bound on log2 of how many different sets of at most `l0` features have codes as
    accurate as the encoder's, its own included. Exchanges that lead to the same code count once."""
    context: Context | None = None
    """What stands around it, where activations were collected; else null."""
    type: Literal["token"] = "token"
    """Always "token"."""


@dataclass(frozen=True)
class Skipped:
    """Activations that were drawn and not looked at, for one reason."""

    __pydantic_config__ = STRICT

    reason: SkipReason
    """"norm": further from the decoder's bias than 10 times the median (without --keep-outliers);
    "l0": more active features than half the width, or than can be exchanged in bounded time."""
    count: int
    """How many."""
    positions: tuple[int, ...]
    """Which; the first 100 of them."""


@dataclass(frozen=True)
class MovedShare:
    """Non-unique fraction when only exchanges of some weight count."""

    __pydantic_config__ = STRICT

    moved: float
    """Least share of the code's contribution that changes hands."""
    fraction: float
    """Share of tokens with such an alternative."""


@dataclass(frozen=True)
class ChangeShare:
    """Non-unique fraction when only alternatives that differ enough count."""

    __pydantic_config__ = STRICT

    change: float
    """Least change of the code."""
    fraction: float
    """Share of tokens with such an alternative, of as many features as the encoder's code."""
    interval: Interval | None
    """Its interval, as that of `non_unique_fraction`."""


@dataclass(frozen=True)
class NonUnique:
    """Ambiguity over all tokens, for one mode and tolerance."""

    __pydantic_config__ = STRICT

    mode: Mode
    """What alternatives are measured against."""
    epsilon: float
    """Tolerance on the unsquared error."""
    non_unique_fraction: float
    """Share of tokens with at least one alternative."""
    non_unique_interval: Interval | None
    """Its interval, by taking documents (or blocks of neighbours) anew; null with fewer than 10 of
    them, or fewer than 20 tokens, as the others here are."""
    attainable_fraction: float | None
    """Share of tokens with at least one whose codes are all above their features' thresholds: what
    the SAE's encoder could have output; null where it has none."""
    attainable_interval: Interval | None
    """Its interval."""
    by_change: tuple[ChangeShare, ...]
    """Shares of tokens with an alternative of as many features as the encoder's code that differs
    from the refit by at least so much; by at least 0, that has one at all. Where the refit leaves
    several of the encoder's features unused there are few."""
    droppable_fraction: float
    """Share of tokens of which at least one feature can simply go: codes of all the others pass."""
    mean_droppable: float
    """Mean number of such features."""
    unsigned_fraction: float
    """Share of tokens with at least one alternative, signs of codes ignored."""
    mean_alternatives: float
    """Mean number of one-swap alternatives."""
    alternatives_interval: Interval | None
    """Its interval."""
    mean_log2_size: float
    """Mean lower bound on log2 of the number of different sets of features, the encoder's own
    included (a larger set with --swaps)."""


@dataclass(frozen=True)
class Involved:
    """A pair of features that often stand in for each other."""

    __pydantic_config__ = STRICT

    removed: int
    """The feature that leaves."""
    added: int
    """The best one to enter in its place."""
    tokens: int
    """Tokens on which this is the best exchange for the removed feature, in accuracy mode."""
    explanations: Texts | None = None
    """Of both; null where no explanations are known."""


@dataclass(frozen=True)
class EncoderSummary:
    """Codes from one encoder, compared with the SAE's own."""

    __pydantic_config__ = STRICT

    name: str
    """Where the codes came from: "encoder", "omp", "nnomp", a file or a target."""
    mean_l0: float
    """Mean number of active features."""
    fvu: float | None
    """Squared error over the variance of the activations; null where they do not vary."""
    fvu_refit: float | None
    """The same after least squares on each support."""
    support_agreement: float
    """Mean share of active features in common with the SAE's own encoder (Jaccard index)."""
    more_accurate: float
    """Share of tokens on which these codes have less squared error than the SAE's own encoder's, by
    more than a thousandth of it: codes that were kept in 16 or 32 bits differ by less."""


@dataclass(frozen=True)
class MediatorsSummary:
    """What one SAE's activations, or its dictionary alone, have in other codes."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    tokens: int
    """Activations looked at; 0 where only the dictionary was."""
    drawn_by: Parts | None
    """What these were drawn by: documents where 10 or more are known, else blocks of neighbours."""
    skipped: tuple[Skipped, ...]
    """Activations drawn and not looked at."""
    exchanges: int
    """Unit examples written, for pairs and triples of a scan."""
    mean_l0: float | None
    """Mean number of active features; null without activations, as all below."""
    fvu_encoder: float | None
    """Squared error of the encoder's codes over the variance of the activations; null also where
    they do not vary."""
    fvu_refit: float | None
    """The same after least squares on each support."""
    refit_gap: float | None
    """Mean over tokens of refit over encoder squared error: 1 would be an encoder that does not
    shrink."""
    mean_refit_change: float | None
    """Mean over tokens of how far the encoder's code is from the non-negative refit: what changes
    of alternatives are to be compared with."""
    non_unique: tuple[NonUnique, ...]
    """For every mode and tolerance."""
    most_involved: tuple[Involved, ...]
    """The most frequent best exchanges."""
    encoders: tuple[EncoderSummary, ...]
    """The SAE's own encoder, and the others that were asked for."""
    command: Literal["mediators"] = "mediators"
    """Always "mediators"."""
    control: Control | None = None
    """The null that this is of, or its yardstick ("pursuit"); null where it is of the SAE."""
    type: Literal["summary"] = "summary"
    """Always "summary"."""
