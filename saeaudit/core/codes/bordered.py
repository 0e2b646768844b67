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
        return (self.size + (codes * (self.slope(codes) - self.moment)).sum(1)).clamp(min=0)

    def slope(self, codes: Tensor) -> Tensor:
        """Half the gradient ``[m, k + 1]`` of the squared error."""
        return torch.cat([self.inside(codes), self.border(codes)[:, None]], 1)

    def inside(self, codes: Tensor) -> Tensor:
        """The slope ``[m, k]`` at the supports' places."""
        wide = codes.view(*self.shape, -1)
        product = torch.addcmul(wide[..., :-1] @ self.gram, wide[..., -1:], self.cross)
        return product.flatten(0, 1).sub_(self.moment[:, :-1])

    def border(self, codes: Tensor) -> Tensor:
        """The slope ``[m]`` at the last place."""
        product = (codes[:, :-1] * self.cross.flatten(0, 1)).sum(1)
        return product + codes[:, -1] - self.moment[:, -1]

    def apart(self) -> Systems:
        """The problems one by one, each with its matrix."""
        gram = torch.nn.functional.pad(self.gram, (0, 1, 0, 1), value=1.0)
        gram = gram.repeat_interleave(self.shape[1], 0)
        cross = self.cross.flatten(0, 1)
        gram[:, -1, :-1] = cross
        gram[:, :-1, -1] = cross
        return Systems(gram, self.moment, self.size)


class Walk:
    """Codes whose places are visited in turn, and the slope that each visit needs.

    At places of the supports the slope is kept up; at the last it is made when it is asked for.
    """

    def __init__(self, systems: Bordered, codes: Tensor) -> None:
        """Begin at codes ``[m, k + 1]``."""
        self._systems, self._inside = systems, systems.inside(codes)
        self._slopes = self._inside.unbind(1)
        self._wide = self._inside.view(systems.cross.shape)
        # A Gram matrix's rows stand for its columns: their entries lie side by side.
        self._columns = systems.gram.unsqueeze(2).unbind(1)
        self._by_place = codes.T.clone(memory_format=torch.contiguous_format)
        self._places = self._by_place.unbind(0)

    @property
    def codes(self) -> Tensor:
        """A copy of the codes ``[m, k + 1]`` as they are."""
        return self._by_place.T.clone(memory_format=torch.contiguous_format)

    def centre(self, place: int) -> Tensor:
        """Values ``[m]`` of least error at a place, all others as they are."""
        last = place == len(self._slopes)
        slope = self._systems.border(self.codes) if last else self._slopes[place]
        return self._places[place] - slope

    def set(self, place: int, values: Tensor) -> None:
        """Give codes at a place the values ``[m]``."""
        here = self._places[place]
        by = (values - here).view(*self._systems.shape, 1)
        last = place == len(self._slopes)
        self._wide.addcmul_(self._systems.cross if last else self._columns[place], by)
        here.copy_(values)

    def slope(self, codes: Tensor) -> Tensor:
        """Half the gradient ``[m, k + 1]`` at the codes, which are given to save a copy."""
        return torch.cat([self._inside, self._systems.border(codes)[:, None]], 1)


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
