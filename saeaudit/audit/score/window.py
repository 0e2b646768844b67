"""Some tokens at once, with all that is measured on them: made once, and then only read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import Active, Coder, active_codes
from saeaudit.core.codes.choose import Group
from saeaudit.core.codes.codelength import Prices
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.sparse import batches
from saeaudit.core.rows import UnitRows, spans
from saeaudit.sources.stacked import Activations

GRAM_PLACES = 4096
"""Places (tokens times active features) whose rows are held at once."""
GRAM_CELLS = 1 << 25
"""Entries of a window's Gram matrices: 256 MiB."""
GROUP_PLACES = 1024
"""Places in one group of tokens whose alternatives are looked for together."""


@dataclass(frozen=True, eq=False)
class Window:
    """B tokens: activations, the SAE's codes of them, and the errors of codes on its supports."""

    tokens: Tensor
    """``[B]`` int64: their positions among the activations, ascending."""
    x: Tensor
    """``[B, d_in]`` activations."""
    rows: Tensor
    """``[B, k]`` int64 live rows of the active features, -1 at empty places."""
    codes: Tensor
    """``[B, k]`` float64 unit-row codes, largest first."""
    target: Tensor
    """``[B, d]`` float64: what the decoder's rows must add up to."""
    worth: Tensor
    """``[B]``: what a squared error against the target is worth in the activations' scale."""
    gram: Tensor
    """``[B, k, k]``: inner products of each support's unit rows."""
    moment: Tensor
    """``[B, k]``: their inner products with the target."""
    units: UnitRows
    """Live rows."""
    enter: Tensor
    """``[n]`` bool: those that may enter a code."""

    @cached_property
    def _size(self) -> Tensor:
        return self.target.square().sum(1)

    @cached_property
    def errors(self) -> Tensor:
        """``[B]``: squared errors of the SAE's codes, in the activations' scale."""
        return self.errors_of(self.codes)

    def errors_of(self, codes: Tensor) -> Tensor:
        """``[B]``: squared errors of any unit-row codes ``[B, k]`` on these supports."""
        quadratic = (codes[:, None, :] @ self.gram @ codes[:, :, None]).view(-1)
        error = self._size - 2 * (self.moment * codes).sum(1) + quadratic
        return error.clamp(min=0) * self.worth

    @property
    def active(self) -> Active:
        """The active features, by token, the largest code first."""
        place, column = (self.codes > 0).nonzero().unbind(1)
        return Active(place, self.rows[place, column], self.codes[place, column])

    def groups(self, tokens: Tensor) -> Iterator[tuple[Tensor, Fit, Group]]:
        """Tokens by like support size, each group made as it is asked for.

        Args:
            tokens: ``[m]`` int64 positions, of which those in the window count.

        Yields:
            Positions ``[B]``, their least squares on their supports, the SAE's codes of them.
        """
        places = torch.isin(self.tokens, tokens).nonzero().squeeze(1)
        sizes = (self.rows[places.to(self.rows.device)] >= 0).sum(1).cpu()
        for order in batches(sizes, GROUP_PLACES):
            group = places[order]
            yield self.tokens[group], *self._fit(group.to(self.rows.device))

    def _fit(self, places: Tensor) -> tuple[Fit, Group]:
        width = int((self.rows[places] >= 0).sum(1).max())
        rows, codes = self.rows[places, :width], self.codes[places, :width]
        fit = Fit(Supports(self.units, rows), self.target[places])
        decoded = (codes[:, None, :] @ fit.supports.vectors).squeeze(1)
        return fit, Group(rows, codes, (fit.target - decoded).square().sum(1))


def window_size(l0: Tensor, most: int) -> int:
    """How many tokens to take at once, at most `most`, so that their Gram matrices are bounded.

    Args:
        l0: ``[m]`` int64: active features of the tokens, of which the most decide.
        most: where they are few.
    """
    widest = int(l0.max()) if len(l0) else 0
    return max(1, min(most, GRAM_CELLS // max(1, widest**2)))


def make_window(coder: Coder, activations: Activations, tokens: Tensor) -> Window:
    """Encode some tokens ``[B]`` int64 of the activations ``[N, d_in]`` of any float dtype.

    Raises:
        AuditError: one is not finite, or has codes that are not finite.
    """
    encoded = coder.encode(activations, tokens)
    codes, rows = active_codes(encoded.codes)
    grams, moments = [], []
    for start, stop in spans(len(rows), max(1, GRAM_PLACES // max(rows.shape[1], 1))):
        fit = Fit(Supports(coder.units, rows[start:stop]), encoded.target[start:stop])
        grams.append(fit.supports.gram)
        moments.append(fit.moment)
    return Window(
        tokens, encoded.x, rows, codes, encoded.target, encoded.worth,
        torch.cat(grams), torch.cat(moments), coder.units, coder.enter,
    )  # fmt: skip


class PricedWindow(NamedTuple):
    """A window, what its codes cost, and what they leave once they are quantised."""

    window: Window
    bits: Tensor
    """``[B]`` float64: description lengths."""
    gate_bits: float
    """Bits of all tokens that say which features are on."""
    value_bits: float
    """Bits of all tokens that say their values."""
    quantised: float
    """Squared error of all tokens with every code at the centre of its bin."""


def price_window(window: Window, prices: Prices) -> PricedWindow:
    """Price the SAE's codes of a window."""
    active = window.codes > 0
    index = window.rows[active]
    return PricedWindow(
        window,
        prices.codes(window.rows, window.codes),
        float(prices.gate[index].sum()) + prices.silence * len(window.codes),
        float(prices.value(index, window.codes[active]).sum()),
        float(window.errors_of(prices.grid.quantised(window.rows, window.codes)).sum()),
    )
