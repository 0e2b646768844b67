"""Records of `saeaudit score`: choices between codes, and one line of figures for an SAE."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from saeaudit.records.common import STRICT, Context, Interval
from saeaudit.records.mediators import Code, Skipped, Texts
from saeaudit.vocabulary import Choice, Control, Parts, WidthBy


@dataclass(frozen=True)
class Compare:
    """One measure of the reference code, of its features with other values, and of others."""

    __pydantic_config__ = STRICT

    reference: float | None
    """Of the reference code; null where one of its features was never observed."""
    support: float | None
    """Least of the codes of the same features or fewer that were searched for; null where none
    has a price, or none was searched for."""
    alternative: float | None
    """Least of the codes in which another feature is on; null where none has a price, or none was
    searched for."""


@dataclass(frozen=True)
class Pick:
    """A code, by how its features differ from those of another: a choice's from the reference's."""

    __pydantic_config__ = STRICT

    removed: tuple[int, ...]
    """Features that leave."""
    added: tuple[int, ...]
    """Features that enter."""


@dataclass(frozen=True)
class Picks:
    """What each way of choosing takes; both lists of a pick are empty for the same features."""

    __pydantic_config__ = STRICT

    mdl: Pick | None
    """Least description length; null where the reference has no price."""
    l1: Pick | None
    """Least sum of codes times decoder norms; null where it was not searched for. The codes are in
    no record: on these features, each at its threshold at least, the least at no more error."""
    l2: Pick | None
    """The same of the sum of squares."""
    error: Pick
    """Least squared error."""
    encoder: Pick | None
    """What the encoder outputs; null for an example where it outputs neither, or there is none."""


@dataclass(frozen=True)
class ChoiceRecord:
    """One activation (or one example of an exchange), its alternatives, and the canonical code."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    token: int | None
    """Index of the activation; null for an example."""
    text: str | None
    """The token's text, where given."""
    features: tuple[int, ...]
    """Examples only: the pair or triple; else empty."""
    l0: int
    """Active features of the reference code."""
    alternative_count: int
    """One-swap codes no less accurate than the reference."""
    priced: int
    """Rows that enter of which the shortest code was solved for (bounds rule the others out), or
    alternatives given."""
    bits: Compare
    """Description lengths."""
    bits_half: Compare
    """The same with bins of half the width."""
    bits_quarter: Compare
    """The same with bins of a quarter of the width."""
    joint_bits: Compare | None
    """Examples with activations: gates of its features priced by their joint on/off table."""
    gap_bits: float | None
    """What the rows that enter and were not solved for could still save: 0 is proof that none of
    them comes to a shorter code; null for codes that are given."""
    encoder_excess_bits: float | None
    """Bits of the reference beyond the shortest code's; null where it has no price."""
    support_excess_bits: float | None
    """The same of the shortest code of its features or fewer; null where none was looked for."""
    l1: Compare
    """Sums of codes times decoder norms: of the reference, and of the codes of the least sum (of
    which `picks` has the features), not of `support_codes` and `alternative`: those have the
    fewest bits."""
    l2: Compare
    """The same for the sum of squares: of the codes for which that is least."""
    chosen: Choice | None
    """The shortest code: the reference as it is ("encoder"), its features or fewer with other
    values ("support"), or one in which another feature is on ("other"); null where the reference
    has no price."""
    picks: Picks
    """What each way of choosing takes."""
    removed: tuple[int, ...]
    """What the alternative removes, the shortest code in which another feature is on."""
    added: tuple[int, ...]
    """What it adds."""
    moved: float | None
    """Share of the reference code's contribution that it removes."""
    codes: tuple[Code, ...]
    """The reference code, in the file's scale."""
    support_codes: tuple[Code, ...]
    """The shortest code of the same features or fewer, in the file's scale; empty where none was
    searched for, or has a price."""
    alternative: tuple[Code, ...]
    """The alternative, in the file's scale."""
    margin_bits: float | None
    """Bits, at the common width, between the shortest code and the next of other features, the
    reference included; null without one. Where codes are searched for none is looked for farther
    than 3 bits, or --margin if that is more: such a figure is capped, and says "at least"."""
    wins: float | None
    """Share of 40 resamples of the tokens fitted in which the same features are the shortest, the
    least over the three widths; null where nothing can be resampled."""
    resolved: bool | None
    """Whether the same features are shortest at all three widths, by more than --margin at each
    (`margin_bits` has the lead at the first alone) and in 95 % of the resamples at each (`wins`);
    null where nothing can be resampled."""
    canonical_bits: float | None
    """With --canonicalise: bits of the code reached by going on; null without a price."""
    canonical_codes: tuple[Code, ...]
    """With --canonicalise: that code, in the file's scale; else empty."""
    canonical_path: tuple[Pick, ...]
    """With --canonicalise: what left and entered at each step to it, the first from the reference;
    both lists are empty where only values change."""
    explanations: Texts | None
    """Of the features that the alternative exchanges; null without explanations."""
    disagreement: float | None
    """1 - similarity of what enters and what leaves: the mean over what leaves, weighted by what
    that contributed."""
    percentile: float | None
    """Share of random pairs of features that disagree less than that, ties counted half."""
    similarity_method: str | None
    """"semantic:<model>", "sentence-transformers:<model>", "export" or "tfidf"."""
    coverage: float | None
    """Share of the features that change which have an explanation."""
    context: Context | None = None
    """What stands around it, where activations were collected; else null."""
    type: Literal["choice"] = "choice"
    """Always "choice"."""


