"""Records that come back from a file: whether they are of this SAE, and can be true of it.

A file may be of another SAE or another version, cut, edited or made up. What `mediators --scan`
and `score --mediators` take from it is checked here, once, and trusted afterwards. Records are
counted as the lines of a file are, so that an error says where to look.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import (
    ClaimRecord,
    Code,
    DictionaryRecord,
    Finding,
    GroupRecord,
    MediatorRecord,
    PairRecord,
    Record,
    TokenRecord,
    TripleRecord,
)


class _Refused(Exception):
    """What is wrong with a record."""


def check_findings(
    records: Iterable[Record], dictionary: Dictionary
) -> list[Finding | ClaimRecord]:
    """Return the findings of one SAE, and the claims about it, among a scan's records.

    Args:
        records: of a scan, perhaps of several SAEs.
        dictionary: the SAE.

    Raises:
        AuditError: there are findings, but only of other SAEs; or one that cannot be of this SAE.
    """
    checks = _Checks(dictionary)
    findings: list[Finding | ClaimRecord] = []
    others: list[str] = []
    for number, record in enumerate(records, 1):
        if isinstance(record, (PairRecord, GroupRecord, TripleRecord, ClaimRecord)):
            if record.sae != dictionary.sae:
                others.append(record.sae)
                continue
            _check(checks.finding, record, f"--scan, line {number}", "is it a scan of this SAE?")
            findings.append(record)
        elif isinstance(record, DictionaryRecord) and record.sae == dictionary.sae:
            _check(checks.shape, record, f"--scan, line {number}", "scan it again")
    if others and not findings:
        raise AuditError(f"a scan of {min(others)}, not of {dictionary.sae}", where="--scan")
    return findings


def check_codes(
    records: Iterable[Record], dictionary: Dictionary, tokens: int | None
) -> list[Record]:
    """Return the records of one SAE among those of `mediators`.

    Args:
        records: of `mediators`, perhaps of several SAEs.
        dictionary: the SAE.
        tokens: number of activations; None where there are none to count.

    Raises:
        AuditError: none is of this SAE, or one cannot be.
    """
    checks = _Checks(dictionary, tokens)
    kept: list[Record] = []
    others: list[str] = []
    for number, record in enumerate(records, 1):
        sae = getattr(record, "sae", None)
        if sae is None:
            continue  # the run, the verdict
        if sae != dictionary.sae:
            others.append(sae)
            continue
        where = f"--mediators, line {number}"
        if isinstance(record, DictionaryRecord):
            _check(checks.shape, record, where, "run mediators again")
        elif isinstance(record, TokenRecord):
            _check(checks.token, record, where, "are these its activations?")
        elif isinstance(record, MediatorRecord):
            _check(checks.mediator, record, where, "is it of this SAE and these activations?")
        kept.append(record)
    if others and not kept:
        raise AuditError(f"--mediators holds records of {min(others)}", where=dictionary.sae)
    return kept


def _check(check: Any, record: Record, where: str, hint: str) -> None:
    try:
        check(record)
    except _Refused as error:
        raise AuditError(str(error), where=where, hint=hint) from error


class _Checks:
    """What records of one SAE must meet; each method raises `_Refused` where they do not."""

    def __init__(self, dictionary: Dictionary, tokens: int | None = None) -> None:
        self._dictionary, self._tokens = dictionary, tokens
        self._live = set(dictionary.live(include_collapsed=True).tolist())
        self._seen: set[int] = set()
        self._token: int | None = None
        self._codes: dict[int, tuple[Code, ...]] = {}

    def shape(self, record: DictionaryRecord) -> None:
        """The dictionary has as many features, as wide."""
        there = f"{record.d_sae} features x {record.d_in}"
        here = f"{self._dictionary.d_sae} features x {self._dictionary.d_in}"
        if there != here:
            raise _Refused(f"{record.sae} has {there} in it, and {here} now")

    def finding(self, record: Finding | ClaimRecord) -> None:
        """Features that the SAE has, each once, and finite numbers."""
        _finite(record)
        self._features(record.features)
        if isinstance(record, GroupRecord) and record.size != len(record.features):
            raise _Refused(f"a group of size {record.size} with {len(record.features)} features")

    def token(self, record: TokenRecord) -> None:
        """An activation that there is, once, with counts."""
        _finite(record)
        self._index(record.token)
        if record.token in self._seen:
            raise _Refused(f"token {record.token} a second time")
        self._seen.add(record.token)
        if not any(row.mode == "accuracy" and not row.epsilon for row in record.alternatives):
            raise _Refused("no count of alternatives in accuracy mode at epsilon 0")
        counts = (n for row in record.alternatives for n in (row.count, row.unsigned))
        if min((record.l0, *counts)) < 0:
            raise _Refused("a negative count")
        if min(record.encoder_error, record.refit_error) < 0:
            raise _Refused("a negative error")

    def mediator(self, record: MediatorRecord) -> None:
        """One feature exchanged in a code of this SAE, for an activation that there is."""
        _finite(record)
        before = self._code(record.codes, "codes")
        after = self._code(record.alternative, "alternative")
        if len(record.removed) != 1 or len(record.added) != 1:
            raise _Refused("not one feature for one other")
        (removed,), (added,) = record.removed, record.added
        if removed not in before:
            raise _Refused(f"feature {removed} is removed, but not in codes")
        if added in before:
            raise _Refused(f"feature {added} is added, but already in codes")
        if not after <= (before - {removed}) | {added}:  # codes of zero are left out
            raise _Refused("alternative differs from codes in more than one exchange")
        if record.l0 != len(before):
            raise _Refused(f"l0 is {record.l0} with {len(before)} codes")
        if min(record.error, record.reference_error) < 0:
            raise _Refused("a negative error")
        if not 0 <= record.moved <= 1 + 1e-9:
            raise _Refused(f"moved is {record.moved:g}, not a share")
        if record.token is not None:
            self._of_token(record.token, record.codes)
            return
        self._features(record.features)
        if not before | after <= set(record.features):
            raise _Refused("codes of features that are not in the exchange")

    def _of_token(self, token: int, codes: tuple[Code, ...]) -> None:
        self._index(token)
        if token not in self._seen:
            raise _Refused(f"alternatives of token {token}, whose own record is not before them")
        if token != self._token and token in self._codes:
            raise _Refused(f"token {token} again, after others")
        if self._codes.setdefault(token, codes) != codes:
            raise _Refused(f"other codes of token {token} than before")
        self._token = token

    def _index(self, token: int) -> None:
        if token < 0 or (self._tokens is not None and token >= self._tokens):
            there = "" if self._tokens is None else f" among {self._tokens} activations"
            raise _Refused(f"there is no token {token}{there}")

    def _code(self, codes: Sequence[Code], name: str) -> set[int]:
        features = self._features([code.feature for code in codes])
        if any(code.value <= 0 for code in codes):
            raise _Refused(f"{name} holds a value that is not positive")
        return features

    def _features(self, features: Sequence[int]) -> set[int]:
        for feature in features:
            if not 0 <= feature < self._dictionary.d_sae:
                raise _Refused(f"there is no feature {feature} among {self._dictionary.d_sae}")
            if feature not in self._live:
                raise _Refused(f"feature {feature} is zero or not finite, so not live in this SAE")
        if len(set(features)) < len(features):
            raise _Refused(f"a feature twice in {list(features)[:8]}")
        return set(features)


def _finite(record: Record) -> None:
    """JSON has no NaN, but parsers take it, and 1e999 is an infinity."""
    for name, value in _floats(record):
        if not math.isfinite(value):
            raise _Refused(f"{name} is not finite")


def _floats(value: Any, name: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(value, float):
        yield name, value
    elif isinstance(value, tuple):
        for inner in value:
            yield from _floats(inner, name)
    elif is_dataclass(value):
        for field in fields(value):
            yield from _floats(getattr(value, field.name), name or field.name)
