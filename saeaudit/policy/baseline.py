"""Baselines: findings that are known, so that only new ones count."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from saeaudit.errors import AuditError
from saeaudit.records import (
    BaselineRecord,
    DictionaryRecord,
    ErrorRecord,
    Finding,
    Record,
    ScanSummary,
    Verdict,
    kind_of,
)

Key = tuple[str, str, frozenset[int]]


def key(finding: Finding) -> Key:
    """What a finding is known by: its SAE, type and features; numbers may drift."""
    return finding.sae, kind_of(finding), frozenset(finding.features)


@dataclass(frozen=True)
class Baseline:
    """Known findings of some SAEs."""

    where: str
    any_revision: bool = False
    dictionaries: dict[str, DictionaryRecord] = field(default_factory=dict)
    known: set[Key] = field(default_factory=set)

    def check(self, dictionary: DictionaryRecord) -> None:
        """Refuse a dictionary that the baseline does not speak of.

        Raises:
            AuditError: another shape or revision, or an SAE that is not in it.
        """
        name = dictionary.sae
        if self.any_revision:
            return
        known = self.dictionaries.get(name)
        if known is None:
            raise AuditError(
                f"has no {name}; it has {', '.join(sorted(self.dictionaries)) or 'no SAE'}",
                where=self.where,
                hint="--baseline-any-revision takes all of its findings as new",
            )
        for what, old, new in (
            ("features", known.d_sae, dictionary.d_sae),
            ("width", known.d_in, dictionary.d_in),
            ("revision", known.source.revision, dictionary.source.revision),
        ):
            if old != new:
                raise AuditError(
                    f"is of another {name}: {what} {old}, now {new}",
                    where=self.where,
                    hint="make a new one, or --baseline-any-revision",
                )


def read_baseline(records: Iterable[Record], where: str, *, any_revision: bool = False) -> Baseline:
    """Take the findings of a baseline file, or of a complete scan.

    Raises:
        AuditError: neither, or a scan that did not end, failed, or left findings out.
    """
    baseline = Baseline(where, any_revision)
    complete = False
    for record in records:
        if isinstance(record, DictionaryRecord):
            baseline.dictionaries[record.sae] = record
        elif isinstance(record, Finding):
            baseline.known.add(key(record))
        else:
            _refuse_gaps(record, where)
        complete |= isinstance(record, (Verdict, BaselineRecord))
    if not complete or not baseline.dictionaries:
        raise AuditError(
            "no complete scan: there is no verdict" if baseline.dictionaries else "holds no scan",
            where=where,
            hint="saeaudit baseline scan.jsonl -o baseline.jsonl",
        )
    return baseline


def make_baseline(records: Iterable[Record], where: str, version: str) -> Iterator[Record]:
    """Reduce a complete scan to its dictionaries and findings.

    Raises:
        AuditError: as for `read_baseline`.
    """
    from dataclasses import replace

    kept: list[Record] = []
    findings = 0
    complete = False
    for record in records:
        _refuse_gaps(record, where)
        if isinstance(record, DictionaryRecord):
            kept.append(record)
        elif isinstance(record, Finding):
            findings += 1
            kept.append(replace(record, known=None, labels=None, urls=None, firing_rates=None))
        complete |= isinstance(record, (Verdict, BaselineRecord))
    if not complete or not any(isinstance(record, DictionaryRecord) for record in kept):
        raise AuditError(
            "no complete scan: there is no verdict", where=where, hint="saeaudit scan … -o FILE"
        )
    yield BaselineRecord(version, findings)
    yield from kept


def _refuse_gaps(record: Record, where: str) -> None:
    """Refuse a scan whose missing findings would all count as new later."""
    if isinstance(record, ErrorRecord):
        raise AuditError(f"a scan that could not audit {record.sae}", where=where)
    if isinstance(record, ScanSummary) and not record.complete:
        raise AuditError(
            f"not all findings of {record.sae} are in it",
            where=where,
            hint="scan again with a larger --max-findings",
        )