@dataclass(frozen=True)
class Estimate:
    """A figure with its interval of 95 %."""

    __pydantic_config__ = STRICT

    value: float
    """The figure."""
    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class IncoherentShare:
    """Incoherence where only exchanges of some weight count, and what labels give by chance."""

    __pydantic_config__ = STRICT

    moved: float
    """Least share of the code's contribution that changes hands."""
    fraction: float
    """Share of choices with such an alternative whose labels disagree beyond the level."""
    chance: Estimate
    """The same with labels permuted among features of like firing rate."""
    excess: Estimate | None
    """The difference of both; null where no choice disagrees, under no permutation either."""


@dataclass(frozen=True)
class ChosenShares:
    """Which code is the shortest: shares of the choices that have a price and an alternative."""

    __pydantic_config__ = STRICT

    encoder: Estimate | None
    """The encoder's as it is (of an example: the reference)."""
    support: Estimate | None
    """Its features or fewer, with other values; null where none was looked for (alternatives that
    come from records)."""
    other: Estimate | None
    """One in which another feature is on."""


@dataclass(frozen=True)
class Agreement:
    """On how many choices with an alternative two ways let the same feature enter, or none.

    All the features that are on are hardly ever the same, as each measure leaves out others.
    """

    __pydantic_config__ = STRICT

    l1: Estimate | None
    """Description length and least L1."""
    l2: Estimate | None
    """Description length and least L2."""
    error: Estimate | None
    """Description length and least squared error."""
    encoder: Estimate | None
    """Description length and the encoder, where the encoder's choice is known."""
    compared: int
    """Choices on which the codes of least L1 and L2 are known."""


@dataclass(frozen=True)
class Canonical:
    """Codes after repeated best exchanges at no more error (`--canonicalise`)."""

    __pydantic_config__ = STRICT

    tokens: int
    """Tokens that were searched."""
    encoder_bits_per_token: float
    """Mean bits of the encoder's codes of these."""
    bits_per_token: float
    """Mean bits of the codes found."""
    wasted_bits_per_token: float
    """The difference: what the encoder's codes waste at least."""
    mean_l0: float
    """Mean number of active features of the codes found."""
    exchanged: float
    """Mean number of steps: exchanges, removals, changes of values."""


@dataclass(frozen=True)
class DisagreementSummary:
    """How far explanations of exchanged features disagree, and what to compare that with."""

    __pydantic_config__ = STRICT

    similarity_method: str
    """"semantic:<model>", "sentence-transformers:<model>", "export" or "tfidf"."""
    explainer: str
    """Method and model that wrote the explanations compared; may be empty."""
    coverage: float
    """Share of live features that have one."""
    dropped: int
    """Texts left out: leaked reasoning, over-long, of negative activations."""
    mean: float | None
    """Mean over choices, weighted by the share of the code that changes hands."""
    p10: float | None
    """10th percentile over choices."""
    p50: float | None
    """Median over choices."""
    p90: float | None
    """90th percentile over choices."""
    random_mean: float | None
    """Mean over random pairs of features: what "unrelated" reads as."""
    self_mean: float | None
    """Mean over features with two explanations: what "the same" reads as; null where none has."""
    self_pairs: int
    """How many such features there are."""
    separation: Estimate | None
    """How often two texts on one feature are more alike than one each on two features (the area
    under the ROC curve: 0.5 is chance); null with fewer than 20 features of two explanations."""
    level: float | None
    """Disagreement beyond this counts as incoherent; null with fewer than 20 labels."""
    calibrated_by: Literal["self", "random"]
    """The 95th percentile of features with two explanations, or the median of random pairs."""


