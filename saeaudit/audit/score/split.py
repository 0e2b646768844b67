"""Which activations prices are fitted on, which are measured by them, and which are chosen on."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import WINDOW, Coder
from saeaudit.audit.observer import Observer
from saeaudit.audit.score.inputs import CheckedInputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.window import window_size
from saeaudit.audit.tokens import PILOT, Sieve, draw_tokens
from saeaudit.errors import AuditError
from saeaudit.records import Skipped
from saeaudit.sources.stacked import Activations
from saeaudit.vocabulary import Parts

FEWEST = 10
"""Fewest activations that can be split."""
NORMED = 100
"""Activations whose codes of least L1 and L2 are searched for: each takes as long as the search of
the shortest, and a share of these is known to 10 % all the same."""


class Split(NamedTuple):
    """Activations, and positions among them, int64 and ascending."""

    coder: Coder
    """The SAE that encodes them."""
    activations: Activations
    """``[N, d_in]`` of any float dtype."""
    pilot: Tensor
    """The width of the bins is chosen on these."""
    fitted: Tensor
    """Prices are fitted on these; none with an export's histograms, nor of those that follow."""
    measured: Tensor
    """Codes of these are priced."""
    chosen: Tensor
    """Of those measured, the ones whose alternatives are chosen between."""
    normed: Tensor
    """Of those, the ones whose codes of least L1 and L2 are searched for."""
    window: int
    """How many are measured at once."""
    part: Tensor
    """``[N]`` int64: which document, or block of neighbours, each activation is in."""
    drawn_by: Parts
    """Whether whole documents are measured, or blocks of neighbours."""
    skipped: tuple[Skipped, ...]
    """What was left out."""

    @property
    def searched(self) -> list[tuple[Tensor, bool]]:
        """Those chosen, in two parts: which, and whether they are among those normed."""
        others = self.chosen[~torch.isin(self.chosen, self.normed)]
        return [(self.normed, True), (others, False)]


def split_activations(
    coder: Coder, inputs: CheckedInputs, options: ScoreOptions, observer: Observer
) -> Split | None:
    """Draw the activations that are measured, a fifth of the documents; the others are fitted on.

    Args:
        coder: the SAE.
        inputs: of this SAE.
        options: say how many are chosen on, or which one.
        observer: is told how far it is, and what a user should read.

    Returns:
        None where there are no activations.

    Raises:
        AuditError: too few activations, one that is not finite, or a token to explain
            that there is not, that is left out, or whose document is too long.
    """
    activations, explained = inputs.activations, options.explain
    if activations is None:
        return None
    if inputs.features is None:
        _check_count(len(activations), explained, coder.dictionary.sae)
    draw = draw_tokens(len(activations), inputs.documents, options.seed, measured=explained)
    sieve = Sieve(coder, activations, draw, options, observer)
    if inputs.features is None:
        if len(draw.measured) > len(draw.others):
            raise AuditError(
                f"the document of token {explained} has most of the activations: too few are left "
                "to fit prices on",
                where="--explain",
                hint="activations of more documents",
            )
        measured = sieve.take(draw.measured)
        fitted = sieve.without_outliers(draw.others)
        pilot = sieve.sparse(fitted[:PILOT])
        sieve.tell(len(measured) + len(fitted))
    else:
        pilot = sieve.take(draw.order, PILOT)
        measured = fitted = pilot[:0]
    chosen = measured[: options.max_tokens or None]
    if explained is not None:
        sieve.check_usable(explained, "--explain")
        chosen = measured[measured == explained]
    return Split(
        coder,
        activations,
        pilot[: window_size(sieve.l0(pilot), PILOT)].sort().values,
        fitted.sort().values,
        measured.sort().values,
        chosen.sort().values,
        chosen[:NORMED].sort().values,
        window_size(sieve.l0(measured), WINDOW),
        draw.part,
        draw.by,
        sieve.skipped(),
    )


def _check_count(count: int, explained: int | None, sae: str) -> None:
    if count < FEWEST:
        raise AuditError(
            f"too few tokens: {count}; some are fitted on and the others measured",
            where=sae,
            hint="more activations",
        )
    if explained is not None and explained >= count:
        raise AuditError(
            f"there is no token {explained} among {count:,} activations", where="--explain"
        )
