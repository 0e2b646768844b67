"""Whether the first activations are those that the SAE reads, before thousands more are made.

A wrong place, scale or model gives numbers all the same. The SAE's own encoder shows it: what it
does not explain of them is most of their variance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from saeaudit.audit.codes import Coder
from saeaudit.audit.misfit import POOR, TRIED, error_share, what_it_looks_like
from saeaudit.audit.observer import Observer
from saeaudit.audit.tokens import OUTLIER
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError


@dataclass(frozen=True)
class Fit:
    """What the first activations look like to the SAE."""

    activations: int
    """How many were looked at."""
    outliers: int
    """Of these, how many have a norm above `OUTLIER` times the median."""
    fvu: float | None
    """Share of their variance that the SAE leaves, outliers left out; None where its codes cannot
    be had, or they are too few or too much alike to tell."""


def check_first(
    dictionary: Dictionary, activations: Tensor, *, device: str, force: bool, observer: Observer
) -> Fit:
    """Check the first activations.

    Args:
        dictionary: the SAE.
        activations: ``[n, d]`` of any float dtype, of tokens that will be kept.
        device: where the SAE's encoder is to run.
        force: only say that they do not fit.
        observer: is told what would be refused without `force`, and what could not be checked.

    Raises:
        AuditError: another width; some are not finite; or the SAE leaves more than `POOR` of their
            variance, with or without outliers: says which mistake it looks like.
    """
    _check_width(dictionary, activations)
    _check_finite(dictionary, activations)
    x = _spread(activations)
    norms = x.double().norm(dim=1)
    outlying = norms > OUTLIER * norms.median()
    reason = dictionary.codes_unavailable
    if reason is not None:
        observer.note(f"{dictionary.sae}: not checked by its encoder: {reason}")
        return Fit(len(x), int(outlying.sum()), None)
    coder = Coder(dictionary, device)
    x = x.to(coder.device, coder.dtype)
    rest = x[~outlying.to(coder.device)]
    fvu = error_share(coder, rest)
    complaint = _complaint(coder, x, rest, fvu)
    if complaint and not force:
        raise AuditError(complaint, where=dictionary.sae, hint="--force collects them all the same")
    if complaint:
        observer.note(f"{dictionary.sae}: {complaint}")
    elif math.isnan(fvu):
        observer.note(f"{dictionary.sae}: not checked: {len(rest)} activations that do not tell")
    return Fit(len(x), int(outlying.sum()), None if math.isnan(fvu) else fvu)


def _check_width(dictionary: Dictionary, activations: Tensor) -> None:
    if activations.shape[1] != dictionary.activation_width:
        raise AuditError(
            f"activations of width {activations.shape[1]:,}; the SAE reads "
            f"{dictionary.activation_width:,}",
            where=dictionary.sae,
            hint="of another model or place? --model and --hook name them",
        )


def _check_finite(dictionary: Dictionary, activations: Tensor) -> None:
    bad = int((~activations.isfinite().all(1)).sum())
    if bad:
        raise AuditError(
            f"{bad:,} of the first {len(activations):,} activations are not finite (NaN or "
            f"infinity)",
            where=dictionary.sae,
            hint="too large for float16? --dtype bfloat16 or float32"
            if activations.dtype == torch.float16
            else "--dtype float32",
        )


def _spread(activations: Tensor) -> Tensor:
    """At most `TRIED` of them, from beginning to end: neighbours are of one text."""
    count = min(TRIED, len(activations))
    return activations[torch.linspace(0, len(activations) - 1, count).long()]


def _complaint(coder: Coder, x: Tensor, rest: Tensor, fvu: float) -> str:
    """What is wrong, and which mistake it looks like; empty where all is well."""
    if fvu > POOR:
        looks = what_it_looks_like(coder, rest)
        return f"on the first activations the SAE leaves {fvu:.2g} of the variance; {looks}"
    whole = error_share(coder, x)
    if whole > POOR:
        return (
            f"{len(x) - len(rest)} of the first {len(x)} activations have norms above "
            f"{OUTLIER:g} times the median, and with them the SAE leaves {whole:.2g} of the "
            f"variance instead of {fvu:.2g}: are they of special tokens? --bos drop, or "
            f"--drop-norm-above {OUTLIER:g}, leaves them out"
        )
    return ""
