"""Which rows can bring the farthest full swap, or one that an encoder could give: by estimates.

See `saeaudit.core.codes.full.Farthest`. Swaps whose change is at most what another surely has are
left out, by a bound first and then by their estimated codes; of the rest the rows are marked.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.codes.estimates import UNSURE, Columns, Estimates, Estimator
from saeaudit.core.codes.full import Farthest
from saeaudit.core.codes.screening import Screened
from saeaudit.core.codes.signed import Chosen, choose, step
from saeaudit.core.codes.tolerances import STEPS, ULP
from saeaudit.core.rows import spans

WEAK_PLACES = 4
"""Codes that are looked at before all are: one that cannot be above its floor is enough."""
LEADING = 0.9
"""Share of the highest bound: of the first rows those above are looked at before the others, of
which they leave few."""


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


class _Weakest(NamedTuple):
    """Codes that are closest to what they must be above."""

    places: Tensor
    """``[B, w]``."""
    share: Tensor
    """``[B, k, w]``: by how much they fall for each unit of one that leaves."""
    room: Tensor
    """``[B, k, w]``: by how much they are above that once it has left; infinite for itself."""


class _Sums(NamedTuple):
    """What bounds on changes are made of beside what stays."""

    length: Tensor
    """``[B, c]``: of the code of the row that enters."""
    fixed: Tensor
    """``[B, k]``."""


class _Swaps(NamedTuple):
    """Swaps of one step that are looked at."""

    off: _Off
    """By how much codes of entering rows are off."""
    chosen: Chosen
    """Limits that they may be within, and places."""
    amount: Tensor
    """``[m, c]``: codes of the rows that enter."""
    within: Tensor
    """Ones ``[n, c]`` where a swap may be within the limit of each test, else zero."""


class _Waiting(NamedTuple):
    """Swaps that wait to be judged."""

    columns: Columns
    """``[m]`` rows."""
    place: Tensor
    """``[m]`` int64."""


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
        self._none = torch.zeros_like(self._active)
        self._waiting: list[_Waiting] = []
        self._weakest = self._find_weakest(fit.floor[:, None].expand_as(fit.codes))
        self._weakest_above = self._weakest
        if far.thresholds is not None:
            least = far.thresholds[self._rows.clamp(min=0)]
            self._weakest_above = self._find_weakest(least)

    def _find_weakest(self, least: Tensor) -> _Weakest:
        """The `WEAK_PLACES` codes that are closest to their least ``[B, k]``, or most below it."""
        codes, k = self._far.fit.codes, least.shape[1]
        margin = torch.where(self._active, codes - least, torch.inf)
        places = margin.topk(min(WEAK_PLACES, k), dim=1, largest=False).indices
        scaled = (codes - least) * self._screened.scale[:, None]
        room = torch.where(self._active, scaled, torch.inf).gather(1, places)
        share = self._share.gather(2, places[:, None, :].expand(-1, k, -1))
        room = _single(room)[:, None, :] - self._codes[:, :, None] * share
        every = torch.arange(k, device=places.device)[None, :, None]
        return _Weakest(places, share, room.masked_fill(places[:, None, :] == every, torch.inf))

    def take(self, rows: Estimates) -> None:
        """Take some rows that may enter."""
        squares, off = self._screened.squares, self._amount_off(rows)
        most, sums = squares.most(rows), self._sums(rows, off)
        test = self._tests.open(rows, most, self._wanted(rows, off, most, sums))
        if not len(test[0]):
            return
        chosen = choose(rows, test, self._none)
        places = chosen.places
        signed = squares.of(rows, places)
        swaps = _Swaps(off, chosen, signed.amount, self._may_be_within(rows, chosen, signed.value))
        bound = self._bounds(rows, swaps, sums)
        if rows.start == 0:
            self._collect(rows, swaps, bound, LEADING)
            self._judge_waiting()
        self._collect(rows, swaps, bound, 0.0)
        thresholds = self._far.thresholds
        if thresholds is not None and not bool(self.attainable[self._screened.usable].all()):
            self._collect_tall(rows, swaps, bound, thresholds)
        held = sum(len(waiting.place) for waiting in self._waiting)
        if rows.start == 0 or held > self._far.fit.supports.swaps_at_once:
            self._judge_waiting()

    def _amount_off(self, rows: Estimates) -> _Off:
        """By how much codes of the entering rows are off at most."""
        square = rows.steep.square().amax(1)
        apart = self._estimator.off_apart(1 / square[:, None])[:, 0]
        share = (apart + 3 * self._cosine_off) * square + STEPS * ULP
        return _Off(self._off * square[:, None], share)

    def _codes_off(self, off: _Off) -> _Off:
        """By how much any code of a swap is off at most."""
        times = self._most_share * self._root + self._largest[:, None]
        most = torch.nn.functional.pad(times, (0, 1)).amax(1)
        largest = 1 + torch.nn.functional.pad(self._codes.abs(), (0, 1)).amax(1, keepdim=True)
        fixed = times * off.fixed + STEPS * ULP * largest * (1 + self._most_share)
        return _Off(fixed, most * (off.share + self._cosine_off))

    def _sums(self, rows: Estimates, off: _Off) -> _Sums:
        """What bounds on changes are made of: the sums of `Farthest`.

        The sum of P over all features stands for that over the others.
        """
        length = rows.length + (1 + self._root.sum(1, keepdim=True) * self._cosine_off)
        longest, spread = length.amax(1), self._root * self._spread
        share = off.share * longest
        share += spread.amax(1) * (off.share + self._cosine_off) if spread.shape[1] else 0
        fixed = self._leaves + off.fixed * (longest[:, None] + spread)
        return _Sums((length + share[:, None]).mul_(1 + STEPS * ULP), fixed * (1 + STEPS * ULP))

    def _wanted(self, rows: Estimates, off: _Off, most: Tensor, sums: _Sums) -> Tensor:
        """Bool ``[B, T, k]``: places at which some row may bring what is looked for, by the largest
        value ``most [B, k]`` and the largest weights of any."""
        amount, weight = most * rows.steepest[:, None], rows.highest * self._root
        off, weakest = self._codes_off(off), self._weakest
        reach = weakest.share.abs() * weight[:, :, None]
        reach += weight.gather(1, weakest.places)[:, None, :] + off.share[:, None, None]
        lifted = weakest.room + off.fixed[:, :, None] + amount[:, :, None] * reach > 0
        stays = self._codes.abs() + amount * weight
        bound = stays * self._spread * (1 + STEPS * ULP)
        bound += amount * sums.length.amax(1, keepdim=True) + sums.fixed
        wanted = bound[:, None, :] * (1 + STEPS * ULP) > self.change[:, :, None]
        if self._far.thresholds is not None:
            wanted |= ~self.attainable[:, :, None]
        return wanted & (lifted.all(2) & self._active)[:, None, :]

    def _may_be_within(self, rows: Estimates, chosen: Chosen, value: Tensor) -> Tensor:
        """Ones ``[m, c]`` where a value may be within the limit of each test, else zero."""
        b = chosen.test[0]
        least = self._tests.possible(chosen.test, rows.steepest[b], rows.most_off[b])
        return step(value[chosen.at] - least[:, None] * (1 - STEPS * ULP))

    def _bounds(self, rows: Estimates, swaps: _Swaps, sums: _Sums) -> Tensor:
        """Upper bounds ``[m, c]`` on changes of swaps that may leave the weakest code above its
        least, else zero."""
        (b, i, cosine, _), amount = swaps.chosen.places, swaps.amount
        stays = torch.addcmul(
            self._codes[b, i][:, None], amount * cosine, self._root[b, i][:, None], value=-1
        )
        able = step(amount + 2 * swaps.off.fixed[b, i][:, None]).mul_(rows.allowed[b])
        able *= self._lifted(rows, swaps, stays)
        bound = stays.abs_().mul_(self._spread[b, i][:, None] * (1 + STEPS * ULP))
        bound = bound.addcmul_(amount, sums.length[b]).add_(sums.fixed[b, i][:, None])
        return bound.mul_(1 + STEPS * ULP).mul_(able)

    def _lifted(self, rows: Estimates, swaps: _Swaps, stays: Tensor) -> Tensor:
        """One ``[m, c]`` where the weakest code of the others may be above the floor, else 0."""
        (b, i, _, _), weakest, off = swaps.chosen.places, self._weakest, self._codes_off(swaps.off)
        which = (weakest.places[b, 0] == i).long().clamp(max=weakest.places.shape[1] - 1)
        place = weakest.places[b, which]
        weight = rows.cosine[b, place] * self._root[b, place][:, None] - off.share[b, None]
        room = weakest.room[b, i, which] + self._codes[b, i] * weakest.share[b, i, which]
        room = (room + off.fixed[b, i])[:, None]
        share = weakest.share[b, i, which][:, None]
        return step(
            torch.addcmul(room, stays, share, value=-1).addcmul_(swaps.amount, weight, value=-1)
        )

    def _collect(self, rows: Estimates, swaps: _Swaps, bound: Tensor, share: float) -> None:
        """Collect swaps whose bound passes the change that is sure at a limit they may be within,
        and a share of the highest such bound."""
        b, t, _ = swaps.chosen.test
        of_test = bound[swaps.chosen.at].mul_(swaps.within)
        least = self.change[b, t]
        if share:
            top = torch.zeros_like(self.change).view(-1)
            top.scatter_reduce_(0, b * self.change.shape[1] + t, of_test.amax(1), "amax")
            least = torch.maximum(least, share * top[b * self.change.shape[1] + t])
        self._wait(rows, swaps, step(of_test.sub_(least[:, None])), self._weakest)

    def _collect_tall(
        self, rows: Estimates, swaps: _Swaps, bound: Tensor, thresholds: Tensor
    ) -> None:
        """Collect swaps at a limit where none is attainable yet, by the weakest code."""
        b, t, _ = swaps.chosen.test
        token, stop = swaps.chosen.places.token, rows.start + bound.shape[1]
        least = _single(thresholds[rows.start : stop] * self._screened.scale[:, None])
        least *= 1 - 2 * swaps.off.share[:, None]
        fixed = swaps.off.fixed[token, swaps.chosen.places.place]
        tall = step(swaps.amount - least[token] + 2 * fixed[:, None]).mul_(bound > 0)
        unknown = ~self.attainable[b, t]
        tall = tall[swaps.chosen.at].mul_(swaps.within).mul_(unknown[:, None])
        self._wait(rows, swaps, tall, self._weakest_above)

    def _wait(self, rows: Estimates, swaps: _Swaps, wanted: Tensor, weakest: _Weakest) -> None:
        """Let swaps ``wanted [n, c]`` of each test wait, of which no weak code is too weak."""
        chosen, off = swaps.chosen, self._codes_off(swaps.off)
        able = torch.zeros_like(swaps.amount).index_add_(0, chosen.at, wanted)
        m, c = able.nonzero().unbind(1)
        b, i, amount = chosen.places.token[m], chosen.places.place[m], swaps.amount[m, c]
        columns = rows.columns(b, c)
        weight = self._root[b, i] * columns.cosine[torch.arange(len(m), device=m.device), i]
        places = weakest.places[b]
        others = self._root[b].gather(1, places) * columns.cosine.gather(1, places)
        room = weakest.room[b, i] + (amount * weight)[:, None] * weakest.share[b, i]
        room += (off.fixed[b, i] + amount * off.share[b])[:, None] - amount[:, None] * others
        at = (room > 0).all(1).nonzero().squeeze(1)
        self._waiting.append(_Waiting(columns.at(at), i[at]))

    def _judge_waiting(self) -> None:
        if not self._waiting:
            return
        columns = Columns.join([waiting.columns for waiting in self._waiting])
        place = torch.cat([waiting.place for waiting in self._waiting])
        self._waiting = []
        for first, last in spans(len(place), self._far.fit.supports.swaps_at_once):
            part = slice(first, last)
            self._judge(Columns(*(field[part] for field in columns)), place[part])

    def _judge(self, columns: Columns, i: Tensor) -> None:
        """Compare the estimated codes of some swaps with the support's own."""
        b, cosine, at = columns.token, columns.cosine, torch.arange(len(i), device=i.device)
        amount, value = self._screened.squares.of_columns(columns, at, i)
        across = columns.nearness(at, i).square()
        apart = self._estimator.off_apart_of(b, columns.apart) + 3 * self._cosine_off
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
        columns, b, i, codes, counted = columns.at(may), b[may], i[may], codes[may], counted[may]
        amount, off, code_off, room = amount[may], off[may], code_off[may], room[may]
        change = (apart[may] * counted).sum(1) + amount + self._refit[b, i]
        change_off = codes.shape[1] * code_off + off + STEPS * ULP * change
        sure = room > code_off + off
        above, attains = self._above(codes, counted, (b, columns.row), amount)
        value = value[may][:, None]
        by_row = columns.steep[:, None], columns.share_off[:, None]
        root, test_off = self._tests.root[b, :, i], self._tests.off[b, i, None] * by_row[0]
        within = value >= root * (1 + by_row[1]) + test_off
        for t in range(within.shape[1]):
            able = within[:, t] & sure
            self.change[:, t].scatter_reduce_(0, b[able], (change - change_off)[able], "amax")
            self.attainable[b[able & (above > code_off + off)], t] = True
        swaps = _Marked(
            b, columns.row, change + change_off, value >= root * (1 - by_row[1]) - test_off,
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
        self._judge_waiting()
        out = self._screened.unclear.clone()
        for swaps in self._marked:
            needed = self._needed(swaps)
            out[swaps.token[needed], swaps.row[needed]] = True
        return out


def _single(values: Tensor) -> Tensor:
    return values.to(torch.float32)
