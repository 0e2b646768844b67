"""Controls: what an SAE, or what it is measured on, becomes where there is nothing to be seen.

A control repeats all measures. Two of them take codes that no encoder was trained for, by the same
non-negative pursuit of the same k: their yardstick, the same pursuit on the SAE and its
activations, is made beside each of them. So only one thing differs between the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TypeVar

import torch

from saeaudit.audit.codes import Coder
from saeaudit.audit.mediators.inputs import MediatorInputs
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.score.inputs import ScoreInputs
from saeaudit.audit.token_options import TokenOptions
from saeaudit.audit.tokens import PILOT, Sieve, draw_tokens
from saeaudit.core.null import permuted_along_axes, random_rows
from saeaudit.core.rows import row_norms
from saeaudit.dictionary import Dictionary, validate
from saeaudit.errors import AuditError
from saeaudit.sources.stacked import Activations
from saeaudit.vocabulary import Control

MOST_BYTES = 4 << 30
"""Activations that are permuted are held in memory, and are no more than this."""

Inputs = TypeVar("Inputs", MediatorInputs, ScoreInputs)


class Steps(Observer):
    """Hands on how far it is, and no notes: those are of the SAE, which is not what is looked at.

    >>> Steps(SILENT).note("the first 1,000 of 5,000 activations")
    """

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def step(self, name: str, share: float, tokens: int | None = None) -> None:
        """A step of this name is done to this share, 0 to 1, perhaps of so many tokens."""
        self._observer.step(name, share, tokens)


def check_type(inputs: object, wanted: type[MediatorInputs] | type[ScoreInputs]) -> None:
    """Refuse what are no inputs, such as the activations themselves.

    Raises:
        AuditError: they are of another type.
    """
    if not isinstance(inputs, wanted):
        raise AuditError(
            f"an object of type {type(inputs).__name__}", where="inputs",
            hint=f"{wanted.__name__}(activations)",
        )  # fmt: skip


def trials(
    dictionary: Dictionary, inputs: Inputs, control: Control | None, options: TokenOptions,
    device: str,
) -> Iterator[tuple[Dictionary, Inputs]]:  # fmt: skip
    """What is to be measured: the SAE itself, or a control and its yardstick first.

    Args:
        dictionary: an opened SAE; a control with activations needs its encoder.
        inputs: what it is measured on.
        control: which; None for none.
        options: say which activations are looked at.
        device: where to compute.

    Yields:
        Dictionaries, each called after its control, and what it is measured on.

    Raises:
        AuditError: no activations, or more than can be held; no encoder, or no activation that is
            looked at.
    """
    if control is None:
        yield dictionary, inputs
        return
    if control == "shuffled-labels":
        yield _named(dictionary, dictionary.sae, control), inputs
        return
    activations = inputs.activations
    if activations is None:
        raise AuditError(
            f"--control {control} needs activations",
            where=dictionary.sae,
            hint="--activations PATH",
        )
    if control == "permuted-tokens":
        _check_size(activations, dictionary.sae)
    draw = draw_tokens(len(activations), inputs.documents, options.seed)
    sieve = Sieve(Coder(dictionary, device), activations, draw, options, SILENT)
    pilot = sieve.take(draw.order, PILOT)
    pursued = pursuing(dictionary, max(1, round(float(sieve.l0(pilot).double().mean()))))
    yield _named(pursued, dictionary.sae, "pursuit"), inputs
    if control == "random-decoder":
        drawn = random_decoder(pursued, options.seed)
        yield _named(drawn, dictionary.sae, control), inputs
    else:
        kept = sieve.without_outliers(draw.order).sort().values
        permuted = permuted_along_axes(activations[:], kept, options.seed)
        inputs = replace(inputs, activations=permuted, tokens=None)
        yield _named(pursued, dictionary.sae, control), inputs


def pursuing(dictionary: Dictionary, k: int) -> Dictionary:
    """The same decoder, with codes of at most k features by non-negative pursuit."""
    weights = dictionary.weights
    decoder = weights.decoder
    weights = replace(
        weights, architecture="nnomp", k=k, encoder=lambda: decoder.T, b_enc=None,
        threshold=None, b_gate=None, b_mag=None, r_mag=None, norm_scaled=False,
        unstated=(), notes=(),
        # What is pursued is what the decoder's rows must add up to.
        subtract_b_dec=True, input_scale=weights.output_scale,
    )  # fmt: skip
    return replace(dictionary, weights=weights)


def random_decoder(dictionary: Dictionary, seed: int) -> Dictionary:
    """Rows drawn by `random_rows` like the unit rows of the features that are not collapsed.

    Each has the norm of the row in whose place it stands; rows that are zero or not finite stay.
    """
    decoder, live = dictionary.weights.decoder, dictionary.live()
    units = decoder[live].to(torch.float64) / dictionary.norms[live, None]
    usable = dictionary.live(include_collapsed=True)
    rows = random_rows(units, len(usable), seed) * dictionary.norms[usable, None]
    drawn = decoder.to(torch.promote_types(decoder.dtype, torch.float32), copy=True)
    drawn[usable] = rows.to(drawn.dtype)
    weights = replace(dictionary.weights, decoder=drawn, encoder=lambda: drawn.T)
    return validate(dictionary.sae, weights, dictionary.source, row_norms(drawn))


def _named(dictionary: Dictionary, sae: str, control: Control) -> Dictionary:
    """Call a dictionary after the SAE and its control: no record of it is taken for the SAE's."""
    return replace(dictionary, sae=f"{sae} ({control})", control=control)


def _check_size(activations: Activations, sae: str) -> None:
    itemsize = torch.promote_types(activations.dtype, torch.float32).itemsize
    size = math.prod(activations.shape) * itemsize
    if size > MOST_BYTES:
        raise AuditError(
            f"activations of {size / 2**30:.1f} GiB; at most {MOST_BYTES >> 30} GiB are permuted",
            where=f"--control permuted-tokens: {sae}",
            hint="fewer activations",
        )
