"""The algebra of one swap: a feature of a support leaves, another row enters.

For a support S of k unit rows with Gram matrix G, P = G^-1 U_S U^T (from a QR decomposition of
the rows, not from G) and r the residual of the least-squares codes z of a target t, removing i and
adding j leaves

    g_i  = (G^-1)_ii
    q_j  = 1 - sum_s G_sj P_sj                     squared distance of u_j from the span of S
    d_ij = q_j + P_ij^2 / g_i                      and from the span of S - i
    a_ij = u_j.r + z_i P_ij / g_i                  inner product with what S - i leaves of t
    error(i, j) = |r|^2 + z_i^2 / g_i - a_ij^2 / d_ij

(block inverse of the Gram matrix). The codes of the new support follow the same way.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.tolerances import DELICATE, DEPENDENT, SPREAD
from saeaudit.core.rows import spans

SURELY = 1 - 1e-9
"""Share of what the sign of a code costs that a lower bound may count on."""


class Entering(NamedTuple):
    """Rows as they would enter the supports: the same for all, or some of each support's own."""

    rows: Tensor
    """``[B, c]`` or ``[1, c]`` int64 row numbers, ascending; any at barred places."""
    vectors: Tensor
    """``[B, c, d]`` or ``[1, c, d]`` unit rows, float64."""
    cross: Tensor
    """``[B, k, c]``, G_sj: cosines with the support's rows."""
    weight: Tensor
    """``[B, k, c]``, P: weights of the support's rows in them."""
    apart: Tensor
    """``[B, c]``, q: squared distances from the supports' spans."""
    barred: Tensor
    """``[B, 1, c]``: infinite where a row may not enter, else zero."""

    @classmethod
    def of(cls, supports: Supports, rows: Tensor, barred: Tensor) -> Entering:
        """Measure rows ``[B, c]`` or ``[1, c]``; ``barred [B, c]`` bool says which may not."""
        units = supports.units
        index = rows.reshape(-1)
        vectors = (units.raw(index) / units.norms[index, None]).view(*rows.shape, units.width)
        inside = _inner(supports.basis, vectors)
        return cls(
            rows=rows,
            vectors=vectors,
            cross=supports.upper.mT @ inside,
            weight=supports.upper_inverse @ inside,
            apart=(1 - inside.square().sum(1)).clamp_(min=0),
            barred=torch.where(barred, torch.inf, 0.0)[:, None, :],
        )

    def along(self, vector: Tensor) -> Tensor:
        """``[B, c]``: inner products of the rows with a vector ``[B, d]`` of each token."""
        return _inner(vector[:, None, :], self.vectors).squeeze(1)

    def vector(self, token: Tensor, column: Tensor) -> Tensor:
        """Unit rows ``[m, d]`` at columns of tokens."""
        return self.vectors[token if len(self.vectors) > 1 else 0, column]

    def row(self, token: Tensor, column: Tensor) -> Tensor:
        """Row numbers ``[m]`` at columns of tokens."""
        return self.rows.expand(len(self.apart), -1)[token, column]


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """``[B, m, c]``: of ``a [B, m, d]`` with ``b [B, c, d]``, or with ``[1, c, d]`` all at once."""
    if len(b) == len(a):
        return a @ b.mT
    return (a.flatten(0, 1) @ b[0].T).view(*a.shape[:2], b.shape[1])


def enter_rows(supports: Supports, enter: Tensor, start: int, stop: int) -> Entering:
    """Rows ``start:stop`` as they would enter, but for those that ``enter [n]`` bool leaves out."""
    rows = torch.arange(start, stop, device=supports.rows.device)[None]
    return Entering.of(supports, rows, supports.barred(enter, start, stop))


def every_row(fit: Fit, enter: Tensor) -> Iterator[Entering]:
    """All rows as they would enter, as many at once as the budget says."""
    supports = fit.supports
    batch, k = supports.rows.shape
    columns = supports.units.budget.swap_columns(batch * k, supports.rows.device)
    for start, stop in spans(supports.units.count if k else 0, columns):
        yield enter_rows(supports, enter, start, stop)


def marked_rows(supports: Supports, marked: Tensor) -> Iterator[Entering]:
    """The rows that ``marked [B, n]`` bool says for each support, as they would enter."""
    count = marked.sum(1)
    most = int(count.max()) if len(count) else 0
    token, row = marked.nonzero().unbind(1)
    first = count.cumsum(0) - count
    place = torch.arange(len(token), device=token.device) - first[token]
    rows = row.new_zeros(len(marked), most)
    rows[token, place] = row
    barred = torch.ones_like(rows, dtype=torch.bool)
    barred[token, place] = False
    units = supports.units
    columns = units.budget.marked_columns(len(marked), units.width, rows.device)
    for start, stop in spans(most, columns):
        yield Entering.of(supports, rows[:, start:stop], barred[:, start:stop])


