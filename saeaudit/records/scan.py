"""Records of a scan: claims, pairs, groups, triples and the summary."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saeaudit.records.common import STRICT
from saeaudit.vocabulary import Exchange, Holds, ScreenChoice, SignPattern


@dataclass(frozen=True)
class ClaimRecord:
    """The answer to a claim about features that were named, with --triple or --pair.

    All numbers are of unit rows, in the roles in which the features were named.
    """

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    features: tuple[int, ...]
    """[f1, f2, f3] of f3 = beta (f2 - alpha f1), or [f1, f2] of f2 = beta f1."""
    holds: Holds
    """"yes"; "no"; or "pair" where two of the three point the same way, or opposite ways, and that
    explains it."""
    sentence: str
    """The answer in words."""
    alpha: float | None
    """Best alpha; null for a pair, where f1 and f2 are parallel, or where beta is zero."""
    beta: float | None
    """Best beta, of either sign; null where f1 and f2 are parallel."""
    residual: float
    """Norm of what is then left of the last row (0: exactly dependent)."""
    residual_without_f1: float | None
    """The same with f2 alone; null for a pair."""
    cosines: tuple[float, ...]
    """[c12, c13, c23] of the decoder rows; of a pair [c12]."""
    encoder_cosines: tuple[float | None, ...]
    """The same of the encoder directions; null without an encoder or for a zero direction."""
    z: tuple[float, ...]
    """The code that is 1 on each feature but the last."""
    z_prime: tuple[float, ...]
    """The nearest code in which the last may be on in the place of another, by non-negative least
    squares: it is 0 where that does not help."""
    leaving: int
    """The feature that is off in `z_prime` for the last: f2, or where less is left so f1."""
    error: float | None
    """Norm of the difference of what the two decode to, over that of what z does; null where z
    decodes to zero."""
    label_disagreement: float | None = None
    """1 - similarity of the labels of the feature that leaves and of the last; null where one has
    none."""
    label_chance: float | None = None
    """Mean of the same over random pairs of features; null likewise."""
    label_percentile: float | None = None
    """Share of these that disagree less; null likewise."""
    similarity_method: str | None = None
    """How labels are compared; null likewise."""
    labels: tuple[str | None, ...] | None = None
    """What each feature's explanation says, null for one without; null where none are known."""
    urls: tuple[str | None, ...] | None = None
    """Each feature's page on Neuronpedia; null where the SAE's source is not certain."""
    firing_rates: tuple[float | None, ...] | None = None
    """Share of tokens on which each feature fires; null without --features."""
    type: Literal["claim"] = "claim"
    """Always "claim"."""


@dataclass(frozen=True)
class PairRecord:
    """Two features whose decoder rows point the same way, or opposite ways."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    features: tuple[int, int]
    """The two features, the smaller index first."""
    kind: Literal["duplicate", "antipodal"]
    """Cosine at least min_cosine, or at most -min_cosine."""
    cosine: float
    """Cosine of the decoder rows."""
    norm_ratio: float
    """Norm of the first row over that of the second."""
    encoder_cosine: float | None
    """Cosine of the two encoder directions; null without an encoder or for a zero direction."""
    labels: tuple[str | None, ...] | None = None
    """What each feature's explanation says, null for one without; null where none are known."""
    urls: tuple[str | None, ...] | None = None
    """Each feature's page on Neuronpedia; null where the SAE's source is not certain."""
    firing_rates: tuple[float | None, ...] | None = None
    """Share of tokens on which each feature fires; null without --features."""
    known: bool | None = None
    """Whether the baseline has it; null without a baseline."""
    type: Literal["pair"] = "pair"
    """Always "pair"."""


@dataclass(frozen=True)
class GroupRecord:
    """A connected component of duplicates, of three features or more."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    features: tuple[int, ...]
    """Its features, ascending."""
    size: int
    """Number of features."""
    cosine_min: float | None
    """Least cosine of a duplicate pair in the group; null where pairs were counted, not listed."""
    cosine_max: float | None
    """Largest cosine of a duplicate pair in the group; null likewise."""
    labels: tuple[str | None, ...] | None = None
    """What each feature's explanation says, null for one without; null where none are known, and
    in groups of over 10,000 features, as the two fields below."""
    urls: tuple[str | None, ...] | None = None
    """Each feature's page on Neuronpedia; null where the SAE's source is not certain."""
    firing_rates: tuple[float | None, ...] | None = None
    """Share of tokens on which each feature fires; null without --features."""
    known: bool | None = None
    """Whether the baseline has it; null without a baseline."""
    type: Literal["group"] = "group"
    """Always "group"."""


@dataclass(frozen=True)
class TripleRecord:
    """Three features of which one lies (nearly) in the plane of the other two."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    features: tuple[int, int, int]
    """[f1, f2, f3] in the roles of f3 = beta (f2 - alpha f1), nearly."""
    coefficients: tuple[float, float]
    """[a, b] with u3 = a u1 + b u2, nearly, for the unit rows."""
    alpha: float
    """-a/b."""
    residual: float
    """Distance of u3 from the plane of u1 and u2 (0: exactly dependent)."""
    single_residual: float
    """Distance of u3 from the nearer of the two lines: what one feature alone leaves, with a
    coefficient of either sign."""
    cosines: tuple[float, float, float]
    """[c12, c13, c23]."""
    pattern: SignPattern
    """Signs of the kernel vector: two against one, or three directions that cancel."""
    inner: int | None
    """For "2,1": the feature that is a positive mix of the other two; else null."""
    outer: tuple[int, ...]
    """For "2,1": the other two, ascending; else empty."""
    exchange: tuple[Exchange, Exchange, Exchange]
    """For codes on (f1, f2), (f1, f3) and (f2, f3): is there another code of the same L0?"""
    labels: tuple[str | None, ...] | None = None
    """What each feature's explanation says, null for one without; null where none are known."""
    urls: tuple[str | None, ...] | None = None
    """Each feature's page on Neuronpedia; null where the SAE's source is not certain."""
    firing_rates: tuple[float | None, ...] | None = None
    """Share of tokens on which each feature fires; null without --features."""
    known: bool | None = None
    """Whether the baseline has it; null without a baseline."""
    type: Literal["triple"] = "triple"
    """Always "triple"."""


