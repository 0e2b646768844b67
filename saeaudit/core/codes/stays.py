"""Rows that leave the features of a support's codes >= 0 as they are, by estimates.

That is when no code of these falls to zero and no other feature of the support comes in: when for
each the row's code times a linear form of p is below one.
"""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.algebra import by_token
from saeaudit.core.codes.estimates import APART, Columns, Estimates, Estimator
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import STEPS, ULP

LEAST_ROOM = 1e-12
"""Share of the target that is divided by, so that forms are finite in float32."""
ONE = STEPS * ULP
"""By how much a product may be off from what is compared with one."""


class Stays:
    """What rows do to the features of one target's codes."""

    def __init__(self, fit: Fit, estimator: Estimator, first: int, scale: Tensor) -> None:
        """Prepare.

        Args:
            fit: a target a token.
            estimator: of the supports; its further direction ``first`` is the residual of the
                target's positive codes.
            first: which of them.
            scale: ``[B]``: one over the target's length.
        """
        self._estimator, self._first = estimator, first
        positive, active, mask = fit.positive, fit.supports.active, fit.positive.mask
        inner = positive.inverse @ estimator.cosines
        beyond = estimator.cosines - fit.supports.gram @ inner
        room = torch.where(mask, positive.codes - fit.floor[:, None],
                           fit.small[:, None] - positive.slope)  # fmt: skip
        self._able = positive.sound & ((room > 0) | ~active).all(1)
        self._able &= estimator.sound & (fit.size > 0)
        form = torch.where(mask[:, :, None], inner, -beyond)
        form = torch.where(active[:, :, None], form, 0.0)
        form /= (room * scale[:, None]).clamp(min=LEAST_ROOM)[:, :, None]
        self._form, self._off = estimator.bounded(form)
        self._sizes = self._form.abs()
        self._length = (positive.residual.norm(dim=1) * scale).to(torch.float32)
        self._length_off = self._length * (estimator.off + ONE)
        self._inside: Tensor | None = None
        if not bool((mask | ~active)[self._able].all()):
            both = mask[:, :, None] & mask[:, None, :]
            eye = torch.eye(mask.shape[1], dtype=form.dtype, device=form.device)
            factor = torch.linalg.cholesky_ex(torch.where(both, positive.inverse, eye))[0]
            factor = factor.mT * mask[:, None]
            self._inside = (factor @ estimator.cosines).to(torch.float32)

    def of(self, rows: Estimates) -> tuple[Tensor, Tensor]:
        """Whether rows surely stay ``[B, c]`` bool, and where that is open.

        Only features that the largest code of a row could bring to zero are looked at. The
        distance from the positive features is between that from all and one.
        """
        able = self._able[:, None]
        beside, off = rows.beside[:, self._first] * self._length[:, None], self._length_off[:, None]
        near = (rows.apart - self._estimator.off_apart(rows.apart)).clamp(min=APART / 2)
        most = (beside + off).clamp(min=0) / near * rows.allowed
        sizes = (self._sizes @ rows.highest[:, :, None]).squeeze(2) + self._off
        tight = (sizes * most.amax(1, keepdim=True) >= 1 - ONE) & able
        count = int(tight.sum(1).amax())
        if not count:
            return able.expand_as(most), torch.zeros_like(rows.barred)
        places = tight.to(torch.float32).topk(count, dim=1).indices
        form = self._form.gather(1, places[:, :, None].expand(-1, -1, tight.shape[1]))
        margin = self._off.gather(1, places)[:, :, None]
        change = (form @ rows.cosine).add_(margin)
        surely = most * change.amax(1).clamp(min=0) < 1 - ONE
        least = (beside - off).clamp(min=0) * change.sub_(2 * margin).amax(1)
        return able & surely, able & ~surely & ~(least > 1 + ONE)

    def of_columns(self, columns: Columns) -> tuple[Tensor, Tensor]:
        """Whether rows of tokens, ascending, surely stay, and where that is open: ``[m]`` bool."""
        token, apart = columns.token, columns.apart
        if self._inside is not None:
            apart = 1 - by_token(self._inside, token, columns.cosine).square_().sum(1)
        apart_off = self._estimator.off_apart_of(token, apart)
        beside, off = columns.beside[:, self._first] * self._length[token], self._length_off[token]
        change, margin = by_token(self._form, token, columns.cosine), self._off[token]
        most = (beside + off).clamp(min=0) / (apart - apart_off).clamp(min=APART / 2)
        surely = most * (change + margin).amax(1).clamp(min=0) < 1 - ONE
        least = (beside - off).clamp(min=0) / (apart + apart_off) * (change - margin).amax(1)
        able = self._able[token]
        return able & surely, able & ~surely & ~(least > 1 + ONE)
