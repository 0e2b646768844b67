"""Least squares of activations on their active features, and on those less one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.nnls import nnls
from saeaudit.core.codes.pivots import Tableau, exchanged
from saeaudit.core.codes.tolerances import (
    DELICATE,
    ENTERS,
    FIT_RIDGE,
    NNLS_RIDGE,
    WEAK,
    ZERO,
)
from saeaudit.core.rows import UnitRows, spans


@dataclass(frozen=True)
class Supports:
    """A batch of tokens and the features that are active on each."""

    units: UnitRows
    rows: Tensor
    """``[B, k]`` int64 row numbers, -1 where a token has fewer than k."""

    @property
    def systems_at_once(self) -> int:
        """How many systems of k equations to solve at once."""
        return self.units.budget.systems(self.rows.shape[1], self.rows.device)

    @property
    def swaps_at_once(self) -> int:
        """How many swaps to solve in closed form at once."""
        return self.units.budget.solved_swaps(self.rows.shape[1])

    @property
    def active(self) -> Tensor:
        """``[B, k]`` bool: which places are taken."""
        return self.rows >= 0

    @cached_property
    def vectors(self) -> Tensor:
        """Their unit rows ``[B, k, d]`` float64, zero where a place is not taken."""
        index = self.rows.clamp(min=0).reshape(-1)
        rows = self.units.raw(index) / self.units.norms[index, None]
        return rows.view(*self.rows.shape, self.units.width) * self.active[:, :, None]

    def cosines(self, token: Tensor, added: Tensor) -> Tensor:
        """Cosines ``[m, k]`` of unit rows ``added [m, d]`` with the supports of ``token [m]``.

        A token at a time, so that its rows are not copied for each of the others.
        """
        out = added.new_zeros(len(token), self.rows.shape[1])
        for b in torch.unique(token).tolist():
            of_token = (token == b).nonzero().squeeze(1)
            out[of_token] = added[of_token] @ self.vectors[b].T
        return out

    def barred(self, enter: Tensor, start: int, stop: int) -> Tensor:
        """``[B, stop - start]`` bool: rows ``start:stop`` that are in the support, or that
        ``enter [n]`` bool leaves out."""
        barred = (~enter[start:stop]).expand(len(self.rows), -1).clone()
        token, place = ((self.rows >= start) & (self.rows < stop)).nonzero().unbind(1)
        barred[token, self.rows[token, place] - start] = True
        return barred

    @cached_property
    def gram(self) -> Tensor:
        """``[B, k, k]``, with the identity where a place is not taken."""
        gram = self.vectors @ self.vectors.mT
        return gram + torch.diag_embed((~self.active).to(gram.dtype))

    @cached_property
    def _factors(self) -> tuple[Tensor, Tensor, Tensor]:
        """``Q' [B, k, d]`` and ``R [B, k, k]``, upper triangular, of the support's rows.

        A QR decomposition loses as many digits as the rows' condition number has, a Gram matrix
        twice as many, and supports do hold near-duplicates. Below the rows stands a diagonal: ones
        at empty places, the root of `FIT_RIDGE` where rows depend on each other.
        """
        k = self.rows.shape[1]
        below = torch.diag_embed((~self.active).to(self.vectors.dtype))
        matrix = torch.cat([self.vectors, below], 2).mT
        q, r = torch.linalg.qr(matrix)
        ridge = torch.zeros(len(self.rows), dtype=q.dtype, device=q.device)
        if k:
            least = r.diagonal(dim1=1, dim2=2).square().amin(1)
            weak = (least < WEAK).nonzero().squeeze(1)
            ridge[weak] = FIT_RIDGE
            if len(weak):
                below[weak] += FIT_RIDGE**0.5 * torch.diag_embed(self.active[weak].to(below.dtype))
                matrix = torch.cat([self.vectors[weak], below[weak]], 2).mT
                q[weak], r[weak] = torch.linalg.qr(matrix)
        return q[:, : self.units.width].mT.contiguous(), r, ridge

    @property
    def ridge(self) -> Tensor:
        """``[B]``: `FIT_RIDGE` where the support's rows depend on each other, else zero."""
        return self._factors[2]

    @property
    def basis(self) -> Tensor:
        """``[B, k, d]``: orthonormal rows that span the support's."""
        return self._factors[0]

    @property
    def upper(self) -> Tensor:
        """``[B, k, k]``, R: the support's rows are ``R' basis``."""
        return self._factors[1]

    @cached_property
    def upper_inverse(self) -> Tensor:
        """Inverse of `upper`."""
        eye = torch.eye(self.rows.shape[1], dtype=torch.float64, device=self.rows.device)
        inverse: Tensor = torch.linalg.solve_triangular(self.upper, eye, upper=True)
        return inverse

    @cached_property
    def inverse(self) -> Tensor:
        """Inverse of the Gram matrix."""
        return self.upper_inverse @ self.upper_inverse.mT


