"""Records of `saeaudit mediators`: alternative codes, tokens and the summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saeaudit.records.common import STRICT
from saeaudit.vocabulary import Mode

MOVED = (0.01, 0.05, 0.1, 0.2, 0.33)
"""Shares of a code at which summaries give the non-unique fraction."""


@dataclass(frozen=True)
class Code:
    """One active feature."""

    __pydantic_config__ = STRICT

    feature: int
    """The feature."""
    value: float
    """Its code, in the file's own scale."""


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
    """The alternative: non-negative least squares on the new support; zero codes are left out."""
    error: float
    """Squared error of the alternative."""
    reference_error: float
    """Squared error it is compared with (reconstruction: the squared norm of what is decoded)."""
    error_ratio: float | None
    """`error` over `reference_error`; null where that is zero."""
    moved: float
    """Share of the reference code's contribution (codes times decoder norms) that is removed."""
    attainable: bool | None
    """Whether every code is above its feature's threshold; null where the SAE has none."""
    valid: str | None
    """Unit examples only: "always", or the condition on the reference code's ratio."""
    features: tuple[int, ...]
    """Unit examples only: the features of the pair or triple that it comes from; else empty."""
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
    """Supports with one feature exchanged whose non-negative codes pass."""
    unsigned: int
    """The same with codes of either sign: what a linear argument would count."""


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
    alternatives: tuple[Alternatives, ...]
    """Counts for every mode and tolerance."""
    best_error_ratio: float | None
    """Least squared error of an alternative looked at over the encoder's; null where none was."""
    log2_size: float
    """Lower bound on log2 of the number of codes as accurate as the encoder's, itself included."""
    type: Literal["token"] = "token"
    """Always "token"."""


@dataclass(frozen=True)
class MovedShare:
    """Non-unique fraction when only exchanges of some weight count."""

    __pydantic_config__ = STRICT

    moved: float
    """Least share of the code's contribution that changes hands."""
    fraction: float
    """Share of tokens with such an alternative."""


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
    by_moved: tuple[MovedShare, ...]
    """The same where at least some share of the code changes hands."""
    unsigned_fraction: float
    """Share of tokens with at least one alternative, signs of codes ignored."""
    mean_alternatives: float
    """Mean number of one-swap alternatives."""
    mean_log2_size: float
    """Mean of log2 of one more than that number (or of the larger set, with --swaps)."""


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


@dataclass(frozen=True)
class EncoderSummary:
    """Codes from one encoder, compared with the SAE's own."""

    __pydantic_config__ = STRICT

    name: str
    """Where the codes came from: "encoder", "omp", "nnomp", a file or a target."""
    mean_l0: float
    """Mean number of active features."""
    fvu: float
    """Squared error over the variance of the activations."""
    fvu_refit: float
    """The same after least squares on each support."""
    support_agreement: float
    """Mean share of active features in common with the SAE's own encoder (Jaccard index)."""
    more_accurate: float
    """Share of tokens on which these codes have less error than the SAE's own encoder's."""


@dataclass(frozen=True)
class MediatorsSummary:
    """What one SAE's activations, or its dictionary alone, have in other codes."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    tokens: int
    """Activations looked at; 0 where only the dictionary was."""
    exchanges: int
    """Unit examples written, for pairs and triples of a scan."""
    mean_l0: float | None
    """Mean number of active features; null without activations, as all below."""
    fvu_encoder: float | None
    """Squared error of the encoder's codes over the variance of the activations."""
    fvu_refit: float | None
    """The same after least squares on each support."""
    refit_gap: float | None
    """Mean over tokens of refit over encoder squared error: 1 would be an encoder that does not
    shrink."""
    non_unique: tuple[NonUnique, ...]
    """For every mode and tolerance."""
    most_involved: tuple[Involved, ...]
    """The most frequent best exchanges."""
    encoders: tuple[EncoderSummary, ...]
    """The SAE's own encoder, and the others that were asked for."""
    command: Literal["mediators"] = "mediators"
    """Always "mediators"."""
    type: Literal["summary"] = "summary"
    """Always "summary"."""