@dataclass(frozen=True)
class ScoreSummary:
    """One SAE in one line."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id."""
    fitted_on: Literal["activations", "histograms"]
    """What prices were fitted on."""
    fitted_tokens: int
    """Tokens that prices were fitted on."""
    tokens: int
    """Tokens measured, none of them fitted on; 0 with histograms."""
    drawn_by: Parts | None
    """What these were drawn by: documents where 10 or more are known, else blocks of neighbours."""
    skipped: tuple[Skipped, ...]
    """Activations that are neither measured nor fitted on (dense ones are fitted on)."""
    bits_per_token: float
    """Mean description length of the encoder's codes (with histograms: an entropy)."""
    bits_interval: Interval | None
    """Null with histograms, and with fewer than 20 tokens. It takes documents (or blocks of
    neighbours) anew, as all intervals below but incoherence's do, and is null, as they are, with
    fewer than 10 of them."""
    gate_bits: float
    """The part of it that says which features are on."""
    value_bits: float
    """The part of it that says how strongly."""
    bound_bits_per_token: float
    """L0 (value_range_bits + log2 F): every active feature named, and given a value."""
    value_range_bits: float
    """log2 of the range of values over the width of a bin."""
    bin_width: float
    """Common width of the bins in activation space (code times decoder norm)."""
    bin_width_by: WidthBy
    """--bin-width; --distortion; a share of the SAE's own error; the histograms' resolution."""
    added_error: float | None
    """What quantising really adds to the squared error, as a share of it; null without codes."""
    tail: Literal["geometric", "pareto"]
    """Shape of the pooled values' tail."""
    never_observed: int
    """Live features that never fired on the tokens fitted: they have no price."""
    low_coverage: int
    """Live features that fired, but fewer than 50 times."""
    fvu: float | None
    """Squared error over the variance of the activations; null with histograms, or no variance."""
    fvu_quantised: float | None
    """The same after quantising: what the bits buy."""
    mean_l0: float
    """Mean number of active features."""
    choices: int
    """Tokens and examples looked at, those without alternatives among them; 0 with --explain, whose
    one token has no shares."""
    non_unique_fraction: float | None
    """Share of these with an alternative no less accurate; null where it has no interval."""
    non_unique_interval: Interval | None
    """Its interval; null with fewer than 20 choices, as all figures below with an interval are."""
    resolved_fraction: float | None
    """Share of those, where alternatives are known, that description length resolves; null where
    nothing can be resampled."""
    resolved_interval: Interval | None
    """Its interval."""
    resolved_unavailable: str | None
    """Why nothing can be resampled; null where it can."""
    chosen_shares: ChosenShares | None
    """Which code is the shortest; null without alternatives."""
    mean_encoder_excess_bits: Estimate | None
    """Mean bits of the encoder's code beyond the shortest, on the same choices."""
    mean_support_excess_bits: Estimate | None
    """Mean bits of the shortest code of its features or fewer beyond the shortest."""
    proved_fraction: Estimate | None
    """Share of the choices searched on which no code one exchange away can be shorter."""
    mean_gap_bits: Estimate | None
    """Mean of the bits by which one could be."""
    agreement: Agreement | None
    """How often other ways of choosing let the same feature enter; null without alternatives."""
    canonical: Canonical | None
    """With --canonicalise."""
    disagreements: DisagreementSummary | None
    """Null without explanations."""
    incoherence: float | None
    """Share of choices with an alternative whose explanations disagree beyond the level, among
    those without alternative and those with labels to compare; says little without its chance."""
    incoherence_chance: Estimate | None
    """The same with labels permuted among features of like firing rate: mean and central 95 % of
    20 permutations."""
    incoherence_excess: Estimate | None
    """Incoherence less its chance; below 0 the features that are exchanged are more alike than
    others. Its interval takes choices anew, each time against one of the permutations; null also
    where no choice disagrees, under no permutation either."""
    incoherence_by_moved: tuple[IncoherentShare, ...]
    """All three where the alternative moves at least some share of the code."""
    incoherence_unavailable: str | None
    """Why there are none of these four; null where they are, and without explanations."""
    command: Literal["score"] = "score"
    """Always "score"."""
    control: Control | None = None
    """The null that this is of, or its yardstick ("pursuit"); null where it is of the SAE."""
    type: Literal["summary"] = "summary"
    """Always "summary"."""
