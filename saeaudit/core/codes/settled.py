"""Exchanges with codes >= 0 that estimates settle in closed form.

Where the codes of the positive features and the new row stay positive, and no other feature of the
support wants in, `saeaudit.core.codes.algebra.PositiveChange` is the answer. Here it is made in
float64 of float32 estimates, with bounds on what these may be off by: wherever every condition
holds by more, and the error is further from a limit, float64 throughout comes to the same.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.algebra import AgainstPositive, PositiveChange, by_token
from saeaudit.core.codes.estimates import APART, Columns, Estimator
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.tolerances import ROUNDING


class Settled(NamedTuple):
    """Some exchanges."""

    low: Tensor
    """``[m]`` lower bounds on squared errors, -inf where nothing is known."""
    high: Tensor
    """``[m]`` upper bounds, infinite where nothing is known."""


class Settler:
    """Settles exchanges of one target."""

    def __init__(self, fit: Fit, estimator: Estimator, first: int) -> None:
        """Prepare.

        Args:
            fit: a target a token.
            estimator: of the supports; its further direction ``first`` is the residual of the
                target's positive codes.
            first: which of them.
        """
        self._fit, self._estimator, self._first = fit, estimator, first
        positive, off = fit.positive, estimator.off
        inner = positive.inverse @ estimator.cosines
        beyond = estimator.cosines - fit.supports.gram @ inner
        self._inner_off, self._beyond_off = off * inner.abs().sum(2), off * beyond.abs().sum(2)
        self._length = positive.residual.norm(dim=1)

    def settle(self, columns: Columns, n: Tensor, i: Tensor) -> Settled:
        """Bounds on squared errors.

        Args:
            columns: rows of tokens, clear ones, the tokens in ascending order.
            n: ``[m]`` int64: which of them enters.
            i: ``[m]`` int64: place that is left.
        """
        fit, positive, of, b = self._fit, self._fit.positive, self._estimator, columns.token[n]
        against = self._against(columns, n)
        change = PositiveChange.of(fit, against, b, i)
        at = torch.arange(len(b), device=b.device)
        g, inner_off = positive.diagonal[b, i], self._inner_off[b]
        weight, weight_off = against.inner[at, i].abs(), inner_off[at, i]
        distance_off = of.off_apart_of(b, columns.apart[n]).double()
        distance_off += (2 * weight + weight_off) * weight_off / g
        along_off = of.off * self._length[b] + positive.codes[b, i] * weight_off / g
        near = (change.distance - distance_off).clamp(min=APART / 2)
        far = change.distance + distance_off
        least = (change.along - along_off).clamp(min=0)
        most = (change.along + along_off).clamp(min=0)
        amount = most / near
        amount_off, step_off = (amount - least / far)[:, None], (weight_off / g)[:, None]
        codes_off = amount[:, None] * (inner_off + step_off * change.share.abs())
        codes_off += amount_off * (against.inner - change.step[:, None] * change.share).abs()
        wants_off = amount[:, None] * (self._beyond_off[b] + step_off * change.shadow.abs())
        wants_off += amount_off * (against.beyond + change.step[:, None] * change.shadow).abs()
        mask, small = positive.mask[b], fit.small[b][:, None]
        others = ~mask & fit.supports.active[b]
        mask[at, i], others[at, i] = False, False
        sure = ((change.codes - codes_off > -small) | ~mask).all(1)
        sure &= ((change.wants + wants_off < small) | ~others).all(1)
        sure &= (least / far > fit.floor[b]) & positive.sound[b]
        sure &= change.distance - distance_off > APART / 2
        rounding = ROUNDING * fit.size[b]
        low = change.without - most * amount - rounding
        high = change.without - least.square() / far + rounding
        return Settled(low.masked_fill(~sure, -torch.inf), high.masked_fill(~sure, torch.inf))

    def _against(self, columns: Columns, n: Tensor) -> AgainstPositive:
        """Rows against the positive features, each once."""
        used, which = torch.unique(n, return_inverse=True)
        token = columns.token[used]
        cross = by_token(self._estimator.cosines, token, columns.cosine[used].double())
        beside = columns.beside[used, self._first].double() * self._length[token]
        against = AgainstPositive.of_pairs(self._fit, token, cross, beside)
        return AgainstPositive(*(field[which] for field in against))