class Unsigned(NamedTuple):
    """Swaps with codes of either sign, each ``[B, k, c]``."""

    distance: Tensor
    """d_ij."""
    along: Tensor
    """a_ij."""
    error: Tensor
    """Squared errors, infinite where a row may not enter."""


def least_squares(fit: Fit, entering: Entering) -> Unsigned:
    """All swaps with codes of either sign."""
    weight = entering.weight
    scaled = weight / fit.diagonal[:, :, None]
    distance = torch.addcmul(entering.apart[:, None, :], scaled, weight)
    beside = entering.along(fit.residual)[:, None, :]
    along = torch.addcmul(beside, scaled, fit.codes[:, :, None])
    # What brings no direction of its own gains nothing. (One pass each: on a CPU these are
    # several times as fast as filling by a mask.)
    gain = along.square().div_(torch.nn.functional.threshold(distance, DEPENDENT, torch.inf))
    error = torch.sub(fit.without[:, :, None], gain, out=gain)
    error += entering.barred
    return Unsigned(distance, along, error)


class AgainstPositive(NamedTuple):
    """Rows that may enter, against the positive features of each support.

    Of pairs of a token and a row the shapes are ``[m, k]`` and ``[m]``.
    """

    inner: Tensor
    """``[B, k, c]``, P: weights that the positive features give each row."""
    beyond: Tensor
    """``[B, k, c]``: inner products of the support's rows with what P leaves of the row."""
    apart: Tensor
    """``[B, c]``: squared norm of that."""
    beside: Tensor
    """``[B, c]``: inner products of the rows with the residual."""

    @classmethod
    def of(cls, fit: Fit, entering: Entering) -> AgainstPositive:
        """Measure rows that may enter."""
        cross, positive = entering.cross, fit.positive
        inner = positive.inverse @ cross
        beyond = cross - fit.supports.gram @ inner
        apart = 1 - (cross * inner).sum(1)
        return cls(inner, beyond, apart, entering.along(positive.residual))

    @classmethod
    def of_pairs(cls, fit: Fit, token: Tensor, cross: Tensor, beside: Tensor) -> AgainstPositive:
        """Measure pairs of tokens and rows.

        Args:
            fit: targets on their supports.
            token: ``[m]`` int64, ascending.
            cross: ``[m, k]`` cosines of the rows with the supports'.
            beside: ``[m]`` inner products of the rows with the residuals of the positive codes.
        """
        inner = by_token(fit.positive.inverse, token, cross)
        beyond = cross - by_token(fit.supports.gram, token, inner)
        return cls(inner, beyond, 1 - (cross * inner).sum(1), beside)

    def pairs(self, b: Tensor, c: Tensor) -> AgainstPositive:
        """The pairs of tokens ``b [m]`` and rows at columns ``c [m]``."""
        return AgainstPositive(
            self.inner[b, :, c], self.beyond[b, :, c], self.apart[b, c], self.beside[b, c]
        )


def by_token(matrix: Tensor, token: Tensor, vectors: Tensor) -> Tensor:
    """The matrix ``[B, n, k]`` of each one's token, ascending, times vectors ``[m, k]``.

    A token at a time, so that its matrix is not copied for each of its vectors.
    """
    out = vectors.new_empty(len(vectors), matrix.shape[1])
    start = 0
    for b, count in enumerate(torch.bincount(token, minlength=len(matrix)).tolist()):
        if count:
            out[start : start + count] = vectors[start : start + count] @ matrix[b].T
            start += count
    return out


class PositiveChange(NamedTuple):
    """A new row for a feature, among those that are positive in the support's codes.

    All in closed form: with P the weights of the new row, g the feature's own entry of the inverse
    Gram matrix and y the codes, removing i adds P_i^2 / g_i to the squared distance, y_i P_i / g_i
    to the slope.
    """

    step: Tensor
    """``[m]``, P_i / g_i."""
    distance: Tensor
    """``[m]``: squared distance of the row from the span of the others."""
    along: Tensor
    """``[m]``: the slope."""
    amount: Tensor
    """``[m]``: code of the row."""
    without: Tensor
    """``[m]``: squared error without the feature and without the row."""
    share: Tensor
    """``[m, k]``: the feature's row of the inverse Gram matrix."""
    shadow: Tensor
    """``[m, k]``: and of `Positive.shadow`."""
    codes: Tensor
    """``[m, k]``: of the positive features."""
    wants: Tensor
    """``[m, k]``: slopes of the others."""

    @classmethod
    def of(cls, fit: Fit, rows: AgainstPositive, b: Tensor, i: Tensor) -> PositiveChange:
        """Exchange the feature at place ``i [m]`` of token ``b [m]`` for ``rows [m]``."""
        positive, at = fit.positive, torch.arange(len(b), device=b.device)
        g, p = positive.diagonal[b, i], rows.inner[at, i]
        step, ratio = p / g, positive.codes[b, i] / g
        distance = rows.apart + p * step
        along = rows.beside + positive.codes[b, i] * step
        amount = along / distance
        share, shadow = positive.inverse[b, i], positive.shadow[b, i]
        codes = positive.codes[b] - ratio[:, None] * share
        codes -= amount[:, None] * (rows.inner - step[:, None] * share)
        wants = positive.slope[b] + ratio[:, None] * shadow
        wants -= amount[:, None] * (rows.beyond + step[:, None] * shadow)
        without = positive.error[b] + positive.codes[b, i] * ratio
        return cls(step, distance, along, amount, without, share, shadow, codes, wants)


