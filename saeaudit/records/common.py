"""Records that every command may write: the run, the dictionary, what went wrong, the verdict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from saeaudit.vocabulary import Control, ScreenName

SCHEMA = "saeaudit/2"
"""Version of the record format."""

STRICT = {"extra": "forbid", "strict": True, "use_attribute_docstrings": True}


@dataclass(frozen=True)
class Interval:
    """A bootstrap confidence interval of 95 %."""

    __pydantic_config__ = STRICT

    low: float
    """Lower end."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class Context:
    """What stands around a token in its document: a few tokens, as far as they are known."""

    __pydantic_config__ = STRICT

    before: str
    """Text before it."""
    after: str
    """Text behind it."""


@dataclass(frozen=True)
class Predicted:
    """Seconds that a search was expected to take by each kind of product."""

    __pydantic_config__ = STRICT

    fp32: float
    """float32."""
    bf16: float | None = None
    """bfloat16; null where the device has no such products, or they would round too much."""
    int8: float | None = None
    """Integers of 8 bits; null likewise."""


@dataclass(frozen=True)
class ScreenCost:
    """The kind of product that an SAE's rows were screened by, and what that took."""

    __pydantic_config__ = STRICT

    sae: str
    """Id of the SAE."""
    screen: ScreenName
    """Kind of product."""
    seconds: float
    """What the search took, from the rows to the last figure of the summary."""
    predicted: Predicted | None
    """What it was expected to take; null where the kind was named, or the SAE is small."""


@dataclass(frozen=True)
class CollectedRecord:
    """A folder of activations that was collected, as its manifest describes it."""

    __pydantic_config__ = STRICT

    folder: str
    """As it was named."""
    model: str
    """The model's id on the hub, or its folder."""
    revision: str
    """Commit of the model's repository; ``sha256:…`` of a folder's files."""
    place: str
    """Where in the model: a module's path, and ``:in`` or ``:out``."""
    computed_in: str
    """Element type of the model's parameters."""
    dtype: str
    """Element type of the activations."""
    texts: str
    """Where documents came from."""
    texts_identity: str
    """Digest of their file, or the address of a data set with its commit."""
    rows: int
    """Activations."""
    documents: int
    """Documents that were read."""
    dropped: dict[str, int]
    """Positions that were not kept, by reason."""


@dataclass(frozen=True)
class Run:
    """How this run was made: the only record that may differ between runs on the same input.

    It stands first, and again before the verdict with `finished` and `seconds`.
    """

    __pydantic_config__ = STRICT

    version: str
    """Version of saeaudit."""
    command: str
    """Subcommand."""
    arguments: dict[str, Any]
    """Its options, defaults included."""
    started: str
    """UTC time, ISO 8601."""
    device: str
    """Where matrix products ran: "cpu", "cuda:0"."""
    screen: ScreenName | None
    """Kind of product that proposes candidates; it decides nothing. Null where none is needed, or
    where each SAE is screened by the kind that suits it."""
    python: str
    """Version of Python."""
    torch: str
    """Version of PyTorch."""
    finished: str | None = None
    """UTC time at which it ended; null in the first record, which is written at the beginning."""
    seconds: float | None = None
    """How long it took; null likewise."""
    activations: tuple[CollectedRecord, ...] | None = None
    """Folders of activations that were collected; null where none is read."""
    screens: tuple[ScreenCost, ...] | None = None
    """The screen of each SAE that was scanned; null in the first record."""
    type: Literal["run"] = "run"
    """Always "run"."""
    schema: Literal["saeaudit/2"] = "saeaudit/2"
    """Version of the record format."""


@dataclass(frozen=True)
class FileRecord:
    """A file that was read."""

    __pydantic_config__ = STRICT

    path: str
    """As the user named it; relative to the package for the bundled samples."""
    bytes: int
    """Size."""
    sha256: str
    """Hexadecimal digest of the whole file."""


@dataclass(frozen=True)
class SourceRecord:
    """Where a dictionary came from."""

    __pydantic_config__ = STRICT

    uri: str
    """The target as the user can type it."""
    revision: str | None
    """Resolved commit of a hub repository; null for local files."""
    path: str
    """The weight file."""
    bytes: int
    """Its size."""
    sha256: str
    """Its digest."""
    others: tuple[FileRecord, ...]
    """Every other file that was read, such as a configuration."""


