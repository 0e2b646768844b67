"""The records that saeaudit writes: frozen dataclasses, told apart by `type`.

Every float is finite and rounded to 9 significant digits; what is undefined is null. The JSON
Schema (`saeaudit schema`) is made from these classes, docstrings included.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pydantic import TypeAdapter

SCHEMA = "saeaudit/1"
"""Version of the record format."""

_STRICT = {"extra": "forbid", "strict": True, "use_attribute_docstrings": True}


@dataclass(frozen=True)
class Run:
    """How this run was made: the only record that may differ between runs on the same input."""

    __pydantic_config__ = _STRICT

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
    screen: Literal["int8", "bf16", "fp32"] | None
    """Kind of product that proposed candidates; it decides nothing. Null where none was needed."""
    python: str
    """Version of Python."""
    torch: str
    """Version of PyTorch."""
    type: Literal["run"] = "run"
    """Always "run"."""
    schema: Literal["saeaudit/1"] = "saeaudit/1"
    """Version of the record format."""


@dataclass(frozen=True)
class FileRecord:
    """A file that was read."""

    __pydantic_config__ = _STRICT

    path: str
    """As the user named it; relative to the package for the bundled samples."""
    bytes: int
    """Size."""
    sha256: str
    """Hexadecimal digest of the whole file."""


@dataclass(frozen=True)
class SourceRecord:
    """Where a dictionary came from."""

    __pydantic_config__ = _STRICT

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

    __pydantic_config__ = _STRICT

    sae: str
    """The SAE's id as the user can type it."""
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
    type: Literal["dictionary"] = "dictionary"
    """Always "dictionary"."""


@dataclass(frozen=True)
class PairRecord:
    """Two features whose decoder rows point the same way, or opposite ways."""

    __pydantic_config__ = _STRICT

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
    type: Literal["pair"] = "pair"
    """Always "pair"."""


@dataclass(frozen=True)
class GroupRecord:
    """A connected component of duplicates, of three features or more."""

    __pydantic_config__ = _STRICT

    sae: str
    """The SAE's id."""
    features: tuple[int, ...]
    """Its features, ascending."""
    size: int
    """Number of features."""
    min_cosine: float | None
    """Least cosine of a duplicate pair in the group; null where pairs were counted, not listed."""
    max_cosine: float | None
    """Largest cosine of a duplicate pair in the group; null likewise."""
    type: Literal["group"] = "group"
    """Always "group"."""


Exchange = Literal["always", "sometimes", "never"]


@dataclass(frozen=True)
class TripleRecord:
    """Three features of which one lies (nearly) in the plane of the other two."""

    __pydantic_config__ = _STRICT

    sae: str
    """The SAE's id."""
    features: tuple[int, int, int]
    """[f1, f2, f3] in the roles of f3 = beta (f2 - alpha f1), nearly."""
    coefficients: tuple[float, float] | None
    """[a, b] with u3 = a u1 + b u2, nearly, for the unit rows; null where f1, f2 are parallel."""
    alpha: float | None
    """-a/b."""
    residual: float | None
    """Distance of u3 from the plane of u1 and u2 (0: exactly dependent)."""
    single_residual: float
    """Distance of u3 from the nearer of the two lines: what one feature alone leaves."""
    cosines: tuple[float, float, float]
    """[c12, c13, c23]."""
    pattern: Literal["2,1", "3,0"] | None
    """Signs of the kernel vector: two against one, or three directions that cancel."""
    inner: int | None
    """For "2,1": the feature that is a positive mix of the other two."""
    outer: tuple[int, ...]
    """For "2,1": the other two, ascending; else empty."""
    exchange: tuple[Exchange, Exchange, Exchange] | None
    """For codes on (f1, f2), (f1, f3) and (f2, f3): is there another code of the same L0?"""
    requested: bool
    """Whether it was named with --triple; such a record is written whatever the thresholds."""
    type: Literal["triple"] = "triple"
    """Always "triple"."""


