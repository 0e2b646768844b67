"""Canonical codes: the shortest code one swap away, and on from there while codes get shorter."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.cheapest import cheapest
from saeaudit.core.codes.choose import Chooser, Group
from saeaudit.core.codes.fits import Fit, Supports

STEPS = 100
"""Most steps from a code to its canonical one."""
ENOUGH = 1e-6
"""Bits by which a code must be shorter to replace another."""
SOLVED = 16
"""Most rows of one token that are solved at each step: with 64 the sample's codes are the same."""


class Step(NamedTuple):
    """One step, in live rows; both empty where only values change."""

    removed: tuple[int, ...]
    added: tuple[int, ...]


class CanonicalCodes(NamedTuple):
    """What a group of codes comes to."""

    bits_before: Tensor
    """``[B]``: bits of the reference; infinite where it has no price."""
    bits: Tensor
    """``[B]``: bits of the code reached."""
    rows: Tensor
    """``[B, k]`` int64 live rows of that code, -1 at empty places."""
    codes: Tensor
    """``[B, k]`` float64 unit-row codes."""
    paths: list[list[Step]]
    """Steps that lead to it, from the reference."""

    @property
    def l0(self) -> Tensor:
        """``[B]``: active features of the code reached."""
        return (self.rows >= 0).sum(1)


def canonicalise(chooser: Chooser, fit: Fit, group: Group, enter: Tensor) -> CanonicalCodes:
    """Go on to the shortest code one swap away while codes get shorter, at no more error.

    Args:
        chooser: whose prices decide.
        fit: targets on the reference's supports.
        group: the reference codes, and the errors that limit.
        enter: ``[n]`` bool: rows that may enter.
    """
    lengths, silence = chooser.lengths, chooser.prices[0].silence
    rows, codes = group.rows.clone(), group.codes.clone()
    before = lengths.of(rows, codes)
    bits = before.clone()
    paths: list[list[Step]] = [[] for _ in range(len(bits))]
    shrinking = torch.arange(len(bits), device=bits.device)
    for _ in range(STEPS if rows.shape[1] else 0):
        fits = Fit(Supports(chooser.units, rows[shrinking]), fit.target[shrinking])
        reference = codes[shrinking], group.error[shrinking]
        search = cheapest(fits, reference, enter, lengths, most=SOLVED)
        shorter = search.cost[:, 0] < bits[shrinking] - ENOUGH
        shrinking, search_rows, values = (
            shrinking[shorter], search.rows[shorter, 0], search.codes[shorter, 0],
        )  # fmt: skip
        if not len(shrinking):
            break
        # At most as many features are on as before: the places of those that are come first.
        values, order = values.sort(dim=1, descending=True)
        after = torch.where(values > 0, search_rows.gather(1, order), -1)[:, :-1]
        for token, old, new in zip(
            shrinking.tolist(), rows[shrinking].tolist(), after.tolist(), strict=True
        ):
            paths[token].append(_step(old, new))
        rows[shrinking], codes[shrinking] = after, values[:, :-1]
        bits[shrinking] = search.cost[shorter, 0]
    return CanonicalCodes(before + silence, bits + silence, rows, codes, paths)


def _step(old: list[int], new: list[int]) -> Step:
    before, after = set(old) - {-1}, set(new) - {-1}
    return Step(tuple(sorted(before - after)), tuple(sorted(after - before)))
