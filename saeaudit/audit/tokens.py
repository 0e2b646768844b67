"""Which activations are looked at: a draw over documents, less those that would tell nothing.

The draw is the same for every command with the same seed: the activations that `score` measures
come first, so that those are what `mediators` looks at too.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import WINDOW, Coder
from saeaudit.audit.misfit import tell_misfit
from saeaudit.audit.observer import Observer
from saeaudit.audit.token_options import TokenOptions
from saeaudit.core.rows import spans
from saeaudit.errors import AuditError
from saeaudit.records import Skipped
from saeaudit.sources.stacked import Activations
from saeaudit.vocabulary import Parts, SkipReason

MEASURED = 0.2
"""Share of the activations that is measured; prices are fitted on the others."""
FEWEST_DOCUMENTS = 10
"""Fewer documents than this cannot be parted so; then blocks are."""
BLOCK = 128
"""Activations to a block, where documents are not known, or fewer: there are at least fifty."""
PILOT = 2048
"""Activations that tell the median norm."""
OUTLIER = 10.0
"""An activation is an outlier where its norm is more than this many times the median."""
TOY = 64
"""Active features that are never too many, however narrow the SAE is."""
MOST_WORK = 1 << 42
"""Multiplications that the exchanges of one activation may take."""
LISTED = 100
"""Most positions recorded of those left out for one reason."""
SHOWN = 8
"""Most of these shown to people."""


class Draw(NamedTuple):
    """All activations in the order in which they are taken."""

    measured: Tensor
    """``[m]`` int64: about a fifth of them, in whole parts."""
    others: Tensor
    """``[N - m]`` int64."""
    by: Parts
    """Whether parts are documents, or blocks of neighbours."""
    parts: int
    """How many there are."""
    part: Tensor
    """``[N]`` int64: which of them each activation is in."""

    @property
    def order(self) -> Tensor:
        """``[N]``: those that are measured first."""
        return torch.cat([self.measured, self.others])

    def __str__(self) -> str:
        return f"{self.parts:,} {'documents' if self.by == 'documents' else 'blocks of neighbours'}"


def draw_tokens(
    count: int, documents: Tensor | None, seed: int, measured: int | None = None
) -> Draw:
    """Draw activations, documents at a time: neighbours say the same things.

    Every document, and every activation within those that are measured, is as likely as any other
    to come first.

    Args:
        count: number of activations, N.
        documents: ``[N]`` int64, equal within a document; None where they are not known.
        seed: of the draw.
        measured: an activation that is to be measured, with the whole of its part.
    """
    generator = torch.Generator().manual_seed(seed)
    part = torch.arange(count) // max(1, min(BLOCK, count // 50))
    by: Parts = "blocks"
    if documents is not None:
        known, of = torch.unique(documents, return_inverse=True)
        if len(known) >= FEWEST_DOCUMENTS:
            part, by = of, "documents"
    sizes = torch.bincount(part)
    order = torch.randperm(len(sizes), generator=generator).tolist()
    room = int(MEASURED * count)
    taken = torch.zeros(len(sizes), dtype=torch.bool)
    if measured is not None:
        taken[part[measured]] = True
        room -= int(sizes[part[measured]])
    lengths = sizes.tolist()
    for number in order:
        if lengths[number] <= room and not taken[number]:
            taken[number] = True
            room -= lengths[number]
    shuffled = torch.randperm(count, generator=generator)
    first = taken[part[shuffled]]
    return Draw(shuffled[first], shuffled[~first], by, len(sizes), part)


def most_active(features: int, width: int) -> int:
    """Most active features of an activation that is looked at.

    A code on more than half of the dimensions is not sparse: nearly everything is a combination of
    so many features, and exchanges are without number. And the exchanges of k of F features in d
    dimensions take some ``4 k F (d + k) + 16 k^4`` multiplications, of which there are at most
    `MOST_WORK`.

    Example: 192 for the bundled SAE, 2,048 features in 384 dimensions; 718 for 16,384 in 2,304.

    Args:
        features: F.
        width: d.
    """
    most = max(TOY, width // 2)
    while most > 1 and 4 * most * features * (width + most) + 16 * most**4 > MOST_WORK:
        most -= 1
    return most


class Sieve:
    """Leaves out activations that are outliers or too dense, and counts them.

    `core.codes.swaps` has what one activation costs: an outlier, whose code can have a thousand
    features, takes longer than a million others.
    """

    def __init__(
        self, coder: Coder, activations: Activations, draw: Draw, options: TokenOptions,
        observer: Observer,
    ) -> None:  # fmt: skip
        """Survey the first activations drawn, and say so where they are not the SAE's.

        Args:
            coder: the SAE.
            activations: ``[N, d_in]`` of any float dtype.
            draw: of these.
            options: say how many are looked at, and whether outliers are.
            observer: is told how far it is, and what a user should read.

        Raises:
            AuditError: an activation is not finite.
        """
        self._coder, self._activations, self._draw = coder, activations, draw
        self._options, self._observer = options, observer
        count = len(activations)
        self._norms = torch.full((count,), math.nan, dtype=torch.float64)
        self._l0 = torch.full((count,), -1, dtype=torch.int64)
        self._reasons: dict[SkipReason, Tensor] = {
            reason: torch.zeros(count, dtype=torch.bool) for reason in ("norm", "l0")
        }
        self._most = most_active(coder.units.count, coder.units.width)
        pilot = draw.order[:PILOT]
        self._survey(pilot, encode=False)
        norms = self._norms[pilot]
        self._median = float(norms[norms > 0].median()) if bool((norms > 0).any()) else math.inf
        self._words: dict[SkipReason, str] = {
            "norm": f"a norm over {OUTLIER:g} times the median of {self._median:.3g} "
            "(--keep-outliers keeps them)",
            "l0": f"more than {self._most} active features",
        }
        usable = pilot[~self._outlying(pilot)][:WINDOW]
        tell_misfit(coder, activations, usable, self.l0(usable), observer)

    def take(self, order: Tensor, most: int = 0) -> Tensor:
        """The first activations ``[n]`` of an order that are neither outliers nor too dense.

        Args:
            order: ``[m]`` int64, as drawn.
            most: how many; 0 for all.

        Raises:
            AuditError: an activation is not finite, or none is left.
        """
        # One tensor, and none for each window: small ones that stay would lie in the room of the
        # window's large ones, and the next window's would need other room.
        kept = torch.zeros(len(order), dtype=torch.bool)
        count = 0
        for start, stop in spans(len(order), WINDOW):
            part = order[start:stop]
            usable = self.l0(part) <= self._most
            usable &= ~self._outlying(part)
            if most and count + int(usable.sum()) >= most:
                last = int(usable.nonzero()[most - count - 1])
                part, usable = part[: last + 1], usable[: last + 1]
            left_out = part[~usable]
            outlying = self._outlying(left_out)
            self._reasons["norm"][left_out[outlying]] = True
            self._reasons["l0"][left_out[~outlying]] = True
            kept[start : start + len(part)] = usable
            count += int(usable.sum())
            wanted = min(most or len(order), len(order))
            self._observer.step("surveying", max(count / wanted, stop / len(order)), wanted)
            if count == most:
                break
        if not count:
            raise AuditError(
                f"no activation is looked at: each of {len(order):,} has a norm over {OUTLIER:g} "
                f"times the median or more than {self._most} active features",
                where=self._coder.dictionary.sae,
                hint="are they of another layer, hook or model, or scaled?",
            )
        return order[kept]

    def without_outliers(self, order: Tensor) -> Tensor:
        """Those activations of an order ``[m]`` that are no outliers, however dense.

        Raises:
            AuditError: an activation is not finite.
        """
        self._survey(order, encode=False)
        outlying = self._outlying(order)
        self._reasons["norm"][order[outlying]] = True
        return order[~outlying]

    def sparse(self, tokens: Tensor) -> Tensor:
        """Those of some activations ``[m]`` that are not too dense; others are not counted.

        Raises:
            AuditError: an activation is not finite.
        """
        return tokens[self.l0(tokens) <= self._most]

    def check_usable(self, token: int, where: str) -> None:
        """Refuse an activation that was left out.

        Raises:
            AuditError: it was.
        """
        for reason, left_out in self._reasons.items():
            if bool(left_out[token]):
                raise AuditError(f"token {token} has {self._words[reason]}", where=where)

    def l0(self, tokens: Tensor) -> Tensor:
        """Active features ``[m]`` int64 of some activations ``[m]``.

        Raises:
            AuditError: an activation is not finite.
        """
        self._survey(tokens, encode=True)
        return self._l0[tokens]

    def skipped(self) -> tuple[Skipped, ...]:
        """What was left out so far, for each reason."""
        listed = []
        for reason, left_out in self._reasons.items():
            tokens = left_out.nonzero().squeeze(1)
            if len(tokens):
                listed.append(Skipped(reason, len(tokens), tuple(tokens[:LISTED].tolist())))
        return tuple(listed)

    def tell(self, taken: int) -> None:
        """Say how many activations are looked at, and which were left out.

        Args:
            taken: how many are.
        """
        note, count, skipped = self._observer.note, len(self._activations), self.skipped()
        if taken + sum(reason.count for reason in skipped) < count:
            note(
                f"{taken:,} of {count:,} activations, drawn from {self._draw} (--seed "
                f"{self._options.seed}); --max-tokens 0 takes all"
            )
        for left_out in skipped:
            positions = ", ".join(map(str, left_out.positions[:SHOWN]))
            more = ", …" if left_out.count > SHOWN else ""
            reason = self._words[left_out.reason]
            note(f"{left_out.count:,} activations left out with {reason}: {positions}{more}")

    def _outlying(self, tokens: Tensor) -> Tensor:
        if self._options.keep_outliers:
            return torch.zeros(len(tokens), dtype=torch.bool)
        return self._norms[tokens] > OUTLIER * self._median

    def _survey(self, tokens: Tensor, *, encode: bool) -> None:
        """Norms of some activations, and L0 where they are encoded, as far as they are unknown."""
        unknown = self._l0[tokens] < 0 if encode else self._norms[tokens].isnan()
        unseen = tokens[unknown]
        for start, stop in spans(len(unseen), WINDOW):
            part = unseen[start:stop]
            if encode:
                encoded = self._coder.encode(self._activations, part)
                self._norms[part] = encoded.norms.cpu()
                self._l0[part] = encoded.l0.cpu()
            else:
                self._norms[part] = self._coder.norms(self._activations, part).cpu()