class Positive(NamedTuple):
    """Non-negative least squares on a support: which features stay, and their inverse Gram."""

    codes: Tensor
    """``[B, k]``, zero where a feature stays out."""
    mask: Tensor
    """``[B, k]`` bool: which are positive."""
    inverse: Tensor
    """``[B, k, k]``: inverse of the positive features' Gram matrix, zero elsewhere."""
    diagonal: Tensor
    """``[B, k]``: its diagonal, infinite elsewhere."""
    residual: Tensor
    """``[B, d]``."""
    error: Tensor
    """``[B]``: its squared norm."""
    slope: Tensor
    """``[B, k]``: inner products of the support's rows with it; none is positive."""
    sound: Tensor
    """``[B]`` bool: no positive feature is nearly in the span of the others."""
    shadow: Tensor
    """``[B, k, k]``: weights (rows) that the positive features give each feature (columns)."""


class Systems(NamedTuple):
    """Squared errors ``|t - sum_s x_s u_s|^2 = x' G x - 2 h' x + |t|^2`` of m targets."""

    gram: Tensor
    """``[m, k, k]``, G."""
    moment: Tensor
    """``[m, k]``, h."""
    size: Tensor
    """``[m]``, |t|^2."""

    def solve(self, start: Tensor) -> Tensor:
        """Codes ``[m, k]`` >= 0 of least error, from a guess ``[m, k]`` at which are positive."""
        return nnls(self.gram, self.moment, start)

    def error(self, codes: Tensor) -> Tensor:
        """Squared errors ``[m]`` of codes ``[m, k]``."""
        quadratic = (codes[:, None, :] @ self.gram @ codes[:, :, None]).view(-1)
        return (self.size - 2 * (self.moment * codes).sum(1) + quadratic).clamp(min=0)


