"""Every record as a line or a few, in the order of the file: nothing is held, nothing left out."""

from __future__ import annotations

from typing import assert_never

from saeaudit.escape import NAME, escape
from saeaudit.formats.items import broken, outcome_line
from saeaudit.formats.screen.claims import claim_lines
from saeaudit.formats.screen.findings import Member, said, sentence
from saeaudit.formats.screen.firing import firing_sentence
from saeaudit.formats.screen.wording import around, percent
from saeaudit.records import (
    BaselineRecord,
    ChoiceRecord,
    ClaimRecord,
    DictionaryRecord,
    ErrorRecord,
    FiringRecord,
    GroupRecord,
    ListingRecord,
    MediatorRecord,
    MediatorsSummary,
    PairRecord,
    Record,
    Run,
    ScanSummary,
    ScoreSummary,
    TokenRecord,
    TripleRecord,
    Verdict,
    kind_of,
)


def lines_of(record: Record) -> list[str]:
    """What stands for a record; mypy names a type that is forgotten.

    Example: a pair's line is "  duplicate  features 3 and 40: decoder cosine 0.995".
    """
    match record:
        case Run() if record.finished and record.seconds is not None:
            return ["", f"finished {escape(record.finished, NAME)}, {record.seconds:.1f} s"]
        case Run():
            return ["", f"saeaudit {escape(record.command, NAME)}, {escape(record.started, NAME)}"]
        case DictionaryRecord():
            return ["", f"{escape(record.sae, NAME)}: {_shape(record)}"]
        case ClaimRecord():
            return [f"  {line}" for line in claim_lines(record)]
        case PairRecord() | GroupRecord() | TripleRecord():
            return [_line(kind_of(record), sentence(record) + (" (known)" if record.known else ""))]
        case MediatorRecord():
            return [_line("mediator", _mediator(record))]
        case TokenRecord():
            return [_line("token", _token(record))]
        case ChoiceRecord():
            return [_line("choice", _choice(record))]
        case FiringRecord():
            return [_line("firing", firing_sentence(record))]
        case ScanSummary() | MediatorsSummary() | ScoreSummary():
            return [_line("summary", outcome_line(record))]
        case ListingRecord():
            where = "here" if record.cached else "not here"
            text = f"{escape(record.sae, NAME)}: {record.bytes:,} bytes, {where}"
            return [_line("listing", text)]
        case ErrorRecord():
            hint = f" ({escape(record.hint)})" if record.hint else ""
            reason = f"{escape(record.sae, NAME)}: {escape(record.reason)}{hint}"
            return [_line("error", reason)]
        case BaselineRecord():
            return [f"a baseline of {record.findings:,} findings"]
        case Verdict():
            failed = [f"{escape(r.sae, NAME)}: {broken(r)}" for r in record.rules if not r.passed]
            outcome = "passed" if record.passed else "not passed"
            return ["", f"verdict: {outcome}", *(f"  {escape(line)}" for line in failed)]
        case _:
            assert_never(record)


def _line(kind: str, text: str) -> str:
    return f"  {kind:<9}  {text}"


def _shape(record: DictionaryRecord) -> str:
    text = f"{record.d_sae:,} features of width {record.d_in:,}"
    for count, kind in (
        (len(record.zero_rows), "of zeros"), (len(record.nonfinite_rows), "not finite"),
        (len(record.collapsed_rows), "collapsed"),
    ):  # fmt: skip
        text += f", {count:,} rows {kind}" if count else ""
    return text


def _named(record: MediatorRecord | TokenRecord | ChoiceRecord) -> str:
    name = "an example" if record.token is None else f"token {record.token}"
    return (
        name if record.text is None else f"{name} {escape(repr(record.text), NAME)}{around(record)}"
    )


def _mediator(record: MediatorRecord) -> str:
    change = "" if record.change is None else f", change {percent(record.change)}"
    return (
        f"{_named(record)}: {_features(record.added)} for "
        f"{_features(record.removed)} ({record.mode}, tolerance {record.epsilon:g}){change}"
        f"{_texts(record)}"
    )


def _token(record: TokenRecord) -> str:
    counts = ", ".join(
        f"{row.count:,} ({row.mode}, tolerance {row.epsilon:g})" for row in record.alternatives
    )
    return f"{_named(record)}: L0 {record.l0}, other codes {counts}"


def _choice(record: ChoiceRecord) -> str:
    exchanged = f"{_features(record.added)} for {_features(record.removed)}"
    chosen = {
        "encoder": "the encoder's code", "support": "other values on the same features",
        "other": exchanged, None: "no code has a price",
    }[record.chosen]  # fmt: skip
    wasted = record.encoder_excess_bits
    said = "" if not wasted else f", {wasted:.1f} bits shorter than the encoder's"
    if record.disagreement is not None:
        said += f", labels differ by {record.disagreement:.2f}"
    return f"{_named(record)}: {chosen}{said}{_texts(record)}"


def _texts(record: MediatorRecord | ChoiceRecord) -> str:
    """What is said of the features that are exchanged, as far as anything is."""
    texts = record.explanations
    if texts is None:
        return ""
    pairs = zip((*record.added, *record.removed), (*texts.added, *texts.removed), strict=False)
    return "".join(f"; {said(Member(f, label=text))}" for f, text in pairs if text)


def _features(features: tuple[int, ...]) -> str:
    return ", ".join(map(str, features)) or "none"
