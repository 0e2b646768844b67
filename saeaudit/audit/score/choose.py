"""What is chosen on: cases, the alternatives of each, and which of them is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import make_encoder, unit_thresholds, written_codes
from saeaudit.audit.disagreement import Disagreement
from saeaudit.audit.score.window import Window
from saeaudit.audit.texts import TokenText, token_text
from saeaudit.core.codes.candidates import Candidates
from saeaudit.core.codes.canonical import CanonicalCodes, canonicalise
from saeaudit.core.codes.choose import Chooser, Decision, Group, Proof
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import Code

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
        """Unit-row codes ``[k]`` as records have them."""
        units = self.chooser.units
        (written,) = written_codes(units, self._thresholds, rows[None], codes[None])
        return written

    @cached_property
    def _thresholds(self) -> Tensor:
        return unit_thresholds(self.dictionary, self.chooser.units.live)


class Case(NamedTuple):
    """What a choice is about: a token, or an example of an exchange."""

    token: int | None
    """Its number; None for an example."""
    text: TokenText
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
    """Cases that are decided together."""

    cases: list[Case]
    group: Group
    """Reference codes."""
    candidates: Candidates
    exchanges: Exchanges
    decisions: list[Decision]
    """What is chosen between each reference and its candidates."""
    proof: Proof | None = None
    """What is known of others; None where candidates are given."""
    canonical: CanonicalCodes | None = None
    """What going on comes to, where that is asked for."""


def search_batches(
    setting: Setting, window: Window, searched: Sequence[tuple[Tensor, bool]], *, canonical: bool
) -> Iterator[Batch]:
    """Look for the alternatives of a window's tokens and choose, by like support size.

    Args:
        setting: what choices are made with.
        window: tokens.
        searched: positions ``[m]`` int64, of which those in the window count, and whether codes of
            least L1 and L2 are looked for too.
        canonical: whether to go on exchanging while codes get shorter.
    """
    chooser, enter = setting.chooser, window.enter
    for positions, norms in searched:
        for tokens, fit, group in window.groups(positions):
            alternatives = chooser.alternatives(fit, group, enter, norms=norms)
            candidates = alternatives.candidates
            decisions = chooser.decide(group, candidates, norms=norms, window=chooser.window)
            reached = canonicalise(chooser, fit, group, enter) if canonical else None
            yield Batch(
                cases=_token_cases(setting, tokens, alternatives.counts),
                group=group,
                candidates=candidates,
                exchanges=_best_exchanges(setting, group, alternatives.best),
                decisions=list(decisions),
                proof=alternatives.proof,
                canonical=reached,
            )


def _token_cases(setting: Setting, tokens: Tensor, counts: Tensor) -> list[Case]:
    return [
        Case(token, token_text(setting.tokens, token), (), count, encoder=-1)
        for token, count in zip(tokens.tolist(), counts.tolist(), strict=True)
    ]


def _best_exchanges(setting: Setting, group: Group, best: Tensor) -> Exchanges:
    """Each feature of the codes with the row ``best [B, k]`` that replaces it, if one can."""
    live, rows = setting.chooser.units.live, group.rows
    total = group.codes.sum(1, keepdim=True)
    moved = torch.where(total > 0, group.codes / total, 0.0)
    case, place = (best >= 0).nonzero().unbind(1)
    return Exchanges(
        case.tolist(), live[rows[case, place]].tolist(), live[best[case, place]].tolist(),
        moved[case, place].tolist(),
    )  # fmt: skip
