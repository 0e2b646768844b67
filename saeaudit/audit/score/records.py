"""From decisions to records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import torch
from torch import Tensor

from saeaudit.audit.score.choose import Batch, Case, Setting
from saeaudit.core.codes.candidates import Candidates
from saeaudit.core.codes.canonical import Step
from saeaudit.core.codes.choose import Decision
from saeaudit.records import ChoiceRecord, Code, Compare, Pick, Picks, Texts


def choice_records(setting: Setting, batch: Batch) -> Iterator[ChoiceRecord]:
    """The choice on each case of a batch, in order."""
    start = 0
    counts = torch.bincount(batch.candidates.token, minlength=len(batch.cases)).tolist()
    for n, decision in enumerate(batch.decisions):
        of_case = slice(start, start + counts[n])
        start += counts[n]
        candidates = Candidates(*(column[of_case] for column in batch.candidates))
        yield _Choice(setting, batch, n, decision, candidates).record()


@dataclass(frozen=True, eq=False)
class _Choice:
    """One decision and what it was between."""

    setting: Setting
    batch: Batch
    number: int
    """Of the case in the batch."""
    decision: Decision
    candidates: Candidates

    @property
    def _case(self) -> Case:
        return self.batch.cases[self.number]

    @cached_property
    def _codes(self) -> dict[int, float]:
        """Unit-row codes of the reference, by live row."""
        rows, codes = self.batch.group.rows[self.number], self.batch.group.codes[self.number]
        pairs = zip(rows.tolist(), codes.tolist(), strict=True)
        return {row: code for row, code in pairs if code > 0}

    def record(self) -> ChoiceRecord:
        setting, case, decision, number = self.setting, self._case, self.decision, self.number
        proof, group = self.batch.proof, self.batch.group
        change = Pick((), ()) if decision.shortest is None else self._pick(decision.shortest)
        width, half, quarter = (
            {name: Compare(*compared) for name, compared in at.items()} for at in decision.compared
        )
        picks = {way: self._pick(candidate) for way, candidate in decision.picks.items()}
        canonical = self.batch.canonical
        texts, coverage, disagreement, percentile = self._compared_texts(change)
        encoder_excess, support_excess = _excess(width["bits"])
        priced = int(self.candidates.priced.sum())
        return ChoiceRecord(
            sae=setting.dictionary.sae,
            token=case.token,
            text=case.text.text,
            context=case.text.context,
            features=case.features,
            l0=len(self._codes),
            alternative_count=case.known if proof else max(case.known, priced),
            priced=proof.solved[number] if proof else priced,
            bits=width["bits"],
            bits_half=half["bits"],
            bits_quarter=quarter["bits"],
            joint_bits=self._joint_bits(),
            gap_bits=_finite(proof.gap[number]) if proof else None,
            encoder_excess_bits=encoder_excess,
            support_excess_bits=support_excess,
            l1=width["l1"],
            l2=width["l2"],
            chosen=decision.chosen,
            picks=Picks(
                mdl=picks.get("bits"),
                l1=picks.get("l1"),
                l2=picks.get("l2"),
                error=picks["error"],
                encoder=None if case.encoder is None else self._pick(case.encoder),
            ),
            removed=change.removed,
            added=change.added,
            moved=None if decision.shortest is None else self._moved(change),
            codes=setting.codes(group.rows[number], group.codes[number]),
            support_codes=self._candidate_codes(decision.support),
            alternative=self._candidate_codes(decision.shortest),
            margin_bits=decision.margin,
            wins=decision.wins,
            resolved=decision.resolved,
            canonical_bits=_finite(float(canonical.bits[number])) if canonical else None,
            canonical_codes=setting.codes(canonical.rows[number], canonical.codes[number])
            if canonical else (),
            canonical_path=self._path(canonical.paths[number]) if canonical else (),
            explanations=texts,
            disagreement=disagreement,
            percentile=percentile,
            similarity_method=setting.explanations.method if setting.explanations else None,
            coverage=coverage,
        )  # fmt: skip

    def _candidate_codes(self, number: int | None) -> tuple[Code, ...]:
        if number is None:
            return ()
        return self.setting.codes(self.candidates.rows[number], self.candidates.codes[number])

    def _path(self, steps: Sequence[Step]) -> tuple[Pick, ...]:
        return tuple(Pick(self._features(s.removed), self._features(s.added)) for s in steps)

    def _features(self, rows: Iterable[int]) -> tuple[int, ...]:
        live = self.setting.chooser.units.live
        return tuple(sorted(int(live[row]) for row in rows))

    def _pick(self, number: int) -> Pick:
        """A candidate by its features; the reference where the number is -1."""
        if number < 0:
            return Pick((), ())
        rows, codes = self.candidates.rows[number], self.candidates.codes[number]
        after, before = set(rows[codes > 0].tolist()), self._codes.keys()
        return Pick(self._features(before - after), self._features(after - before))

    def _moved(self, change: Pick) -> float:
        position = self.setting.position
        moved = sum(self._codes[position[feature]] for feature in change.removed)
        return moved / sum(self._codes.values())

    def _compared_texts(
        self, change: Pick
    ) -> tuple[Texts | None, float | None, float | None, float | None]:
        """Texts of what the alternative changes, their coverage, and the disagreement."""
        explanations = self.setting.explanations
        if explanations is None or self.decision.shortest is None:
            return None, None, None, None
        texts = Texts(
            tuple(explanations.text(f) for f in change.removed),
            tuple(explanations.text(f) for f in change.added),
        )
        known = [text is not None for text in (*texts.removed, *texts.added)]
        pairs = list(product(change.removed, change.added))
        each = explanations.of([i for i, _ in pairs], [j for _, j in pairs])
        position = self.setting.position
        compared = [
            (value, self._codes[position[i]])
            for value, (i, _) in zip(each, pairs, strict=True)
            if value is not None
        ]
        disagreement = percentile = None
        if compared:
            weight = sum(code for _, code in compared)
            disagreement = sum(value * code for value, code in compared) / weight
            percentile = explanations.percentile(disagreement)
        return texts, sum(known) / len(known), disagreement, percentile

    def _joint_bits(self) -> Compare | None:
        """Bits with the gates of the case's features priced together, by how they fired together.

        Independent gates misprice twins and children that exclude each other. Half a count a
        pattern.
        """
        table = self.setting.joint.get(self._case.features)
        if table is None:
            return None
        both = zip(self.candidates.rows, self.candidates.codes, self.candidates.row, strict=True)
        least: dict[bool, float] = {}
        for rows, codes, row in both:
            bits, other = self._bits_together(table, rows, codes), bool(row >= 0)
            if bits is not None:
                least[other] = min(bits, least.get(other, math.inf))
        group = self.batch.group
        reference = self._bits_together(table, group.rows[self.number], group.codes[self.number])
        return Compare(reference, least.get(False), least.get(True))

    def _bits_together(self, table: Tensor, rows: Tensor, codes: Tensor) -> float | None:
        prices = self.setting.chooser.prices[0]
        active = set(rows[codes > 0].tolist())
        if not all(bool(prices.observed[row]) for row in active):
            return None
        bits = float(prices.codes(rows[None], codes[None])[0])
        pattern = 0
        for n, feature in enumerate(self._case.features):
            row = self.setting.position[feature]
            bits -= float((prices.on if row in active else prices.off)[row])
            pattern += (row in active) << n
        total = float(table.sum()) + 0.5 * len(table)
        return bits - math.log2((float(table[pattern]) + 0.5) / total)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _excess(bits: Compare) -> tuple[float | None, float | None]:
    """Bits of the reference, and of its features with other values, beyond the shortest."""
    if bits.reference is None:
        return None, None
    support = bits.reference if bits.support is None else min(bits.reference, bits.support)
    least = support if bits.alternative is None else min(support, bits.alternative)
    # Alternatives that come from records say nothing of the reference's features.
    return bits.reference - least, None if bits.support is None else support - least
