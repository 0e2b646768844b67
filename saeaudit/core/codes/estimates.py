"""Inner products of all rows with what supports leave of their own rows, estimated in float32.

With P = G^-1 U_S U^T and g the diagonal of G^-1 (see `saeaudit.core.codes.algebra`), row i of
``p = P / sqrt(g)`` holds the cosines of all rows with one direction: what is left of row i of the
support across its other rows. What swaps do is linear in p but for

    q_j = 1 - |F p_j|^2,  F = R sqrt(g),  G = R'R      squared distance of u_j from the span of S
    d_ij = q_j + p_ij^2                                and from the span of S - i

Nothing is decided here. Every estimate comes with a bound on how far it is from the truth, made of
`off`, which holds for every cosine: a product over d entries is made of sums over `PART` of them,
so that its rounding is that of `PART` and of d / `PART` additions instead of d.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Supports
from saeaudit.core.codes.tolerances import DELICATE, STEPS, ULP
from saeaudit.core.float32 import UNIT_ERROR
from saeaudit.core.rows import spans

PART = 64
"""Entries of one sum: at d = 2304 the whole is off by a twentieth of what one sum may be."""
SCALED = 4
"""Operations beside the sums: rounding of a direction, scaling of a row."""
APART = 0.1
"""Squared distance from the span of a support below which a row is left to float64."""
UNSURE = 1e-2
"""A support whose squared distances may be off by more than this is left to float64."""
BARRED = -1e30
"""Stands for the inner product with a residual of a row that may not enter."""


class Bounded(NamedTuple):
    """Linear forms of p, one a row, and by how much their float32 values are off at most."""

    form: Tensor
    """``[B, m, k]`` float32."""
    off: Tensor
    """``[B, m]`` float32."""


class Places(NamedTuple):
    """Some places of supports, and what all rows of one step are to them."""

    token: Tensor
    """``[m]`` int64."""
    place: Tensor
    """``[m]`` int64."""
    cosine: Tensor
    """``[m, c]``, p."""
    nearness: Tensor
    """``[m, c]``: 1 / sqrt(d_ij)."""


class Columns(NamedTuple):
    """Some rows of some tokens, ``[m]`` each, as they would enter; float32."""

    token: Tensor
    """Int64."""
    row: Tensor
    """Int64."""
    cosine: Tensor
    """``[m, k]``, p."""
    beside: Tensor
    """``[m, e]``: cosines with further directions."""
    apart: Tensor
    """q."""
    steep: Tensor
    """No less than 1 / sqrt(d_ij) is."""
    share_off: Tensor
    """By what share of itself 1 / sqrt(d_ij) may be off."""

    @classmethod
    def join(cls, parts: list[Columns]) -> Columns:
        """All of some lists."""
        return cls(*(torch.cat(fields) for fields in zip(*parts, strict=True)))

    def at(self, index: Tensor) -> Columns:
        """Some of them."""
        return Columns(*(field[index] for field in self))

    def nearness(self, n: Tensor, place: Tensor) -> Tensor:
        """``[m]``: 1 / sqrt(d_ij) of rows ``n [m]`` and what is left at ``place [m]``."""
        return _nearness(self.apart[n], self.cosine[n, place])


@dataclass(frozen=True)
class Estimates:
    """Rows ``start:start + c`` as they would enter the supports, float32."""

    estimator: Estimator
    """What they are estimates of."""
    start: int
    cosine: Tensor
    """``[B, k, c]``, p."""
    beside: Tensor
    """``[B, e, c]``: cosines with further directions, `BARRED` where a row may not enter."""
    apart: Tensor
    """``[B, c]``, q."""
    barred: Tensor
    """``[B, c]`` bool: rows that may not enter."""
    unclear: Tensor
    """``[B, c]`` bool: rows that may, but too close to a span for estimates to say anything."""
    steep: Tensor
    """``[B, c]``: no less than 1 / sqrt(d_ij) is, of rows that are clear."""
    share_off: Tensor
    """``[B, c]``: by what share of itself 1 / sqrt(d_ij) may be off, of rows that are clear."""

    @cached_property
    def nearness(self) -> Tensor:
        """``[B, k, c]``: 1 / sqrt(d_ij)."""
        return _nearness(self.apart[:, None, :], self.cosine)

    @cached_property
    def allowed(self) -> Tensor:
        """``[B, c]``: one for a row that may enter and is clear, else zero."""
        return (~(self.barred | self.unclear)).to(torch.float32)

    @cached_property
    def highest(self) -> Tensor:
        """``[B, k]``: the largest |p|."""
        return self.cosine.abs().amax(2)

    @cached_property
    def steepest(self) -> Tensor:
        """``[B]``: the largest `steep`."""
        return self.steep.amax(1)

    @cached_property
    def most_off(self) -> Tensor:
        """``[B]``: the largest `share_off`."""
        return self.share_off.amax(1)

    @cached_property
    def length(self) -> Tensor:
        """``[B, c]``: sums of the magnitudes of the weights P that supports give rows."""
        root = self.estimator.root.to(torch.float32)
        return (root[:, None, :] @ self.cosine.abs()).squeeze(1)

    def places(self, token: Tensor, place: Tensor) -> Places:
        """Some places of supports, ``[m]`` int64."""
        cosine = self.cosine[token, place]
        return Places(token, place, cosine, _nearness(self.apart[token], cosine))

    def columns(self, token: Tensor, column: Tensor) -> Columns:
        """Rows at some columns of tokens, ``[m]`` int64."""
        return Columns(
            token, column + self.start, self.cosine[token, :, column],
            self.beside[token, :, column], self.apart[token, column], self.steep[token, column],
            self.share_off[token, column],
        )  # fmt: skip


def _nearness(apart: Tensor, cosine: Tensor) -> Tensor:
    """1 / sqrt(d_ij) of squared distances q and cosines p."""
    return torch.addcmul(apart.clamp(min=APART), cosine, cosine).rsqrt_()


class Estimator:
    """Supports and further directions, made ready to be multiplied with all rows."""

    def __init__(self, supports: Supports, beside: Tensor) -> None:
        """Take them.

        Args:
            supports: of B tokens.
            beside: ``[B, e, d]`` float64 directions, of any length.
        """
        self.supports = supports
        diagonal = supports.inverse.diagonal(dim1=1, dim2=2)
        self.root = diagonal.sqrt()
        """``[B, k]`` float64, sqrt(g)."""
        k, width = supports.rows.shape[1], supports.units.width
        self.off = 1.01 * ULP * (PART + -(-width // PART) + SCALED) + UNIT_ERROR
        """Bound on the error of every cosine."""
        duals = supports.upper_inverse @ supports.basis
        duals /= self.root[:, :, None]
        lengths = beside.norm(dim=2, keepdim=True)
        beside = torch.where(lengths > 0, beside / lengths, 0.0)
        self._directions = torch.cat([duals, beside], 1).to(torch.float32).flatten(0, 1)
        spread = supports.upper * self.root[:, None, :]
        self.cosines = supports.upper.mT @ spread
        """``[B, k, k]`` float64: times p, the cosines of rows with the support's."""
        # |p|^2 <= the largest eigenvalue of the duals' Gram matrix <= its largest row sum.
        alike = supports.inverse / (self.root[:, :, None] * self.root[:, None, :])
        self.longest = _row_sums(alike).sqrt() + self.off * k**0.5
        """``[B]``: no row's p is longer."""
        gram = spread.mT @ spread
        shift = self.off * torch.minimum(self.root.sum(1), (_row_sums(gram) * k).sqrt())
        shift += ULP * (k + STEPS) * spread.square().sum((1, 2)).sqrt() * self.longest
        self._shift = shift
        self.apart_off = self.off_apart(torch.zeros_like(shift)[:, None])[:, 0]
        """``[B]`` float64: bound on the error of q, however close a row is."""
        self._spread = spread.to(torch.float32)
        self.sound = (diagonal <= DELICATE).all(1) & (self.apart_off <= UNSURE)
        """``[B]`` bool: supports that estimates say something of."""

    def off_apart(self, apart: Tensor) -> Tensor:
        """Bounds on the errors of squared distances ``[B, c]``: the larger, the further inside."""
        return _off_apart(self._shift.to(apart.dtype)[:, None], apart)

    def off_apart_of(self, token: Tensor, apart: Tensor) -> Tensor:
        """The same of rows of tokens, ``[m]``."""
        return _off_apart(self._shift.to(apart.dtype)[token], apart)

    def bounded(self, form: Tensor) -> Bounded:
        """Linear forms of p ``[B, m, k]`` float64, with the errors of their values."""
        rounding = ULP * (form.shape[2] + STEPS)
        off = self.off * form.abs().sum(2)
        off += rounding * form.square().sum(2).sqrt() * self.longest[:, None]
        return Bounded(form.to(torch.float32), off.to(torch.float32))

    def all_rows(self, enter: Tensor) -> Iterator[Estimates]:
        """Every row as it would enter, as many at once as the budget says.

        Args:
            enter: ``[n]`` bool: rows that may.
        """
        supports, (batch, k) = self.supports, self.supports.rows.shape
        units = supports.units
        columns = units.budget.swap_columns(batch * k, supports.rows.device)
        for start, stop in spans(units.count if k else 0, columns):
            products = self._products(units.block(start, stop))
            inside = self._spread @ products[:, :k]
            barred = supports.barred(enter, start, stop)
            apart = 1 - inside.square_().sum(1)
            unclear = ~(apart >= APART + UNSURE) | ~self.sound[:, None]
            beside = products[:, k:].masked_fill_(barred[:, None], BARRED)
            off = self.off_apart(apart)
            steep = torch.where(unclear | barred, 1.0, apart - off).rsqrt()
            share_off = self.off * steep + off * steep.square() + STEPS * ULP
            share_off.masked_fill_(unclear | barred, 0.0)
            yield Estimates(
                self, start, products[:, :k], beside, apart, barred, unclear & ~barred, steep,
                share_off,
            )  # fmt: skip

    def _products(self, rows: Tensor) -> Tensor:
        """``[B, k + e, c]``: the directions with unit rows ``[c, d]``."""
        out = self._directions.new_zeros(len(self._directions), len(rows))
        for first, last in spans(rows.shape[1], PART):
            out.addmm_(self._directions[:, first:last], rows[:, first:last].T)
        return out.view(len(self.root), -1, len(rows))


def _off_apart(shift: Tensor, apart: Tensor) -> Tensor:
    return shift * (2 * (1 - apart).clamp(min=0).sqrt() + shift) + STEPS * ULP


def _row_sums(matrix: Tensor) -> Tensor:
    """Largest sum ``[B]`` of magnitudes of a row of each ``[B, k, k]``; 0 where there is none."""
    return torch.nn.functional.pad(matrix.abs().sum(2), (0, 1)).amax(1)
