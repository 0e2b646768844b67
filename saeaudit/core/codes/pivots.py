"""Non-negative least squares on a support less one feature, with another or none in its place.

With V the inverse of the positive features' Gram matrix, W = V G_PN, K = G_NN - G_NP W, codes y and
slopes s at their best, what is positive or inclined is linear in what is not:

    [x_P]   [y_P]   [ V   W ] [s_P]
    [   ] = [   ] - [       ] [   ]
    [s_N]   [s_N]   [-W'  K ] [x_N]

Features that change sides make the left side zero at their places, which a system as large as
their number solves for their entries of the right side: whatever is exchanged, few others change. A
row that enters is one more feature of N that changes sides, whatever sign its code comes to: where
that is negative, the row has no use (the error is convex in its code).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from saeaudit.core.codes.tolerances import DELICATE, NNLS_RIDGE

CHANGES = 8
"""Features that change sides at most: with more, a system is solved whole."""
ROUNDS = 6
"""Times that features of the wrong sign change sides."""


class Tableau(NamedTuple):
    """Codes >= 0 of supports, and how they answer to changes."""

    columns: Tensor
    """``[B, k, k]``: row n has column n of the matrix."""
    values: Tensor
    """``[B, k]``: codes of positive features, slopes of the others."""
    mask: Tensor
    """``[B, k]`` bool: which are positive."""
    active: Tensor
    """``[B, k]`` bool: which are there."""
    small: Tensor
    """``[B]``: codes and slopes of no more than this are zero."""
    sound: Tensor
    """``[B]`` bool: no positive feature is nearly in the span of the others."""


class Column(NamedTuple):
    """Rows that enter, one for each of m exchanges."""

    column: Tensor
    """``[m, k]``: of the matrix."""
    apart: Tensor
    """``[m]``: the entry on its diagonal."""
    beside: Tensor
    """``[m]``: inner products with the residual."""


class Pivoted(NamedTuple):
    """Codes >= 0 of m supports, each without one of its features."""

    codes: Tensor
    """``[m, k]``, that of the row that enters, of either sign, at the place that is left; where
    they are not known, a guess."""
    gain: Tensor
    """``[m]``: by how much the squared error is more than that of the whole support."""
    known: Tensor
    """``[m]`` bool."""


def exchanged(
    tableau: Tableau, token: Tensor, place: Tensor, entering: Column | None = None
) -> Pivoted:
    """Codes without the feature at ``place [m]`` of ``token [m]``, with rows that enter or none."""
    at = torch.arange(len(token), device=token.device)
    positive, others = tableau.mask[token], tableau.active[token]
    others[at, place] = False
    changed = torch.zeros_like(others)
    changed[at, place] = positive[at, place]
    small = tableau.small[token, None]
    out = Pivoted(
        codes=torch.zeros_like(tableau.values[token]),
        gain=torch.zeros_like(tableau.small[token]),
        known=torch.zeros_like(tableau.sound[token]),
    )
    for _ in range(ROUNDS):
        if not len(at):
            break
        part = None if entering is None else Column(*(of_each[at] for of_each in entering))
        turn = _turn(tableau, token[at], changed[at], part)
        side, values = (positive ^ changed)[at], turn.values
        wrong = torch.where(side, values < -small[at], values > small[at]) & others[at]
        codes = torch.where(side & others[at], values.clamp(min=0), 0.0)
        out.codes[at] = codes.scatter(1, place[at, None], turn.amount[:, None])
        out.gain[at] = turn.gain
        out.known[at] = turn.sound & ~wrong.any(1)
        changed[at] ^= wrong
        at = at[turn.sound & wrong.any(1)]
    # What positive features weigh of the ridge that their Gram matrix has is no error.
    stays, before = positive.scatter(1, place[:, None], False), tableau.values[token] * positive
    weight = (out.codes * stays).square().sum(1) - before.square().sum(1)
    out.gain.sub_(weight, alpha=NNLS_RIDGE)
    return out


class _Turn(NamedTuple):
    """What becomes of m supports when features change sides."""

    values: Tensor
    """``[m, k]``."""
    amount: Tensor
    """``[m]``: code of the row that enters, zero where none does."""
    gain: Tensor
    """``[m]``: by how much the squared error is more."""
    sound: Tensor
    """``[m]`` bool: few have changed, and none of them is nearly in the span of others."""


def _turn(tableau: Tableau, token: Tensor, changed: Tensor, entering: Column | None) -> _Turn:
    """Let features ``changed [m, k]`` of ``token [m]`` change sides, and rows enter."""
    count = changed.sum(1)
    most = min(int(count.amax()), CHANGES)
    order = changed.to(torch.float32).topk(most, dim=1).indices
    taken = changed.gather(1, order)
    sign = torch.where(tableau.mask[token].gather(1, order), 1, -1)
    columns = tableau.columns[token[:, None], order]
    system = columns.gather(2, order[:, None, :].expand(-1, most, -1)).mT
    before = tableau.values[token].gather(1, order) * taken
    if entering is not None:
        crossing = entering.column.gather(1, order)
        system = torch.cat([system, crossing[:, :, None]], 2)
        last = torch.cat([-sign * crossing, entering.apart[:, None]], 1)
        system = torch.cat([system, last[:, None, :]], 1)
        columns = torch.cat([columns, entering.column[:, None, :]], 1)
        before = torch.cat([before, entering.beside[:, None]], 1)
        taken, sign = pad(taken, (0, 1), value=True), pad(sign, (0, 1), value=-1)
    eye = torch.eye(system.shape[1], dtype=system.dtype, device=system.device)
    system = torch.where(taken[:, :, None] & taken[:, None, :], system, eye)
    inverse, info = torch.linalg.inv_ex(system)
    after = (inverse @ before[:, :, None]).squeeze(2)
    values = tableau.values[token] - (after[:, None, :] @ columns).squeeze(1)
    turned = torch.zeros_like(values).scatter(1, order, after[:, :most])
    sound = tableau.sound[token] & (count <= CHANGES) & (info == 0)
    return _Turn(
        values=torch.where(changed, turned, values),
        amount=after.new_zeros(len(after)) if entering is None else after[:, most],
        gain=(sign * before * after).sum(1),
        sound=sound & (inverse.abs().flatten(1).sum(1) <= DELICATE),
    )
