"""One feature's card: what the records of a file say of it, from whichever commands they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from saeaudit.errors import AuditError
from saeaudit.escape import NAME, escape
from saeaudit.formats.screen.claims import claim_text
from saeaudit.formats.screen.findings import Member, label_text, members, sentence
from saeaudit.formats.screen.firing import firing_sentence
from saeaudit.formats.screen.wording import percent
from saeaudit.records import (
    ChoiceRecord,
    ClaimRecord,
    ClosestPair,
    DictionaryRecord,
    Finding,
    FiringRecord,
    GroupRecord,
    MediatorRecord,
    PairRecord,
    Record,
    ScanSummary,
    TripleRecord,
)

SHOWN = 10
"""Neighbours, findings and exchanges shown of each kind, where nobody says how many."""
SIDES = ((0, 1), (0, 2), (1, 2))
"""Positions of the features that a triple's cosines are between, in their order."""


class FeatureCard:
    """Collects what is said of one feature of one SAE."""

    def __init__(self, dictionary: DictionaryRecord, feature: int, shown: int | None) -> None:
        self._dictionary, self._feature = dictionary, feature
        self._shown = SHOWN if shown is None else shown
        self._known = Member(feature)
        self._cosines: dict[int, tuple[float, float | None]] = {}
        self._labels: dict[int, str] = {}
        self._norms: dict[int, float] = {}
        """Norms of other rows over that of the feature's."""
        self._findings: list[str] = []
        self._firing: list[str] = []
        self._left_for: Counter[int] = Counter()
        self._entered_for: Counter[int] = Counter()
        self._choices: Counter[str] = Counter()

    def record(self, record: Record) -> None:
        """Take one record of this SAE."""
        if isinstance(record, ScanSummary):
            if self._feature in record.closest_pair.features:
                self._learn(record.closest_pair)
        elif isinstance(record, Finding | ClaimRecord) and self._feature in record.features:
            self._learn(record)
            said = (
                f"{claim_text(record)}: {record.sentence}"
                if isinstance(record, ClaimRecord)
                else sentence(record)
            )
            self._findings.append(f"{record.type}: {escape(said)}")
        elif isinstance(record, FiringRecord) and self._feature in record.features:
            self._firing.append(firing_sentence(record))
        elif isinstance(record, MediatorRecord):
            if self._feature in record.removed:
                self._left_for.update(record.added)
            elif self._feature in record.added:
                self._entered_for.update(record.removed)
        elif isinstance(record, ChoiceRecord):
            for verb, features in (("leaves", record.removed), ("enters", record.added)):
                self._choices[verb] += self._feature in features

    def _learn(self, finding: Finding | ClosestPair | ClaimRecord) -> None:
        """Keep labels, rates and cosines of the feature with the others of a finding."""
        for member in members(finding):
            if member.feature == self._feature:
                self._known = member
            elif member.label:
                self._labels[member.feature] = member.label
        if isinstance(finding, GroupRecord):
            return
        pairs: Iterable[tuple[tuple[int, int], float, float | None]]
        if isinstance(finding, (PairRecord, ClosestPair)):
            pairs = [((0, 1), finding.cosine, finding.encoder_cosine)]
        elif isinstance(finding, TripleRecord):
            pairs = zip(SIDES, finding.cosines, (None, None, None), strict=False)
        else:
            pairs = zip(SIDES, finding.cosines, finding.encoder_cosines, strict=False)
        for (i, j), cosine, encoder in pairs:
            both = finding.features[i], finding.features[j]
            if self._feature in both:
                (other,) = {*both} - {self._feature}
                if encoder is None:
                    encoder = self._cosines.get(other, (0.0, None))[1]
                self._cosines[other] = cosine, encoder
        if isinstance(finding, PairRecord):
            first, second = finding.features
            if second == self._feature:
                self._norms[first] = finding.norm_ratio
            elif finding.norm_ratio:
                self._norms[second] = 1 / finding.norm_ratio

    def lines(self) -> list[str]:
        """The card, a line each."""
        dictionary, known = self._dictionary, self._known
        lines = [f"{escape(dictionary.sae, NAME)}, feature {self._feature}", f"  {self._row()}"]
        if known.label:
            lines.append(f"  label: {label_text(known.label, NAME)}")
        if known.firing_rate is not None:
            lines.append(f"  fires on {percent(known.firing_rate)} of tokens")
        if known.url:
            lines.append(f"  {escape(known.url, NAME)}")
        nearest = sorted(self._cosines, key=lambda f: (-abs(self._cosines[f][0]), f))
        lines += self._listed("nearest neighbours", list(map(self._neighbour, nearest)))
        lines += self._listed("findings and claims", self._findings)
        lines += self._listed("fires", self._firing)
        lines += self._listed("leaves for", _exchanges(self._left_for))
        lines += self._listed("enters for", _exchanges(self._entered_for))
        if self._choices.total():
            counts = ", ".join(f"{verb} in {count:,}" for verb, count in self._choices.items())
            lines.append(f"  choices between codes: {counts}")
        if len(lines) == 2:
            lines.append("  in no finding and no code of this file")
        return lines

    def _row(self) -> str:
        dictionary = self._dictionary
        for kind, rows in (
            ("zero", dictionary.zero_rows), ("not finite", dictionary.nonfinite_rows),
            ("collapsed: a dead feature", dictionary.collapsed_rows),
        ):  # fmt: skip
            if self._feature in rows:
                return f"its decoder row is {kind}"
        return f"one of {dictionary.d_sae:,} features, norms {_span(dictionary)}"

    def _neighbour(self, feature: int) -> str:
        cosine, encoder = self._cosines[feature]
        parts = [f"{feature}: decoder cosine {cosine:.3f}"]
        if encoder is not None:
            parts.append(f"encoder cosine {encoder:.2f}")
        if feature in self._norms:
            parts.append(f"{self._norms[feature]:.3g} times as long")
        if feature in self._labels:
            parts.append(label_text(self._labels[feature]))
        return ", ".join(parts)

    def _listed(self, title: str, entries: list[str]) -> list[str]:
        if not entries:
            return []
        lines = [f"  {title}", *(f"    {entry}" for entry in entries[: self._shown])]
        more = len(entries) - self._shown
        return [*lines, f"    … {more:,} more (--top)"] if more > 0 else lines


def cards(records: Iterable[Record], feature: int, shown: int | None, where: str) -> list[str]:
    """The cards of a feature of every SAE in a file, an empty line between them.

    Args:
        records: of any commands; an SAE's dictionary before the others.
        feature: its number.
        shown: how many entries of each kind; `SHOWN` where None.
        where: what errors call the file.

    Raises:
        AuditError: no SAE in it has so many features.
    """
    made: dict[str, FeatureCard] = {}
    sizes: list[int] = []
    for record in records:
        if isinstance(record, DictionaryRecord):
            sizes.append(record.d_sae)
            if feature < record.d_sae:
                made.setdefault(record.sae, FeatureCard(record, feature, shown))
        elif card := made.get(getattr(record, "sae", None) or ""):
            card.record(record)
    if not made:
        hint = f"features 0 to {max(sizes) - 1}" if sizes else "there is no dictionary record in it"
        raise AuditError(f"there is no feature {feature}", where=where, hint=hint)
    lines = [["", *card.lines()] for card in made.values()]
    return [line for block in lines for line in block][1:]


def _exchanges(counts: Counter[int]) -> list[str]:
    return [f"{feature}: {count:,} times" for feature, count in counts.most_common()]


def _span(dictionary: DictionaryRecord) -> str:
    return f"{dictionary.norm_min:.3g} to {dictionary.norm_max:.3g}"