@dataclass(frozen=True)
class Fit:
    """Least squares of one target a token on its support, and on the support less one feature.

    Example: ``Fit(Supports(units, tensor([[3, 7]])), target).codes[0]`` are the codes of rows 3
    and 7 that come closest to ``target[0]``, and ``.without[0, 1]`` the squared error of row 3
    alone. What is not asked for is not computed.
    """

    supports: Supports
    target: Tensor
    """``[B, d]`` float64."""

    @cached_property
    def size(self) -> Tensor:
        """``[B]``: squared norm of the target."""
        return self.target.square().sum(1)

    @cached_property
    def moment(self) -> Tensor:
        """``[B, k]``: inner products of the target with the support's rows."""
        return (self.supports.vectors @ self.target[:, :, None]).squeeze(2)

    @cached_property
    def codes(self) -> Tensor:
        """``[B, k]``: least-squares codes in unit rows, of either sign."""
        along = self.supports.basis @ self.target[:, :, None]
        return (self.supports.upper_inverse @ along).squeeze(2) * self.supports.active

    @cached_property
    def residual(self) -> Tensor:
        """``[B, d]``: what they leave."""
        fitted = (self.codes[:, None, :] @ self.supports.vectors).squeeze(1)
        return self.target - fitted

    @cached_property
    def error(self) -> Tensor:
        """``[B]``: its squared norm (and `FIT_RIDGE` times that of the codes, where it applies)."""
        codes = self.codes.square().sum(1)
        return self.residual.square().sum(1) + self.supports.ridge * codes

    @cached_property
    def diagonal(self) -> Tensor:
        """``[B, k]``, g: diagonal of the inverse Gram matrix."""
        return self.supports.inverse.diagonal(dim1=1, dim2=2)

    @cached_property
    def without(self) -> Tensor:
        """``[B, k]``: squared least-squares error without each feature."""
        return self.error[:, None] + self.codes.square() / self.diagonal

    @cached_property
    def positive(self) -> Positive:
        """Non-negative least squares on the support."""
        gram, vectors = self.supports.gram, self.supports.vectors
        codes = nnls(gram, self.moment, self.codes > 0)
        codes = torch.where(self.supports.active, codes, 0.0)
        mask = codes > 0
        both = mask[:, :, None] & mask[:, None, :]
        eye = torch.eye(gram.shape[1], dtype=gram.dtype, device=gram.device)
        system = torch.where(both, gram, 0.0)
        system += torch.where(mask, NNLS_RIDGE, 1.0)[:, :, None] * eye
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(system)) * both
        residual = self.target - (codes[:, None, :] @ vectors).squeeze(1)
        diagonal = inverse.diagonal(dim1=1, dim2=2)
        return Positive(
            codes=codes,
            mask=mask,
            inverse=inverse,
            diagonal=torch.where(mask, diagonal, torch.inf),
            residual=residual,
            error=residual.square().sum(1),
            slope=(vectors @ residual[:, :, None]).squeeze(2),
            sound=((diagonal <= DELICATE) | ~mask).all(1),
            shadow=inverse @ gram,
        )

    @cached_property
    def small(self) -> Tensor:
        """``[B]``: codes and slopes of no more than this are zero."""
        return ZERO * self.size.sqrt()

    @cached_property
    def floor(self) -> Tensor:
        """``[B]``: codes of more than this are there, `ENTERS` of the norm of `positive`'s."""
        return ENTERS * self.positive.codes.square().sum(1).sqrt()

    @cached_property
    def tableau(self) -> Tableau:
        """How the codes >= 0 answer to changes."""
        positive, gram = self.positive, self.supports.gram
        across, mask = gram - gram @ positive.shadow, positive.mask
        columns = torch.where(
            mask[:, :, None],
            torch.where(mask[:, None, :], positive.inverse, -positive.shadow),
            torch.where(mask[:, None, :], positive.shadow.mT, across),
        )
        values = torch.where(mask, positive.codes, positive.slope)
        return Tableau(columns, values, mask, self.supports.active, self.small, positive.sound)

    @cached_property
    def _nonnegative_without(self) -> tuple[Tensor, Tensor]:
        """Codes >= 0 ``[B, k, k]`` without each feature (middle axis), squared errors ``[B, k]``.

        Those that a few changes of the support's do not lead to a solver finds.
        """
        codes = torch.zeros_like(self.supports.gram)
        error = torch.full_like(self.moment, torch.inf)
        places = self.supports.active.nonzero()
        for start, stop in spans(len(places), self.supports.swaps_at_once):
            token, place = places[start:stop].unbind(1)
            pivoted = exchanged(self.tableau, token, place)
            codes[token, place] = pivoted.codes
            error[token, place] = (self.positive.error[token] + pivoted.gain).clamp(min=0)
            self._solve_without(codes, error, places[start:stop][~pivoted.known])
        return codes, error

    def _solve_without(self, codes: Tensor, error: Tensor, places: Tensor) -> None:
        """Solve the systems without features at ``places [m, 2]``, from guesses at codes."""
        for start, stop in spans(len(places), self.supports.systems_at_once):
            token, place = places[start:stop].unbind(1)
            # An empty place has the identity: its moment is zero, and so is its code.
            system = self.system(token)
            every = torch.arange(len(token), device=token.device)
            system.gram[every, place, :] = 0.0
            system.gram[every, :, place] = 0.0
            solution = system.solve(codes[token, place] > 0)
            codes[token, place] = solution
            error[token, place] = system.error(solution)

    @property
    def codes_without_nonnegative(self) -> Tensor:
        """``[B, k, k]``: codes >= 0 (last axis) without each feature (middle axis)."""
        return self._nonnegative_without[0]

    @property
    def without_nonnegative(self) -> Tensor:
        """``[B, k]``: squared error without each feature, codes >= 0; infinite at empty places."""
        return self._nonnegative_without[1]

    def system(self, token: Tensor) -> Systems:
        """A copy of the equations of ``token [m]``."""
        return Systems(self.supports.gram[token], self.moment[token], self.size[token])

    def exchange(self, token: Tensor, place: Tensor, cross: Tensor, moment: Tensor) -> Systems:
        """The equations of supports with one feature exchanged.

        Args:
            token: ``[m]`` int64.
            place: ``[m]`` int64, whose row is exchanged.
            cross: ``[m, k]`` cosines of the new row with the support's.
            moment: ``[m]`` inner products of the new row with the target.

        Returns:
            m systems, the new feature at `place`.
        """
        system = self.system(token)
        every = torch.arange(len(token), device=token.device)
        system.gram[every, place, :] = cross
        system.gram[every, :, place] = cross
        system.gram[every, place, place] = 1.0
        system.moment[every, place] = moment
        return system
