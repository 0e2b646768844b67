"""The records that saeaudit writes: frozen dataclasses, told apart by `type`.

Summaries are told apart by `command` as well. Every float is finite and rounded to 9 significant
digits; what is undefined is null. The JSON Schema (`saeaudit schema`) is made from these classes,
docstrings included.
"""

from __future__ import annotations

import math
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

from saeaudit.escape import json_line
from saeaudit.records.common import (
    SCHEMA,
    BaselineRecord,
    CollectedRecord,
    Context,
    DictionaryRecord,
    ErrorRecord,
    FileRecord,
    Interval,
    ListingRecord,
    Predicted,
    RuleResult,
    Run,
    ScreenCost,
    SourceRecord,
    Verdict,
)
from saeaudit.records.firing import FiringRecord, Magnitudes, Typical
from saeaudit.records.mediators import (
    CHANGED,
    MOVED,
    Alternatives,
    ChangeShare,
    Code,
    EncoderSummary,
    Involved,
    MediatorRecord,
    MediatorsSummary,
    MovedShare,
    NonUnique,
    Skipped,
    Texts,
    TokenRecord,
)
from saeaudit.records.scan import (
    Babel,
    Certificate,
    ClaimRecord,
    ClosestPair,
    GroupRecord,
    MaxCosine,
    PairRecord,
    Quantiles,
    ScanSummary,
    TripleRecord,
)
from saeaudit.records.score import (
    Agreement,
    Canonical,
    ChoiceRecord,
    ChosenShares,
    Compare,
    DisagreementSummary,
    Estimate,
    IncoherentShare,
    Pick,
    Picks,
    ScoreSummary,
)
from saeaudit.untrusted import check_json

if TYPE_CHECKING:
    from pydantic import TypeAdapter

__all__ = [
    "CHANGED",
    "MOVED",
    "SCHEMA",
    "Agreement",
    "Alternatives",
    "Babel",
    "BaselineRecord",
    "Canonical",
    "Certificate",
    "ChangeShare",
    "ChoiceRecord",
    "ChosenShares",
    "ClaimRecord",
    "ClosestPair",
    "Code",
    "CollectedRecord",
    "Compare",
    "Context",
    "DictionaryRecord",
    "DisagreementSummary",
    "EncoderSummary",
    "ErrorRecord",
    "Estimate",
    "FileRecord",
    "Finding",
    "FiringRecord",
    "GroupRecord",
    "IncoherentShare",
    "Interval",
    "Involved",
    "ListingRecord",
    "Magnitudes",
    "MaxCosine",
    "MediatorRecord",
    "MediatorsSummary",
    "MovedShare",
    "NonUnique",
    "PairRecord",
    "Pick",
    "Picks",
    "Predicted",
    "Quantiles",
    "Record",
    "RuleResult",
    "Run",
    "ScanSummary",
    "ScoreSummary",
    "ScreenCost",
    "Skipped",
    "SourceRecord",
    "Summary",
    "Texts",
    "TokenRecord",
    "TripleRecord",
    "Typical",
    "Verdict",
    "dump",
    "json_schema",
    "kind_of",
    "number",
    "parse",
    "plain",
]

Finding = PairRecord | GroupRecord | TripleRecord
Summary = ScanSummary | MediatorsSummary | ScoreSummary
Record = (
    Run | DictionaryRecord | ClaimRecord | PairRecord | GroupRecord | TripleRecord | ScanSummary
    | MediatorRecord | TokenRecord | FiringRecord | MediatorsSummary | ChoiceRecord | ScoreSummary
    | ListingRecord | BaselineRecord | ErrorRecord | Verdict
)  # fmt: skip


MOST_VALUES = 4_000_000
"""Values in one record: one that lists every feature of the largest SAEs fits."""


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


def kind_of(record: Record) -> str:
    """A pair's kind, else the type.

    Example: a pair of cosine -0.95 is "antipodal".
    """
    return record.kind if isinstance(record, PairRecord) else record.type


def dump(record: Record) -> str:
    """One record as one line of JSON, without the newline."""
    return json_line(plain(record))


@cache
def _adapter() -> TypeAdapter[Record]:
    from typing import Annotated

    from pydantic import Discriminator, Tag, TypeAdapter

    def tag(record: Any) -> str:
        kind, command = (
            (record.get("type"), record.get("command"))
            if isinstance(record, dict)
            else (getattr(record, "type", None), getattr(record, "command", None))
        )
        return f"{kind} ({command})" if kind == "summary" else str(kind)

    summaries = (
        Annotated[ScanSummary, Tag("summary (scan)")]
        | Annotated[MediatorsSummary, Tag("summary (mediators)")]
        | Annotated[ScoreSummary, Tag("summary (score)")]
    )
    others: Any = Annotated[Run, Tag("run")]
    for kind in get_args(Record):
        if kind not in (Run, ScanSummary, MediatorsSummary, ScoreSummary):
            others = others | Annotated[kind, Tag(kind.type)]
    return TypeAdapter(Annotated[others | summaries, Discriminator(tag)])


def parse(line: str) -> Record:
    """Parse one line strictly.

    Raises:
        ValueError: not JSON, an unknown type, a missing or unknown field, a wrong type.
        AuditError: more values, or more deeply nested, than any record.
    """
    check_json(line, "the record", values=MOST_VALUES)
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
