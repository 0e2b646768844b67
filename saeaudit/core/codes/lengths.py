"""Description length as a measure of codes: the bins that values lie in, and their bits."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.codelength import Prices
from saeaudit.core.codes.costs import Bits
from saeaudit.core.codes.descent import Problem
from saeaudit.core.codes.moves import spend
from saeaudit.core.codes.quantise import EDGE_SHARE, EDGE_STEPS, FINE

TABLE = 64
"""Bins of each feature whose bits are held at hand; those beyond are looked up one by one."""
ENTERING = 24
"""Bins of a row that enters that bounds tell apart."""
MOST_BINS = 24
"""Bins of one feature that values are looked for in, around what least squares ask for."""
LEAST = 1e-6
"""Least value of a feature that is on, in widths of a bin, where it has no threshold."""


class Lengths:
    """Bits of one set of prices, by feature and bin: gate and value together."""

    def __init__(self, prices: Prices) -> None:
        """Read off the first bins of all features."""
        self._prices = prices
        self.floor = prices.grid.anchor
        """``[F]``: where the first bin of each feature begins."""
        self.width = prices.grid.width * prices.step / FINE
        """Width of a bin."""
        self._gate = torch.where(prices.observed, prices.gate, torch.inf)
        features = torch.arange(prices.features, device=self.floor.device)
        columns = [prices.bin_bits(features, torch.full_like(features, b)) for b in range(TABLE)]
        self._table = self._gate[:, None] + torch.stack(columns, 1)
        self._least = self._gate + prices.least_value()

    def least(self, index: Tensor) -> Tensor:
        """No bin of features, -1 at empty places, takes fewer bits."""
        return torch.where(index >= 0, self._least[index.clamp(min=0)], torch.inf)

    def of(self, rows: Tensor, codes: Tensor) -> Tensor:
        """Bits ``[m]`` of codes ``[m, k]`` beyond silence, infinite with a feature never seen."""
        active = codes > 0
        bits = torch.zeros_like(codes)
        index = rows[active]
        bits[active] = self._gate[index] + self._prices.value(index, codes[active])
        return bits.sum(1)

    def price(self, codes: Tensor, count: Tensor, room: Tensor) -> Tensor:
        """Price of squared error: a bit a feature for all there is to spare."""
        return count / room

    def near(self, index: Tensor, centre: Tensor, reach: Tensor) -> Bits:
        """Bins about a centre.

        Args:
            index: ``[m, c]`` int64 features, -1 at empty places.
            centre: ``[m, c]`` values.
            reach: ``[m, c]`` how far to either side, as far as `MOST_BINS` allow.

        Returns:
            The bins that a feature's reach takes; none begins below its floor. Features with fewer
            than others have bins of infinite price at the end.
        """
        there, index = index >= 0, index.clamp(min=0)
        count = (2 * reach / self.width + 2).clamp(max=MOST_BINS).long()
        middle = ((centre - self.floor[index]) / self.width).floor().clamp(-1, 1e9).long()
        first = (middle - (count - 1) // 2).clamp(min=0)
        number = torch.arange(int(count.amax()) if count.numel() else 1, device=index.device)
        bins = first[..., None] + number
        floor = self.floor[index][..., None]
        # Just below its upper edge a value would be taken for one of the next bin.
        room = ((bins + 1) * (1 - 2 * EDGE_SHARE) - 2 * EDGE_STEPS) * self.width
        price = self._bits(index[..., None].expand_as(bins), bins)
        price = torch.where(there[..., None] & (number < count[..., None]), price, torch.inf)
        low = (floor + bins * self.width).clamp(min=LEAST * self.width)
        return Bits(price, low, floor + room)

    def _bits(self, index: Tensor, bins: Tensor) -> Tensor:
        out = self._table[index, bins.clamp(max=TABLE - 1)]
        far = bins >= TABLE
        if bool(far.any()):
            index = index[far]
            out[far] = self._gate[index] + self._prices.bin_bits(index, bins[far])
        return out

    def everywhere(self, index: Tensor, near: Bits) -> Bits:
        """The same bins with all that lies below and above them, at the least price there is."""
        floor, least = self.floor[index.clamp(min=0)][..., None], self.least(index)[..., None]
        low, top = near.low[..., :1], near.low[..., -1:] + self.width
        below = torch.where(low > floor, least, torch.inf)
        price = torch.where(near.price.isinf(), least, near.price)
        return Bits(
            torch.cat([below, price, least], -1),
            torch.cat([floor, near.low, top], -1),
            torch.cat([low, near.low + self.width, torch.full_like(floor, torch.inf)], -1),
        )

    def entering(self, index: Tensor) -> Bits:
        """The first bins of features ``[m, c]``, and all beyond."""
        bins = torch.arange(ENTERING, device=index.device)
        low = self.floor[index][..., None] + bins * self.width
        return self.everywhere(index, Bits(self._table[index, :ENTERING], low, low))

    def finish(self, problem: Problem, codes: Tensor, cost: Tensor) -> tuple[Tensor, Tensor]:
        """Spend the error that is left on moves to cheaper bins, or to off: see `spend`.

        Args:
            problem: m of them, in bits.
            codes: ``[m, c]`` within the limits, and within the bins at hand.
            cost: ``[m]``, infinite where there is no code.
        """
        codes = spend(problem, codes, cost.isfinite())
        bits = problem.cost.of(codes).sum(1)
        return codes, torch.where(cost.isfinite(), bits, torch.inf)
