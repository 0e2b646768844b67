"""Which rows can bring the farthest full swap, or one that an encoder could give: by estimates.

See `saeaudit.core.codes.full.Farthest`. Swaps whose change is at most what another surely has are
left out, by a bound first and then by their estimated codes; of the rest the rows are marked.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.estimates import BARRED, UNSURE, Estimates, Estimator
from saeaudit.core.codes.fits import Fit
from saeaudit.core.codes.full import Farthest
from saeaudit.core.codes.screening import Screened
from saeaudit.core.codes.signed import Signed, step
from saeaudit.core.codes.tolerances import STEPS, ULP
from saeaudit.core.rows import spans

WEAK_PLACES = 4
"""Codes that are looked at before all are: one that cannot be above its floor is enough."""
LEADING = (0.8, 0.6, 0.0)
"""Shares of the highest bound: of the first rows those above one are looked at before the others,
of which they leave few."""


class _Marked(NamedTuple):
    """Full swaps that may be the farthest, or attainable."""

    token: Tensor
    """``[m]``."""
    row: Tensor
    """``[m]``."""
    change: Tensor
    """``[m]`` upper bounds."""
    within: Tensor
    """``[m, T]`` bool: limits that they may be within."""
    attains: Tensor
    """``[m]`` bool: whether all codes may be above their thresholds."""


class _Off(NamedTuple):
    """Bounds on errors that grow with the code of the row that enters."""

    fixed: Tensor
    """``[B, k]``."""
    share: Tensor
    """``[B]``: of that code."""


class Reach:
    """Bounds on the farthest full swaps of one target, and the rows that may bring them."""

    def __init__(self, far: Farthest, screened: Screened, estimator: Estimator) -> None:
        """Begin with none."""
        fit, scale = far.fit, screened.scale[:, None]
        self._far, self._screened, self._estimator = far, screened, estimator
        self._active, self._rows = fit.supports.active, fit.supports.rows
        share = far.share * self._active[:, :, None]
        self._root = _single(estimator.root)
        self._codes = _single(fit.codes * scale)
        self._refit = _single(fit.positive.codes * scale)
        self._floor = _single(fit.floor * screened.scale)
        self._total = _single(far.total * screened.scale)
        self._leaves = _single(far.leaves * scale)
        self._share = _single(share)
        self._spread = _single(share.abs().sum(2))
        self._off = _single(screened.squares.off)
        self._cosine_off = estimator.off
        self._largest = torch.nn.functional.pad(self._root, (0, 1)).amax(1)
        self._most_share = torch.nn.functional.pad(self._share.abs(), (0, 1)).amax(2)
        self.change = torch.zeros(far.change.shape, device=scale.device)
        """``[B, T]``: what some full swap surely changes, times the support's sum of codes."""
        self.attainable = torch.zeros_like(far.attainable)
        self._marked: list[_Marked] = []
        tests = screened.squares.tests
        always = torch.where(self._active, -torch.inf, torch.inf)[:, None, :].to(torch.float32)
        self._tests = tests._replace(root=torch.where(tests.wanted, tests.root, always))
        self._weakest = self._find_weakest(fit)

    def _find_weakest(self, fit: Fit) -> tuple[Tensor, Tensor]:
        """Places ``[B, m]`` of the `WEAK_PLACES` codes that are closest to their floor, or most
        below it, and the least codes that they may have."""
        margin = torch.where(self._active, fit.codes, torch.inf)
        places = margin.topk(min(WEAK_PLACES, margin.shape[1]), dim=1, largest=False).indices
        return places, self._floor[:, None].expand_as(places)

    def take(self, rows: Estimates, signed: Signed) -> None:
        """Take some rows that may enter."""
        allowed = self._screened.allowed
        amount, root = signed.amount, self._root[:, :, None]
        off = self._amount_off(rows)
        stays = torch.addcmul(self._codes[:, :, None], amount * rows.cosine, root, value=-1)
        able = step(amount + 2 * off.fixed[:, :, None]).mul_(allowed[:, None, :])
        able *= self._lifted(rows, off, amount, stays)
        bound = self._bounds(rows, off, amount, stays).mul_(able)
        for share in LEADING if rows.start == 0 else LEADING[-1:]:
            index = self._promising(rows, signed, bound, share)
            index = self._above_floors(rows, signed, off, index, self._weakest)
            self._judge_all(rows, signed, index)
        thresholds = self._far.thresholds
        if thresholds is None or bool(self.attainable[self._screened.usable].all()):
            return
        stop = rows.start + amount.shape[2]
        least = _single(thresholds[rows.start : stop] * self._screened.scale[:, None])
        least *= 1 - 2 * off.share[:, None]
        tall = step(amount - least[:, None] + 2 * off.fixed[:, :, None]).mul_(able)
        self._judge_all(rows, signed, self._tall(rows, signed, off, tall))

    def _amount_off(self, rows: Estimates) -> _Off:
        """By how much codes of the entering rows are off at most."""
        square = rows.steep.square().amax(1)
        apart = self._estimator.off_apart(1 / square[:, None])[:, 0]
        share = (apart + 3 * self._cosine_off) * square + STEPS * ULP
        return _Off(self._off * square[:, None], share)

    def _bounds(self, rows: Estimates, off: _Off, amount: Tensor, stays: Tensor) -> Tensor:
        """Upper bounds ``[B, k, c]`` on changes: the sums of `Farthest`; `stays` is written to.

        The sum of P over all features stands for that over the others.
        """
        length = (self._root[:, None, :] @ rows.cosine.abs()).add_(1)
        length += (self._root.sum(1) * self._cosine_off)[:, None, None]
        longest = length.amax((1, 2))
        spread = self._root * self._spread
        share = off.share * longest
        share += spread.amax(1) * (off.share + self._cosine_off) if spread.shape[1] else 0
        fixed = self._leaves + off.fixed * (longest[:, None] + spread)
        bound = stays.abs_().mul_(self._spread[:, :, None])
        bound = bound.addcmul_(amount, length.add_(share[:, None, None])).add_(fixed[:, :, None])
        return bound.mul_(1 + STEPS * ULP)

    def _codes_off(self, off: _Off) -> _Off:
        """By how much any code of a swap is off at most."""
        times = self._most_share * self._root + self._largest[:, None]
        most = torch.nn.functional.pad(times, (0, 1)).amax(1)
        largest = 1 + torch.nn.functional.pad(self._codes.abs(), (0, 1)).amax(1, keepdim=True)
        fixed = times * off.fixed + STEPS * ULP * largest * (1 + self._most_share)
        return _Off(fixed, most * (off.share + self._cosine_off))

    def _lifted(self, rows: Estimates, off: _Off, amount: Tensor, stays: Tensor) -> Tensor:
        """One ``[B, k, c]`` where the weakest code of the others may be above the floor, else 0."""
        places, least = self._weakest
        place = places[:, :1]
        off = self._codes_off(off)
        base = self._codes.gather(1, place) - least[:, :1] + off.fixed
        base = base.scatter(1, place, -BARRED)[:, :, None]
        share = self._share.gather(2, place[:, :, None].expand(-1, len(base[0]), -1))
        weight = rows.cosine.gather(1, place[:, :, None].expand(-1, -1, amount.shape[2]))
        weight = weight * self._root.gather(1, place)[:, :, None] - off.share[:, None, None]
        return step(torch.addcmul(base, stays, share, value=-1).addcmul_(amount, weight, value=-1))

    def _promising(self, rows: Estimates, signed: Signed, bound: Tensor, share: float) -> Tensor:
        """Swaps ``[m, 3]`` whose bound passes the change that is sure at a limit they meet, and a
        share of the token's highest bound."""
        high = bound.amax(2)
        least = torch.maximum(self.change, share * high.amax(1)[:, None])
        b, t, i = self._tests.open(rows, signed.value.amax(2), high > 0)
        further = high[b, i] > least[b, t]
        b, t, i = b[further], t[further], i[further]
        able = signed.value[b, i] >= self._tests.possible(b, t, i, rows.steep[b], rows.share_off[b])
        able &= bound[b, i] > least[b, t][:, None]
        return self._distinct(b, i, able, bound.shape)

    def _tall(self, rows: Estimates, signed: Signed, off: _Off, tall: Tensor) -> Tensor:
        """Swaps ``[m, 3]`` at a limit where none is attainable yet, by the weakest code."""
        b, t, i = self._tests.open(rows, signed.value.amax(2), tall.amax(2) > 0)
        unknown = ~self.attainable[b, t]
        b, t, i = b[unknown], t[unknown], i[unknown]
        able = signed.value[b, i] >= self._tests.possible(b, t, i, rows.steep[b], rows.share_off[b])
        able &= tall[b, i] > 0
        index = self._distinct(b, i, able, tall.shape)
        place, least = (of_token[:, None] for of_token in self._far.weakest_above)
        least = _single(least * self._screened.scale[:, None])
        return self._above_floors(rows, signed, off, index, (place, least))

    @staticmethod
    def _distinct(b: Tensor, i: Tensor, able: Tensor, shape: torch.Size) -> Tensor:
        """Swaps ``[m, 3]`` of rows ``able [r, c]`` of tokens and places ``[r]``, each once."""
        r, c = able.nonzero().unbind(1)
        key = torch.unique((b[r] * shape[1] + i[r]) * shape[2] + c)
        token_place = key // shape[2]
        return torch.stack([token_place // shape[1], token_place % shape[1], key % shape[2]], 1)

    def _above_floors(
        self, rows: Estimates, signed: Signed, off: _Off, index: Tensor,
        weakest: tuple[Tensor, Tensor],
    ) -> Tensor:  # fmt: skip
        """Of some swaps ``[m, 3]`` those whose weakest codes may be above their least, or leave."""
        off = self._codes_off(off)
        for place, least in zip(*(column.unbind(1) for column in weakest), strict=True):
            b, i, c = index.unbind(1)
            weak = place[b]
            amount, cosine = signed.amount[b, i, c], rows.cosine
            stays = self._codes[b, i] - amount * self._root[b, i] * cosine[b, i, c]
            code = self._codes[b, weak] - stays * self._share[b, i, weak]
            code -= amount * self._root[b, weak] * cosine[b, weak, c]
            code += off.fixed[b, i] + amount * off.share[b]
            index = index[(code > least[b]) | (i == weak)]
        return index

    def _judge_all(self, rows: Estimates, signed: Signed, index: Tensor) -> None:
        for first, last in spans(len(index), self._far.fit.supports.swaps_at_once):
            self._judge(rows, signed, index[first:last])

    def _judge(self, rows: Estimates, signed: Signed, index: Tensor) -> None:
        """Compare the estimated codes of some swaps with the support's own."""
        b, i, c = index.unbind(1)
        at = torch.arange(len(b), device=b.device)
        amount, cosine = signed.amount[b, i, c], rows.cosine[b, :, c]
        across = rows.nearness[b, i, c].square()
        apart = self._estimator.off_apart(rows.apart)[b, c] + 3 * self._cosine_off
        off = (self._off[b, i] + amount * apart) * across * (1 + UNSURE) + STEPS * ULP * amount
        stays = self._codes[b, i] - amount * self._root[b, i] * cosine[at, i]
        beside = amount * self._cosine_off
        stays_off = self._root[b, i] * (off + beside)
        code_off = self._most_share[b, i] * stays_off + self._largest[b] * (off + beside)
        codes = self._codes[b] - stays[:, None] * self._share[b, i]
        codes -= amount[:, None] * self._root[b] * cosine
        magnitude = codes.abs().amax(1) + self._codes[b].abs().amax(1) + amount
        code_off += STEPS * ULP * magnitude * (1 + self._most_share[b, i])
        apart = (codes - self._refit[b]).abs()
        counted = self._active[b]
        counted[at, i] = False
        room = torch.where(counted, codes, torch.inf).amin(1) - self._floor[b]
        room = torch.minimum(room, amount - self._floor[b])
        may = (room > -code_off - off).nonzero().squeeze(1)
        b, i, c, codes, counted = b[may], i[may], c[may], codes[may], counted[may]
        amount, off, code_off, room = amount[may], off[may], code_off[may], room[may]
        change = (apart[may] * counted).sum(1) + amount + self._refit[b, i]
        change_off = codes.shape[1] * code_off + off + STEPS * ULP * change
        sure = room > code_off + off
        above, attains = self._above(codes, counted, (b, c + rows.start), amount)
        value = signed.value[b, i, c][:, None]
        by_row = rows.steep[b, c, None], rows.share_off[b, c, None]
        root, test_off = self._tests.root[b, :, i], self._tests.off[b, i, None] * by_row[0]
        within = value >= root * (1 + by_row[1]) + test_off
        for t in range(within.shape[1]):
            able = within[:, t] & sure
            self.change[:, t].scatter_reduce_(0, b[able], (change - change_off)[able], "amax")
            self.attainable[b[able & (above > code_off + off)], t] = True
        swaps = _Marked(
            b, c + rows.start, change + change_off, value >= root * (1 - by_row[1]) - test_off,
            attains & (above > -code_off - off),
        )  # fmt: skip
        needed = self._needed(swaps)
        self._marked.append(_Marked(*(column[needed] for column in swaps)))

    def _needed(self, swaps: _Marked) -> Tensor:
        """Bool ``[m]``: swaps that nothing yet makes needless."""
        further = swaps.change[:, None] >= self.change[swaps.token]
        attains = swaps.attains[:, None] & ~self.attainable[swaps.token]
        return (swaps.within & (further | attains)).any(1)

    def _above(
        self, codes: Tensor, counted: Tensor, index: tuple[Tensor, Tensor], amount: Tensor
    ) -> tuple[Tensor, Tensor]:
        """By how much ``[m]`` all codes are above their thresholds; bool, false without any."""
        b, row = index
        if self._far.thresholds is None:
            return torch.full_like(amount, -torch.inf), torch.zeros_like(b, dtype=torch.bool)
        scale = self._screened.scale[b]
        least = self._far.thresholds[self._rows[b].clamp(min=0)] * scale[:, None]
        above = torch.where(counted, codes - _single(least), torch.inf).amin(1)
        entering = amount - _single(self._far.thresholds[row] * scale)
        return torch.minimum(above, entering), torch.ones_like(b, dtype=torch.bool)

    def rows(self) -> Tensor:
        """``[B, n]`` bool: rows that may bring the farthest, or the first attainable, swap."""
        out = self._screened.unclear.clone()
        for swaps in self._marked:
            needed = self._needed(swaps)
            out[swaps.token[needed], swaps.row[needed]] = True
        return out


def _single(values: Tensor) -> Tensor:
    return values.to(torch.float32)
