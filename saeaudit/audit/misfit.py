"""Whether activations look like those that an SAE reads, said before any work is done on them."""

from __future__ import annotations

import math
import re

from torch import Tensor

from saeaudit.audit.codes import Coder
from saeaudit.audit.observer import Observer
from saeaudit.dictionary import Dictionary
from saeaudit.sources.stacked import Activations

TRIED = 256
"""Activations whose error is measured."""
SCALED = 64
"""Of these, on how many other scales are tried."""
FEWEST = 10
"""Fewer activations say nothing of a variance."""
POOR = 0.8
"""An SAE of these activations leaves less of their variance."""
DENSE = 10.0
"""Nor has it this many times as many active features as are usual."""
SCALES = [2.0 ** (half / 2) for half in range(-12, 13)]
"""Factors that are tried: the right one is at most 1.19 times one of them, an error of 0.04."""
HALF = 0.5
"""Such a scale explains a misfit where it leaves no more than this share of the error."""
DECLARED = re.compile(r"average_l0_(\d+)")
"""How Gemma Scope's folders declare an L0."""


def usual_l0(dictionary: Dictionary) -> float:
    """Active features that an SAE has on the activations that it reads, or at most has.

    That is its k, or what its folder's name declares; a tenth of its width where neither does: an
    SAE whose codes are denser is hardly one.
    """
    if dictionary.weights.k is not None:
        return dictionary.weights.k
    for name in (dictionary.sae, *(file.path for file in dictionary.source.files)):
        declared = DECLARED.search(name)
        if declared:
            return float(declared[1])
    return dictionary.d_in / 10


def tell_misfit(
    coder: Coder, activations: Activations, tokens: Tensor, l0: Tensor, observer: Observer
) -> None:
    """Say what it looks like where an SAE does not fit its activations.

    Args:
        coder: the SAE.
        activations: ``[N, d_in]`` of any float dtype.
        tokens: ``[m]`` int64: some of them, as drawn.
        l0: ``[m]`` int64: how many features are active on each.
        observer: is told.
    """
    x = activations[tokens[:TRIED]].to(coder.device, coder.dtype)
    if len(x) > 1 and bool((x == x[0]).all()):
        observer.note(
            f"{coder.dictionary.sae}: the first {len(x):,} activations drawn are all the same: "
            "where they do not vary, shares of the variance are null and intervals say nothing"
        )
    fvu, usual = error_share(coder, x), usual_l0(coder.dictionary)
    mean = float(l0.double().mean()) if len(l0) else 0.0
    if not (fvu > POOR or mean > DENSE * usual):
        return
    looks = what_it_looks_like(coder, x)
    error = f"the SAE leaves {fvu:.2g} of the variance"
    if fvu > 1:
        error = f"the SAE's error is {fvu:.2g} times the variance (their mean has 1)"
    observer.note(
        f"{coder.dictionary.sae}: on these activations {error}, with {mean:.0f} active features on "
        f"average (usual: {usual:.0f}); {looks}"
    )


def what_it_looks_like(coder: Coder, x: Tensor) -> str:
    """A clause that names the mistake that activations ``[m, d_in]`` look like.

    A scale is the mistake where another one leaves at most `HALF` of the error, and so is a mean
    over the width that was to be taken off.
    """
    x = x[:SCALED]
    errors = {scale: error_share(coder, scale * x) for scale in SCALES}
    best = min(errors, key=lambda scale: math.inf if math.isnan(errors[scale]) else errors[scale])
    if errors[best] <= min(POOR, HALF * errors[1.0]):
        return f"multiplied by {best:.2g} it would be {errors[best]:.2g}: the scale looks wrong"
    centred = error_share(coder, x - x.mean(1, keepdim=True))
    if centred <= min(POOR, HALF * errors[1.0]):
        return (
            f"less their means over the width it would be {centred:.2g}: probably "
            "made with TransformerLens's center_writing_weights"
        )
    return "they are probably of another layer, hook or model"


def error_share(coder: Coder, x: Tensor) -> float:
    """Squared error over the variance of activations ``[m, d_in]``; NaN where that says nothing."""
    if len(x) < FEWEST:
        return math.nan
    error = float((coder.encoder.decode(coder.encoder.codes(x), x) - x).square().sum())
    variance = float((x - x.mean(0)).square().sum())
    share = error / variance if variance > 0 else math.nan
    return share if math.isfinite(share) else math.nan
