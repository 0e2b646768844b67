"""From decisions to records."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import make_encoder
from saeaudit.audit.score.disagreement import Disagreement
from saeaudit.core.codes.candidates import Candidates
from saeaudit.core.codes.choose import Alternatives, Chooser, Decision, Group
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import ChoiceRecord, Chosen, Code, Compare, Pick, Texts

if TYPE_CHECKING:
    from saeaudit.core.codes.encode import Encoder


@dataclass(frozen=True, eq=False)
class Setting:
    """What every choice is made with."""

    dictionary: Dictionary
    chooser: Chooser
    explanations: Disagreement | None
    joint: Mapping[tuple[int, ...], Tensor] = field(default_factory=dict, repr=False)
    """``[2^m]`` counts of the on/off patterns of some sets of m features."""
    tokens: Sequence[str] | None = field(default=None, repr=False)
    """Text of each activation."""

    @cached_property
    def position(self) -> dict[int, int]:
        """Live row of each live feature."""
        return {feature: row for row, feature in enumerate(self.chooser.units.live.tolist())}

    @cached_property
    def encoder(self) -> Encoder | None:
        """The SAE's encoder, or None."""
        try:
            return make_encoder(self.dictionary, dtype=torch.float64)
        except AuditError:
            return None

    def codes(self, rows: Tensor, codes: Tensor) -> tuple[Code, ...]:
        """Unit-row codes ``[k]`` in the file's scale, by feature; zeros are left out."""
        active = (rows >= 0) & (codes > 0)
        rows, codes = rows[active], codes[active] / self.chooser.units.norms[rows[active]]
        pairs = zip(self.chooser.units.live[rows].tolist(), codes.tolist(), strict=True)
        return tuple(Code(feature, value) for feature, value in sorted(pairs))


class Case(NamedTuple):
    """What a choice is about: a token, or an example of an exchange."""

    token: int | None
    """Its number; None for an example."""
    text: str | None
    features: tuple[int, ...]
    """Features of the exchange; empty for a token."""
    known: int
    """One-swap alternatives that are known of."""
    encoder: int | None
    """What the encoder takes: -1 the reference, 0 the first alternative, None unknown."""


class Exchanges(NamedTuple):
    """Which features could be exchanged for which, a list each of the same length."""

    case: list[int]
    """Place in the batch."""
    leaving: list[int]
    entering: list[int]
    moved: list[float]
    """Share of the code that changes hands."""


class Batch(NamedTuple):
    """Cases that are decided together, and their alternatives."""

    cases: list[Case]
    group: Group
    """Reference codes."""
    candidates: Candidates
    leaving: Tensor
    """``[m]`` int64 live rows that the candidates let go."""
    exchanges: Exchanges


def token_batch(
    setting: Setting, tokens: Tensor, group: Group, alternatives: Alternatives
) -> Batch:
    """Tokens ``[B]``, by their numbers, with the alternatives that were looked for."""
    live, rows = setting.chooser.units.live, group.rows
    total = group.codes.sum(1, keepdim=True)
    moved = torch.where(total > 0, group.codes / total, 0.0)
    case, place = (alternatives.best >= 0).nonzero().unbind(1)
    exchanges = Exchanges(
        case.tolist(), live[rows[case, place]].tolist(),
        live[alternatives.best[case, place]].tolist(), moved[case, place].tolist(),
    )  # fmt: skip
    texts = setting.tokens
    cases = [
        Case(token, texts[token] if texts else None, (), count, encoder=-1)
        for token, count in zip(tokens.tolist(), alternatives.counts.tolist(), strict=True)
    ]
    candidates = alternatives.candidates
    return Batch(cases, group, candidates, rows[candidates.token, candidates.place], exchanges)


