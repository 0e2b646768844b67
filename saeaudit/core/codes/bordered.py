"""Squared errors on supports with one row more, of many rows at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.fits import Systems


class Bordered(NamedTuple):
    """B supports of k features, beside each of which C rows stand in turn: m = B C problems.

    A problem has k + 1 places, the row's last. Its Gram matrix is its support's with a border. It
    is not made: matrices of B supports fit in a CPU's cache, those of m problems would not.
    """

    gram: Tensor
    """``[B, k, k]``, G: the supports' own."""
    cross: Tensor
    """``[B, C, k]``: inner products of the rows with the supports'."""
    moment: Tensor
    """``[m, k + 1]``, h."""
    size: Tensor
    """``[m]``, |t|^2."""

    @property
    def shape(self) -> tuple[int, int]:
        """B and C."""
        return self.cross.shape[0], self.cross.shape[1]

    def only(self, index: Tensor) -> Bordered:
        """Problems ``[b, c]`` int64, a row of them of one support each."""
        return Bordered(
            self.gram[index[:, 0] // self.shape[1]], self.cross.flatten(0, 1)[index],
            self.moment[index.flatten()], self.size[index.flatten()],
        )  # fmt: skip

    def error(self, codes: Tensor) -> Tensor:
        """Squared errors ``[m]`` of codes ``[m, k + 1]``."""
        quadratic = (codes * self._product(codes)).sum(1)
        return (self.size - 2 * (self.moment * codes).sum(1) + quadratic).clamp(min=0)

    def slope(self, codes: Tensor) -> Tensor:
        """Half the gradient ``[m, k + 1]`` of the squared error."""
        return self._product(codes) - self.moment

    def systems(self) -> Systems:
        """The problems one by one, each with its matrix."""
        gram = torch.nn.functional.pad(self.gram, (0, 1, 0, 1), value=1.0)
        gram = gram.repeat_interleave(self.shape[1], 0)
        cross = self.cross.flatten(0, 1)
        gram[:, -1, :-1] = cross
        gram[:, :-1, -1] = cross
        return Systems(gram, self.moment, self.size)

    def _product(self, codes: Tensor) -> Tensor:
        """The matrices times codes ``[m, k + 1]``."""
        wide = codes.view(*self.shape, -1)
        inside, last = wide[..., :-1], wide[..., -1:]
        product = torch.addcmul(inside @ self.gram, last, self.cross)
        border = (inside * self.cross).sum(2, keepdim=True) + last
        return torch.cat([product, border], 2).flatten(0, 1)


class Slope:
    """Half the gradient of the squared error, kept up while one place after the other changes."""

    def __init__(self, systems: Bordered, codes: Tensor) -> None:
        """Begin at codes ``[m, k + 1]``."""
        self.values = systems.slope(codes)
        """``[m, k + 1]``."""
        self.places = self.values.unbind(1)
        """The same by place, ``[m]`` each."""
        self._shape, self._border = systems.shape, systems.cross
        wide = self.values.view(*self._shape, -1)
        self._inside, self._last = wide[..., :-1], wide[..., -1]
        # A Gram matrix's rows stand for its columns: their entries lie side by side.
        self._columns = systems.gram[:, :, None].unbind(1)
        self._crosses = systems.cross.unbind(2)

    def move(self, place: int, by: Tensor) -> None:
        """Take it that codes at a place have changed ``by [m]``."""
        by = by.view(self._shape)
        if place < len(self._columns):
            self._inside.addcmul_(self._columns[place], by[..., None])
            self._last.addcmul_(self._crosses[place], by)
        else:
            self._inside.addcmul_(self._border, by[..., None])
            self._last += by


def rectangle(marked: Tensor) -> Tensor:
    """Marked places ``[b, c]`` of ``[B, C]`` bool, numbered row by row, in as few rows and columns.

    In rows with fewer than c marks other places follow.

    >>> rectangle(torch.tensor([[False, True, True], [False, False, False], [True, False, False]]))
    tensor([[1, 2],
            [6, 7]])
    """
    count = marked.sum(1)
    row = count.nonzero()
    width = int(count.max()) if count.numel() else 0
    # False comes first.
    column = (~marked[row[:, 0]]).long().argsort(dim=1, stable=True)[:, :width]
    return row * marked.shape[1] + column
