"""Moves of codes to cheaper bins, or to off, while there is squared error to spare."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.bordered import Walk, rectangle
from saeaudit.core.codes.costs import Bits
from saeaudit.core.codes.descent import Problem
from saeaudit.core.codes.tolerances import TINY

MOVES = 40
"""Most moves that spend the error that is left."""
SAVED = 1e-9
"""Bits that a move saves at least."""
STEEP = 1e300
"""Bits that a unit of squared error beyond the limit counts for: no move saves as many."""
SHRUNK = 0.75
"""Share of the problems that are worked on at which those that are done are laid aside."""


class _Binned(NamedTuple):
    """Codes and the bins that they lie in, ``[m, c]`` each: all zero where a feature is off."""

    codes: Tensor
    low: Tensor
    high: Tensor
    price: Tensor

    @classmethod
    def of(cls, bits: Bits, codes: Tensor) -> _Binned:
        """Look the bins up."""
        at, off = bits.bins(codes), codes <= 0
        fields = (field.gather(2, at).squeeze(2) for field in (bits.low, bits.high, bits.price))
        return cls(codes, *(field.masked_fill_(off, 0.0) for field in fields))

    def only(self, index: Tensor) -> _Binned:
        """Some of the problems."""
        return _Binned(*(field[index] for field in self))


def spend(problem: Problem, codes: Tensor, moving: Tensor) -> Tensor:
    """Codes ``[m, c]`` after as many moves as there are.

    Before each, values settle: every place in turn takes the best-fitting value of its bin. The
    move that saves most bits a unit of squared error comes first (those that add no error before
    all others; of equals the first place and lowest bin).

    Args:
        problem: m of them, in bits.
        codes: ``[m, c]``.
        moving: ``[m]`` bool: those to be moved, within the limits and within the bins at hand.
    """
    assert isinstance(problem.cost, Bits)
    codes, binned = codes.clone(), _Binned.of(problem.cost, codes)
    index = torch.arange(len(moving), device=moving.device)
    for _ in range(MOVES):
        if not bool(moving.any()):
            break
        kept = rectangle(moving.view(problem.systems.shape))
        if kept.numel() <= SHRUNK * len(moving):
            problem, kept = problem.only(kept), kept.flatten()
            binned, index, moving = binned.only(kept), index[kept], moving[kept]
        binned, moved = _move(problem, binned)
        codes[index[moving]] = binned.codes[moving]
        moving = moving & moved
    return codes


def _move(problem: Problem, binned: _Binned) -> tuple[_Binned, Tensor]:
    """Codes after one move, and ``[m]`` bool: whether there was one."""
    bits = problem.cost
    assert isinstance(bits, Bits)
    codes, slope = _settled(problem, binned)
    centre, spent = codes - slope, slope.square()
    room = (problem.limit - problem.systems.error(codes))[:, None]
    in_bins = _worth_of_bins(bits, binned.price, centre, spent, room)
    worth, to_off = in_bins.amax(2), _worth(binned.price, centre.square() - spent, room)
    # To come on never saves bits unless it costs none to be on: such a one could be the last off.
    to_off[:, -1].masked_fill_(problem.enters, 0.0)
    off = problem.off(codes)
    worth.masked_fill_(off & (problem.enters & (off.sum(1) == 1))[:, None], 0.0)
    best, place = torch.maximum(worth, to_off).max(1)
    every = torch.arange(len(best), device=best.device)
    stays_on = worth[every, place] >= to_off[every, place]
    to = in_bins[every, place].max(1).indices
    low, high, price = (
        torch.where(stays_on, field[every, place, to], 0.0)
        for field in (bits.low, bits.high, bits.price)
    )
    value = torch.clamp(centre[every, place], low, high)
    moved = best > 0
    every, place = every[moved], place[moved]
    settled = binned._replace(codes=codes)
    for field, new in zip(settled, (value, low, high, price), strict=True):
        field[every, place] = new[moved]
    return settled, moved


def _worth_of_bins(
    bits: Bits, price: Tensor, centre: Tensor, spent: Tensor, room: Tensor
) -> Tensor:
    """Bits ``[m, c, n]`` that a move to each bin saves, a unit of the squared error that it adds.

    Zero where it saves none, or adds more than there is room for.

    Args:
        bits: the bins.
        price: ``[m, c]`` bits as it is.
        centre: ``[m, c]`` values of least error.
        spent: ``[m, c]`` squared error of the present values beyond that.
        room: ``[m, 1]`` squared error that may be added.
    """
    centre = centre[..., None]
    added = torch.clamp(centre, bits.low, bits.high).sub_(centre).square_().sub_(spent[..., None])
    return _worth(price[..., None] - bits.price, added, room[..., None])


def _worth(saved: Tensor, added: Tensor, room: Tensor) -> Tensor:
    """Bits saved a unit of squared error added, zero where this is no move."""
    # (On a CPU these passes are twice as fast as filling by a mask.)
    beyond = (added - room).clamp_(min=0)
    worth = torch.nn.functional.threshold(saved.sub(beyond, alpha=STEEP), SAVED, 0.0)
    return worth.div_(added.clamp_(min=TINY))


def _settled(problem: Problem, binned: _Binned) -> tuple[Tensor, Tensor]:
    """Codes and slopes with every value in turn the best-fitting of its bin."""
    walk = Walk(problem.systems, binned.codes)
    for i, (low, high) in enumerate(zip(binned.low.unbind(1), binned.high.unbind(1), strict=True)):
        walk.set(i, torch.clamp(walk.centre(i), low, high))
    codes = walk.codes
    return codes, walk.slope(codes)
