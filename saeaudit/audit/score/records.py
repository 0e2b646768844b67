"""From decisions to records, and the figures that sum them up."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saeaudit.audit.codes import make_encoder
from saeaudit.audit.score.choose import Chooser, Decision
from saeaudit.audit.score.disagreement import Disagreement
from saeaudit.core.codes.candidates import Candidates
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import (
    ChoiceRecord,
    Chosen,
    Code,
    Compare,
    Pick,
    Texts,
)

if TYPE_CHECKING:
    from saeaudit.core.codes.encode import Encoder


@dataclass(frozen=True, eq=False)
class Setting:
    """What every choice is made with."""

    dictionary: Dictionary
    chooser: Chooser
    explanations: Disagreement | None
    joint: dict[tuple[int, ...], Tensor] = field(repr=False)
    """``[2^m]`` counts of the on/off patterns of some sets of m features."""

    @cached_property
    def position(self) -> dict[int, int]:
        """Live row of each live feature."""
        return {feature: at for at, feature in enumerate(self.chooser.units.live.tolist())}

    @cached_property
    def encoder(self) -> Encoder | None:
        """The SAE's encoder, or None."""
        try:
            return make_encoder(self.dictionary, dtype=torch.float64)
        except AuditError:
            return None

    def pick(self, place: int, found: Candidates, leaving: list[int]) -> Pick:
        """A candidate by its features; the reference where `place` is -1."""
        if place < 0:
            return Pick((), ())
        entering = int(self.chooser.units.live[found.row[place]])
        return Pick((leaving[place],), (entering,))

    def codes(self, rows: Tensor, codes: Tensor) -> tuple[Code, ...]:
        """Unit-row codes ``[k]`` in the file's scale, by feature; zeros are left out."""
        keep = (rows >= 0) & (codes > 0)
        rows, codes = rows[keep], codes[keep] / self.chooser.units.norms[rows[keep]]
        found = zip(self.chooser.units.live[rows].tolist(), codes.tolist(), strict=True)
        return tuple(Code(feature, value) for feature, value in sorted(found))


def choice_record(
    setting: Setting, decision: Decision, reference: tuple[Tensor, Tensor], found: Candidates, *,
    token: int | None, text: str | None, features: tuple[int, ...], alternatives: int,
    encoder: int | None, leaving: Tensor | None = None,
) -> ChoiceRecord:  # fmt: skip
    """One choice as a record.

    Args:
        setting: what it was made with.
        decision: the choice.
        reference: live rows ``[k]`` and unit-row codes ``[k]`` of the reference.
        found: the alternatives that were priced.
        token, text, features, alternatives: as in the record.
        encoder: what the encoder takes: -1 the reference, 0 the first alternative, None unknown.
        leaving: ``[m]`` live rows that leave, where `found` does not say by place.
    """
    rows, codes = reference
    live = setting.chooser.units.live
    left = (rows[found.place] if leaving is None else leaving) if len(found.token) else rows[:0]
    gone = live[left].tolist()
    best = decision.shortest
    change = setting.pick(best, found, gone)
    moved = None
    if best >= 0:
        moved = float(codes[rows == left[best]].sum() / codes.sum())
    texts = disagreement = percentile = coverage = None
    if setting.explanations is not None and best >= 0:
        said = setting.explanations
        texts = Texts(
            tuple(said.text(f) for f in change.removed), tuple(said.text(f) for f in change.added)
        )
        known = [t is not None for t in (*texts.removed, *texts.added)]
        coverage = sum(known) / len(known)
        (disagreement,) = said.of(change.removed, change.added)
        percentile = None if disagreement is None else said.percentile(disagreement)
    width, half, quarter = decision.compared
    picks = {way: setting.pick(at, found, gone) for way, at in decision.chosen.items()}
    return ChoiceRecord(
        sae=setting.dictionary.sae,
        token=token,
        text=text,
        features=features,
        l0=int((codes > 0).sum()),
        alternatives=alternatives,
        priced=len(found.token),
        bits=width["bits"],
        bits_half=half["bits"],
        bits_quarter=quarter["bits"],
        joint_bits=_joint(setting, features, reference, found) if features else None,
        l1=width["l1"],
        l2=width["l2"],
        chosen=Chosen(
            mdl=picks.get("bits"),
            l1=picks["l1"],
            l2=picks["l2"],
            error=picks["error"],
            encoder=None if encoder is None else setting.pick(encoder, found, gone),
        ),
        removed=change.removed,
        added=change.added,
        moved=moved,
        codes=setting.codes(rows, codes),
        alternative=setting.codes(found.rows[best], found.codes[best]) if best >= 0 else (),
        margin_bits=decision.margin,
        resolved=decision.resolved,
        explanations=texts,
        disagreement=disagreement,
        percentile=percentile,
        similarity_method=setting.explanations.method if setting.explanations else None,
        coverage=coverage,
    )


def _joint(
    setting: Setting, features: tuple[int, ...], reference: tuple[Tensor, Tensor],
    found: Candidates,
) -> Compare | None:  # fmt: skip
    """Bits with the gates of `features` priced together, from how often they fired together.

    Independent gates misprice twins and children that exclude each other. Half a count a pattern.
    """
    table = setting.joint.get(features)
    prices = setting.chooser.prices[0]
    if table is None:
        return None
    position = [setting.position[f] for f in features]
    total = float(table.sum()) + 0.5 * len(table)

    def bits(rows: Tensor, codes: Tensor) -> float | None:
        active = set(rows[codes > 0].tolist())
        if not all(bool(prices.observed[row]) for row in active):
            return None
        alone = float(prices.codes(rows[None], codes[None])[0])
        pattern = 0
        for n, row in enumerate(position):
            alone -= float((prices.on if row in active else prices.off)[row])
            pattern += (row in active) << n
        return alone - math.log2((float(table[pattern]) + 0.5) / total)

    others = [bits(r, c) for r, c in zip(found.rows, found.codes, strict=True)]
    known = [b for b in others if b is not None]
    return Compare(bits(*reference), min(known) if known else None)
