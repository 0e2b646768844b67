"""Which of a file's records are shown, and in which order, while they go by."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase
from functools import cache
from types import UnionType
from typing import Any, get_args, get_type_hints

from saeaudit.errors import AuditError
from saeaudit.formats.screen.findings import worst_first
from saeaudit.records import (
    ChoiceRecord,
    ClaimRecord,
    DictionaryRecord,
    Finding,
    FiringRecord,
    ListingRecord,
    MediatorRecord,
    PairRecord,
    Record,
    TokenRecord,
    Verdict,
    kind_of,
)
from saeaudit.suggest import did_you_mean

Listed = (
    Finding | ClaimRecord | MediatorRecord | TokenRecord | FiringRecord | ChoiceRecord
    | ListingRecord
)  # fmt: skip
"""Records of which an SAE has many; the others say what they are of."""
WORST = "worst"
"""Order of findings by how nearly they are dependent, and of codes by the number below."""
WORST_BY = {"mediator": "change", "token": "refit_error", "choice": "encoder_excess_bits",
            "firing": "together"}  # fmt: skip


@dataclass(frozen=True)
class Selection:
    """What to show; the defaults show everything in the order of the file."""

    types: frozenset[str] = frozenset()
    """Types of records, or kinds of pairs; all where empty."""
    saes: tuple[str, ...] = ()
    """Globs over ids, whole or from a slash on; all where empty."""
    feature: int | None = None
    """Only findings and codes with this feature."""
    sort: str | None = None
    """A number of the records, the largest first; with a minus before it, the smallest."""
    top: int | None = None
    """How many of each kind of each SAE."""
    frames: bool = True
    """Whether records that are not `Listed` stay whatever `types` says: screens need them."""

    def __post_init__(self) -> None:
        if unknown := self.types - set(kinds()):
            raise _unknown(min(unknown), kinds(), "--type")
        name = (self.sort or WORST).removeprefix("-")
        if name != WORST and name not in numbers():
            raise _unknown(name, (WORST, *numbers()), "--sort")

    def checked(self, records: Iterable[Record], where: str) -> Iterator[Record]:
        """Pass all records on; at the end see that the globs have met an SAE.

        Args:
            records: of any commands.
            where: what errors call the file.

        Raises:
            AuditError: no SAE matches.
        """
        names: dict[str, None] = {}
        for record in records:
            if isinstance(record, DictionaryRecord):
                names[record.sae] = None
            yield record
        if names and not any(map(self.takes_sae, names)):
            first = ", ".join(list(names)[:3]) + (", …" if len(names) > 3 else "")
            raise AuditError("no SAE in it matches --sae", where=where, hint=f"has {first}")

    def takes(self, record: Record) -> bool:
        """Whether a record is to be shown."""
        sae = getattr(record, "sae", None)
        if sae is not None and not self.takes_sae(sae):
            return False
        listed = isinstance(record, Listed)
        if self.types and not self.types & {record.type, kind_of(record)}:
            return self.frames and not listed
        return self.feature is None or not listed or self.feature in features_of(record)

    def takes_sae(self, sae: str) -> bool:
        """Whether an SAE's records are to be shown."""
        return not self.saes or any(
            fnmatchcase(sae, glob) or fnmatchcase(sae, f"*/{glob}") for glob in self.saes
        )


def select(records: Iterable[Record], selection: Selection) -> Iterator[Record]:
    """Pass on the records to be shown, each SAE's sorted and cut as is asked.

    What is held at once are one SAE's records where they are to be sorted, and where they are to
    be cut only those that stay.

    Args:
        records: of one run or several.
        selection: what to show.
    """
    held: dict[str, list[Record]] = {}
    for record in records:
        if not selection.takes(record):
            continue
        if isinstance(record, Listed) and (selection.sort or selection.top is not None):
            kept = held.setdefault(f"{record.sae} {kind_of(record)}", [])
            kept.append(record)
            if selection.top is not None and len(kept) > 2 * selection.top + 64:
                _order(kept, selection)
            continue
        yield from _released(held, selection)
        if isinstance(record, Verdict):
            rules = tuple(rule for rule in record.rules if selection.takes_sae(rule.sae))
            record = replace(record, rules=rules)
        yield record
    yield from _released(held, selection)


def _released(held: dict[str, list[Record]], selection: Selection) -> Iterator[Record]:
    for kept in held.values():
        _order(kept, selection)
        yield from kept
    held.clear()


def _order(kept: list[Record], selection: Selection) -> None:
    """Sort and cut in place; what is equal stays in the order of the file."""
    if selection.sort is not None:
        kept.sort(key=_key(selection.sort))
    if selection.top is not None:
        del kept[selection.top :]


def _key(sort: str) -> Callable[[Record], Any]:
    """Sort key; records without the number come last."""
    name, sign = sort.removeprefix("-"), 1 if sort.startswith("-") else -1

    def by_number(record: Record, name: str, sign: int) -> float:
        value = getattr(record, name, None)
        return sign * value if isinstance(value, (int, float)) else math.inf

    def by_worst(record: Record) -> Any:
        if isinstance(record, Finding):
            return worst_first(record)
        return by_number(record, WORST_BY.get(record.type, ""), -1)

    return by_worst if name == WORST else lambda record: by_number(record, name, sign)


def features_of(record: Record) -> set[int]:
    """The features that a finding or a code is of."""
    if isinstance(record, Finding | ClaimRecord | FiringRecord):
        return set(record.features)
    if isinstance(record, (MediatorRecord, ChoiceRecord)):
        codes = {code.feature for code in (*record.codes, *record.alternative)}
        return {*record.features, *record.removed, *record.added} | codes
    return set()


@cache
def kinds() -> tuple[str, ...]:
    """Names that `types` may hold."""
    types = {kind.type for kind in get_args(Record)}
    return tuple(sorted(types | set(get_args(get_type_hints(PairRecord)["kind"]))))


@cache
def numbers() -> tuple[str, ...]:
    """Names of the numbers by which records can be sorted."""
    names = set()
    for kind in get_args(Listed):
        hints = get_type_hints(kind)
        for field in fields(kind):
            hint = hints[field.name]
            options = get_args(hint) if isinstance(hint, UnionType) else (hint,)
            if {int, float}.intersection(options):
                names.add(field.name)
    return tuple(sorted(names))


def _unknown(name: str, known: tuple[str, ...], option: str) -> AuditError:
    hint = did_you_mean(name, known) or f"known: {', '.join(known)}"
    return AuditError(f"{name!r} is none", where=option, hint=hint)