Index = tuple[Tensor, Tensor, Tensor]
"""Some swaps, ``[m]`` int64 each: token, place that is left and column of the row that enters."""


def swapped_codes(fit: Fit, entering: Entering, swaps: Unsigned, index: Index) -> Tensor:
    """Least-squares codes ``[m, k]`` of some swaps, the new feature's at the place that is left."""
    return _exchanged(fit, entering, swaps, index)[0]


def lower_bounds(fit: Fit, entering: Entering, swaps: Unsigned, index: Index) -> Tensor:
    """Lower bounds ``[m]`` on squared errors with codes >= 0 of some swaps.

    Least squares on the new support, and what the sign of one code costs at least: its square
    over its entry of the new inverse Gram matrix, which is the old one less a row and column,
    plus enters enters' / distance.

    Args:
        fit: targets on their supports.
        entering: rows that may enter.
        swaps: the least-squares swaps.
        index: which of them.
    """
    b, i, _ = index
    codes, enters = _exchanged(fit, entering, swaps, index)
    distance, inverse = swaps.distance[index], fit.supports.inverse
    share = inverse[b, i] / fit.diagonal[b, i][:, None]
    spread = fit.diagonal[b] - inverse[b, i] * share + enters.square() / distance[:, None]
    cost = torch.where(codes < 0, codes.square() / spread.clamp(min=SPREAD), 0.0).amax(1)
    rough = (distance < DEPENDENT) | (fit.diagonal[b, i] > DELICATE)
    return swaps.error[index] + cost.masked_fill(rough, 0.0) * SURELY


def _exchanged(
    fit: Fit, entering: Entering, swaps: Unsigned, index: Index
) -> tuple[Tensor, Tensor]:
    """Codes ``[m, k]``, and by how much each falls for each unit of the new feature's code."""
    b, i, c = index
    weight = entering.weight[b, :, c]
    every = torch.arange(len(b), device=b.device)
    share = fit.supports.inverse[b, i] / fit.diagonal[b, i][:, None]
    enters = weight - weight[every, i][:, None] * share
    enters[every, i] = -1.0
    codes = fit.codes[b] - fit.codes[b, i][:, None] * share
    codes -= (swaps.along[index] / swaps.distance[index])[:, None] * enters
    return codes, enters


class Exchanged(NamedTuple):
    """Least squares of m supports with one feature exchanged, codes of either sign."""

    codes: Tensor
    """``[m, k]``, the entering feature's at the place that is left."""
    spread: Tensor
    """``[m, k]``: diagonals of the inverse Gram matrices."""
    error: Tensor
    """``[m]`` squared errors."""

    @classmethod
    def of(cls, fit: Fit, token: Tensor, place: Tensor, cross: Tensor, moment: Tensor) -> Exchanged:
        """Exchange the feature at ``place [m]`` of ``token [m]``.

        Args:
            fit: targets on their supports.
            token, place: int64, the tokens ascending.
            cross: ``[m, k]`` cosines of the new rows with the supports'.
            moment: ``[m]`` inner products of the new rows with the targets.
        """
        at = torch.arange(len(token), device=token.device)
        diagonal, codes = fit.diagonal[token], fit.codes[token]
        row = fit.supports.inverse[token, place]
        share = row / diagonal[at, place][:, None]
        weight = by_token(fit.supports.inverse, token, cross)
        removed = weight[at, place]
        apart = (1 - (cross * weight).sum(1)).clamp(min=0)
        distance = (apart + removed.square() / diagonal[at, place]).clamp(min=DEPENDENT)
        along = moment - (cross * codes).sum(1)
        along += removed * codes[at, place] / diagonal[at, place]
        enters = weight - removed[:, None] * share
        enters[at, place] = -1.0
        amount = along / distance
        new = codes - codes[at, place][:, None] * share - amount[:, None] * enters
        spread = diagonal - row * share + enters.square() / distance[:, None]
        return cls(new, spread.clamp(min=0), fit.without[token, place] - amount * along)
