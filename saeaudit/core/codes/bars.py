"""The errors within which exchanges count, and which features stand in their way."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import TOLERANCE


class Bars(NamedTuple):
    """Limits on the squared error of one target, and what they say before any row enters."""

    limits: Tensor
    """``[B, T]`` squared errors, rounding allowed for."""
    droppable: Tensor
    """``[B, T, k]`` bool: features without which, and without any other, codes stay within."""
    widest: Tensor
    """``[B, k]``: the widest limit at which a feature cannot simply go: beyond it no best swap is
    sought. -inf where there is none."""
    free: Tensor
    """``[B, k]`` bool: features that can go at every limit: of these the best replacement is sought
    by a lower bound."""

    @classmethod
    def of(cls, fit: Fit, limits: Tensor) -> Bars:
        """Take limits ``[B, T]`` on the squared error of a target."""
        active = fit.supports.active
        limits = limits + TOLERANCE * fit.size[:, None]
        every_limit = limits[:, :, None]
        droppable = (fit.without_nonnegative[:, None, :] <= every_limit) & active[:, None, :]
        open_limits = torch.where(droppable, -torch.inf, every_limit)
        widest = open_limits.amax(1).masked_fill(~active, -torch.inf)
        return cls(limits, droppable, widest, active & torch.isneginf(widest))