@dataclass(frozen=True)
class ClosestPair:
    """The two live features whose decoder rows have the largest |cosine|."""

    __pydantic_config__ = STRICT

    features: tuple[int, int]
    """The two features, the smaller index first."""
    cosine: float
    """Cosine of the decoder rows."""
    encoder_cosine: float | None
    """Cosine of the two encoder directions; null without an encoder or for a zero direction."""
    labels: tuple[str | None, ...] | None = None
    """What each feature's explanation says, as in a pair."""
    urls: tuple[str | None, ...] | None = None
    """Each feature's page on Neuronpedia, as in a pair."""
    firing_rates: tuple[float | None, ...] | None = None
    """Share of tokens on which each feature fires, as in a pair."""


@dataclass(frozen=True)
class Babel:
    """Babel function: the largest sum of a feature's k largest |cosines| (Tropp 2004)."""

    __pydantic_config__ = STRICT

    k1: float
    """k = 1: the coherence."""
    k8: float
    """k = 8."""
    k32: float
    """k = 32."""


@dataclass(frozen=True)
class Quantiles:
    """Order statistics over the live features: values that occur, no averages."""

    __pydantic_config__ = STRICT

    min: float
    """Least."""
    p05: float
    """5 % of the features are at or below this."""
    p25: float
    """25 %."""
    p50: float
    """50 %."""
    p75: float
    """75 %."""
    p95: float
    """95 %."""
    p99: float
    """99 %."""
    max: float
    """Largest."""


@dataclass(frozen=True)
class MaxCosine:
    """Every live feature's largest |cosine| with another live feature."""

    __pydantic_config__ = STRICT

    quantiles: Quantiles
    """Its quantiles."""
    histogram: tuple[int, ...]
    """64 equal bins of [0, 1], the last one closed."""


@dataclass(frozen=True)
class Certificate:
    """Why nothing was missed."""

    __pydantic_config__ = STRICT

    screen: ScreenChoice
    """The screen asked for; the `run` record names the one used. Findings do not depend on it."""
    slack: float
    """No pair was passed over on an estimate further than this from its cosine."""
    edge_floor: float
    """Every |cosine| from here on was listed; below it, whole rows were computed where needed."""
    strong_floor: float
    """A genuine triple has a |cosine| of at least this: the bound of docs/mathematics.md."""


@dataclass(frozen=True)
class ScanSummary:
    """What a scan found in one SAE."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    pairs: int
    """Duplicate pairs, listed or not."""
    antipodal_pairs: int
    """Antipodal pairs, listed or not."""
    triples: int
    """Genuine triples, listed or not."""
    features_in_pairs: int
    """Features in a duplicate or antipodal pair."""
    features_in_triples: int
    """Features in a genuine triple."""
    duplicate_fraction: float
    """Share of the live features that could go: each component of duplicates but one member."""
    live_features: int
    """Features that took part."""
    dead_features: int
    """Features left out because their rows are zero or collapsed (only zero with
    --include-collapsed)."""
    dead_fraction: float
    """Share of all features that these are."""
    collapsed_fraction: float
    """Share of the rows that are finite and not zero that were left out as collapsed."""
    collapsed_doubt: str | None
    """Why collapsed rows may be features after all (--include-collapsed keeps them); or null."""
    random_control: Quantiles
    """`max_cosine` as it would be for random rows of this shape."""
    coherence: float
    """Largest |cosine| of two features."""
    welch_bound: float
    """Least coherence that this many vectors of this width can have."""
    babel: Babel
    """Babel function at 1, 8 and 32 (fewer where there are fewer features)."""
    unique_below_k: float | None
    """Codes with fewer active features are unique; near 1 in practice, where it says nothing."""
    max_cosine: MaxCosine
    """Largest |cosine| of every feature."""
    closest_pair: ClosestPair
    """The pair of features that are nearest to each other, a finding or not."""
    complete: bool
    """Whether every finding within the thresholds stands in the output."""
    certificate: Certificate
    """Why nothing was missed."""
    command: Literal["scan"] = "scan"
    """Always "scan": summaries of other commands have other fields."""
    type: Literal["summary"] = "summary"
    """Always "summary"."""