@dataclass(frozen=True)
class Babel:
    """Babel function: the largest sum of a feature's k largest |cosines| (Tropp 2004)."""

    __pydantic_config__ = _STRICT

    k1: float
    """k = 1: the coherence."""
    k8: float
    """k = 8."""
    k32: float
    """k = 32."""


@dataclass(frozen=True)
class Quantiles:
    """Order statistics over the live features: values that occur, no averages."""

    __pydantic_config__ = _STRICT

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

    __pydantic_config__ = _STRICT

    quantiles: Quantiles
    """Its quantiles."""
    histogram: tuple[int, ...]
    """64 equal bins of [0, 1], the last one closed."""


@dataclass(frozen=True)
class Certificate:
    """Why nothing was missed."""

    __pydantic_config__ = _STRICT

    screen: Literal["auto", "int8", "bf16", "fp32"]
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

    __pydantic_config__ = _STRICT

    sae: str
    """The SAE's id."""
    pairs: int
    """Duplicate pairs, listed or not."""
    antipodal_pairs: int
    """Antipodal pairs, listed or not."""
    triples: int
    """Genuine triples, listed or not (requested ones count only where they are findings)."""
    features_in_pairs: int
    """Features in a duplicate or antipodal pair."""
    features_in_triples: int
    """Features in a genuine triple."""
    duplicate_fraction: float
    """Share of the live features that could go: each component of duplicates but one member."""
    live_features: int
    """Features that took part."""
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
    complete: bool
    """Whether every finding within the thresholds stands in the output."""
    certificate: Certificate
    """Why nothing was missed."""
    command: Literal["scan"] = "scan"
    """Always "scan": summaries of other commands have other fields."""
    type: Literal["summary"] = "summary"
    """Always "summary"."""


@dataclass(frozen=True)
class ErrorRecord:
    """Something named that could not be audited; the run ends with exit status 2."""

    __pydantic_config__ = _STRICT

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

    __pydantic_config__ = _STRICT

    rule: str
    """The rule's name."""
    limit: float
    """The value it compares with."""
    value: float | None
    """The value found."""
    sae: str
    """The SAE."""
    passed: bool
    """Whether the rule holds."""


@dataclass(frozen=True)
class Verdict:
    """The last record of a scan: a file without it is incomplete."""

    __pydantic_config__ = _STRICT

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
class ListingRecord:
    """One SAE that was found or fetched."""

    __pydantic_config__ = _STRICT

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


Finding = PairRecord | GroupRecord | TripleRecord
Record = (
    Run | DictionaryRecord | PairRecord | GroupRecord | TripleRecord | ScanSummary
    | ListingRecord | ErrorRecord | Verdict
)  # fmt: skip


def number(value: float) -> float | None:
    """Round to 9 significant digits; None where the value is not finite. -0.0 becomes 0.0."""
    value = float(value)
    return float(f"{value:.9g}") + 0.0 if math.isfinite(value) else None


def plain(value: Any) -> Any:
    """Turn records into what the json module writes, `type` first and floats rounded."""
    if is_dataclass(value):
        names = sorted((f.name for f in fields(value)), key=lambda n: (n != "type", n != "schema"))
        return {name: plain(getattr(value, name)) for name in names}
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(inner) for inner in value]
    return value


def dump(record: Record) -> str:
    """One record as one line of JSON, without the newline."""
    return json.dumps(plain(record), ensure_ascii=False, allow_nan=False, separators=(",", ":"))


@cache
def _adapter() -> TypeAdapter[Record]:
    from typing import Annotated

    from pydantic import Discriminator, TypeAdapter

    return TypeAdapter(Annotated[Record, Discriminator("type")])


def parse(line: str | bytes) -> Record:
    """Parse one line strictly.

    Raises:
        ValueError: not JSON, an unknown type, a missing or unknown field, a wrong type.
    """
    return _adapter().validate_json(line)


def json_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one record."""
    schema = _adapter().json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{SCHEMA} record",
        "description": "One line of saeaudit's output.",
        **schema,
    }