def choice_records(setting: Setting, batch: Batch) -> Iterator[ChoiceRecord]:
    """Decide each case of a batch, in order."""
    start = 0
    counts = torch.bincount(batch.candidates.token, minlength=len(batch.cases)).tolist()
    decisions = setting.chooser.decide(batch.group, batch.candidates)
    for n, decision in enumerate(decisions):
        of_case = slice(start, start + counts[n])
        start += counts[n]
        yield _Choice(
            setting, batch.cases[n], decision, batch.group.rows[n], batch.group.codes[n],
            Candidates(*(column[of_case] for column in batch.candidates)), batch.leaving[of_case],
        ).record()  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Choice:
    """One decision and what it was between."""

    setting: Setting
    case: Case
    decision: Decision
    rows: Tensor
    """``[k]`` live rows of the reference."""
    codes: Tensor
    """``[k]`` its unit-row codes."""
    candidates: Candidates
    leaving: Tensor
    """``[m]`` live rows that these let go."""

    def record(self) -> ChoiceRecord:
        setting, case, decision = self.setting, self.case, self.decision
        best, candidates = decision.shortest, self.candidates
        change = self._pick(best)
        width, half, quarter = decision.compared
        picks = {way: self._pick(number) for way, number in decision.chosen.items()}
        texts, coverage, disagreement, percentile = self._compared_texts(change)
        return ChoiceRecord(
            sae=setting.dictionary.sae,
            token=case.token,
            text=case.text,
            features=case.features,
            l0=int((self.codes > 0).sum()),
            alternative_count=max(case.known, len(candidates.token)),
            priced=len(candidates.token),
            bits=Compare(*width["bits"]),
            bits_half=Compare(*half["bits"]),
            bits_quarter=Compare(*quarter["bits"]),
            joint_bits=self._joint_bits(),
            l1=Compare(*width["l1"]),
            l2=Compare(*width["l2"]),
            chosen=Chosen(
                mdl=picks.get("bits"),
                l1=picks["l1"],
                l2=picks["l2"],
                error=picks["error"],
                encoder=None if case.encoder is None else self._pick(case.encoder),
            ),
            removed=change.removed,
            added=change.added,
            moved=self._moved(),
            codes=setting.codes(self.rows, self.codes),
            alternative=()
            if best < 0
            else setting.codes(candidates.rows[best], candidates.codes[best]),
            margin_bits=decision.margin,
            resolved=decision.resolved,
            explanations=texts,
            disagreement=disagreement,
            percentile=percentile,
            similarity_method=setting.explanations.method if setting.explanations else None,
            coverage=coverage,
        )

    def _pick(self, number: int) -> Pick:
        """A candidate by its features; the reference where the number is -1."""
        if number < 0:
            return Pick((), ())
        live = self.setting.chooser.units.live
        return Pick((int(live[self.leaving[number]]),), (int(live[self.candidates.row[number]]),))

    def _moved(self) -> float | None:
        if self.decision.shortest < 0:
            return None
        leaving = self.leaving[self.decision.shortest]
        return float(self.codes[self.rows == leaving].sum() / self.codes.sum())

    def _compared_texts(
        self, change: Pick
    ) -> tuple[Texts | None, float | None, float | None, float | None]:
        """Texts of what the shortest alternative changes, their coverage, and the disagreement."""
        explanations = self.setting.explanations
        if explanations is None or self.decision.shortest < 0:
            return None, None, None, None
        texts = Texts(
            tuple(explanations.text(f) for f in change.removed),
            tuple(explanations.text(f) for f in change.added),
        )
        known = [text is not None for text in (*texts.removed, *texts.added)]
        (disagreement,) = explanations.of(change.removed, change.added)
        percentile = None if disagreement is None else explanations.percentile(disagreement)
        return texts, sum(known) / len(known), disagreement, percentile

    def _joint_bits(self) -> Compare | None:
        """Bits with the gates of the case's features priced together, by how they fired together.

        Independent gates misprice twins and children that exclude each other. Half a count a
        pattern.
        """
        table = self.setting.joint.get(self.case.features)
        if table is None:
            return None
        alternatives = [
            self._bits_together(table, rows, codes)
            for rows, codes in zip(self.candidates.rows, self.candidates.codes, strict=True)
        ]
        known = [bits for bits in alternatives if bits is not None]
        reference = self._bits_together(table, self.rows, self.codes)
        return Compare(reference, min(known) if known else None)

    def _bits_together(self, table: Tensor, rows: Tensor, codes: Tensor) -> float | None:
        prices = self.setting.chooser.prices[0]
        active = set(rows[codes > 0].tolist())
        if not all(bool(prices.observed[row]) for row in active):
            return None
        bits = float(prices.codes(rows[None], codes[None])[0])
        pattern = 0
        for n, feature in enumerate(self.case.features):
            row = self.setting.position[feature]
            bits -= float((prices.on if row in active else prices.off)[row])
            pattern += (row in active) << n
        total = float(table.sum()) + 0.5 * len(table)
        return bits - math.log2((float(table[pattern]) + 0.5) / total)