@dataclass(frozen=True)
class DictionaryRecord:
    """One SAE's decoder, and which of its rows are left out of every finding."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id as the user can type it; of a control with its name in brackets."""
    source: SourceRecord
    """Where it came from."""
    format: str
    """Weight format, e.g. "gemma_scope"."""
    architecture: str
    """Encoder formula, e.g. "jumprelu"; "decoder-only" where there is no encoder."""
    d_in: int
    """Width of a decoder row."""
    d_sae: int
    """Number of features (decoder rows) in the file."""
    dtype: str
    """Element type of the decoder on disk."""
    k: int | None
    """Active features a token, for TopK encoders that say so; else null."""
    centred: bool
    """Whether the encoder sees the activation less the decoder's bias."""
    maps_elsewhere: bool
    """A transcoder: the decoder writes to another space than the encoder reads."""
    codes_unavailable: str | None
    """Why activations cannot be encoded (no encoder, a transcoder, an unknown formula), or null."""
    neuronpedia: str | None
    """Neuronpedia's ``model/source`` of the SAE, where it is certainly this one; else null."""
    notes: tuple[str, ...]
    """What a user should know about how the file was read, a line each."""
    norm_min: float
    """Least Euclidean norm of the rows that are finite and not zero."""
    norm_max: float
    """Largest such norm."""
    zero_rows: tuple[int, ...]
    """Rows that are exactly zero."""
    nonfinite_rows: tuple[int, ...]
    """Rows with a NaN or an infinity."""
    collapsed_rows: tuple[int, ...]
    """Rows whose norm is below 1e-3 of the norms' 99th percentile: shrunk, dead features."""
    control: Control | None = None
    """The null that these records are of ("random-decoder", "permuted-tokens", "shuffled-labels"),
    or "pursuit", what the first two are to be compared with; null where they are of the SAE."""
    type: Literal["dictionary"] = "dictionary"
    """Always "dictionary"."""


@dataclass(frozen=True)
class ErrorRecord:
    """Something named that could not be audited; the run ends with exit status 2."""

    __pydantic_config__ = STRICT

    sae: str
    """What could not be audited, as the user can type it."""
    reason: str
    """What is wrong."""
    hint: str
    """What to do about it; may be empty."""
    type: Literal["error"] = "error"
    """Always "error"."""


@dataclass(frozen=True)
class RuleResult:
    """One rule of the policy, evaluated for one SAE."""

    __pydantic_config__ = STRICT

    rule: str
    """What fails: a number's name, a comparison and the limit, e.g. "duplicate_fraction>0.01"."""
    limit: float
    """The value it compares with."""
    value: float | None
    """The value found; null where it is undefined, and then the rule does not pass."""
    sae: str
    """The SAE."""
    passed: bool
    """Whether the rule holds."""


@dataclass(frozen=True)
class Verdict:
    """The last record of a scan: a file without it is incomplete."""

    __pydantic_config__ = STRICT

    passed: bool
    """Whether everything named was audited and every rule holds."""
    rules: tuple[RuleResult, ...]
    """Every rule that was evaluated."""
    new_findings: int
    """Findings that no baseline knows."""
    known_findings: int
    """Findings that the baseline knows."""
    type: Literal["verdict"] = "verdict"
    """Always "verdict"."""


@dataclass(frozen=True)
class BaselineRecord:
    """The first record of a baseline: dictionaries and known findings follow."""

    __pydantic_config__ = STRICT

    version: str
    """Version of saeaudit that made it."""
    findings: int
    """How many findings follow."""
    type: Literal["baseline"] = "baseline"
    """Always "baseline"."""
    schema: Literal["saeaudit/2"] = "saeaudit/2"
    """Version of the record format."""


@dataclass(frozen=True)
class ListingRecord:
    """One SAE that was found or fetched."""

    __pydantic_config__ = STRICT

    sae: str
    """The SAE's id as the user can type it."""
    uri: str
    """Where it is: a hub address, or a path."""
    files: tuple[str, ...]
    """Its files: in the repository, or on this machine."""
    bytes: int
    """Their size together; what was or would be fetched."""
    format: str
    """Weight format, e.g. "gemma_scope"."""
    cached: bool
    """Whether all of it is on this machine."""
    type: Literal["listing"] = "listing"
    """Always "listing"."""
