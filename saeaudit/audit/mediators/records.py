"""From a batch of tokens to records: each token's figures, and its alternatives."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import written_codes
from saeaudit.audit.mediators.batch import MODES, Batch, ModeSwaps
from saeaudit.audit.mediators.examples import attainable
from saeaudit.audit.texts import TokenText, token_text
from saeaudit.core.codes.full import changes
from saeaudit.core.codes.tolerances import TOLERANCE
from saeaudit.dictionary import Dictionary
from saeaudit.records import Alternatives, Code, MediatorRecord, Texts, TokenRecord
from saeaudit.vocabulary import Mode

CANDIDATES = 3
"""Exchanges solved for each alternative that is written."""


TextsOf = Callable[[Sequence[int], Sequence[int]], Texts | None]
"""Explanations of features that leave and that enter."""


def exchanged_texts(labels: Mapping[int, str] | None, dictionary: Dictionary) -> TextsOf:
    """What records say of exchanged features; nothing of a control, whose features are not these.

    Args:
        labels: by feature; None where there are none.
        dictionary: the SAE, or a control.
    """
    if labels is None or dictionary.control is not None:
        return lambda removed, added: None
    return lambda removed, added: Texts(
        tuple(map(labels.get, removed)), tuple(map(labels.get, added))
    )


class Solved(NamedTuple):
    """Some exchanges, solved one system each."""

    token: Tensor
    """``[m]`` int64: place in the batch."""
    place: Tensor
    """``[m]`` int64: which feature of the support leaves."""
    row: Tensor
    """``[m]`` int64: live row that enters."""
    rows: Tensor
    """``[m, k]`` int64 live rows, -1 at empty places."""
    codes: Tensor
    """``[m, k]`` float64 non-negative unit-row codes."""
    error: Tensor
    """``[m]`` squared errors."""
    change: Tensor
    """``[m]``: how far the codes are from the refit; NaN where that is zero."""

    def only(self, keep: Tensor) -> Solved:
        """Those that an index names."""
        return Solved(*(column[keep] for column in self))


def batch_records(
    batch: Batch, tokens: Sequence[str] | None, texts_of: TextsOf
) -> Iterator[list[TokenRecord | MediatorRecord]]:
    """Each token's record and its alternatives, in the order of the batch."""
    texts = [token_text(tokens, number) for number in batch.numbers.tolist()]
    listed: list[list[TokenRecord | MediatorRecord]] = [
        [record] for record in _token_records(batch, texts)
    ]
    coder = batch.coder
    codes = written_codes(coder.units, coder.thresholds, batch.supports.rows, batch.codes)
    for mode in MODES:
        solved = _most_changing(batch, batch.modes[mode])
        records = _mediator_records(batch, mode, solved, codes, texts)
        said = (replace(r, explanations=texts_of(r.removed, r.added)) for r in records)
        for case, record in zip(solved.token.tolist(), said, strict=True):
            listed[case].append(record)
    yield from listed


def _token_records(batch: Batch, texts: list[TokenText]) -> Iterator[TokenRecord]:
    comparison = batch.compare_encoder()
    columns = zip(
        batch.numbers.tolist(), texts, comparison.l0.tolist(), comparison.error.tolist(),
        comparison.refit.tolist(), batch.refit_change.tolist(),
        batch.best_error_ratio.tolist(), batch.log2_sizes.tolist(),
        zip(*(_alternatives(mode, batch) for mode in MODES), strict=True), strict=True,
    )  # fmt: skip
    for token, text, l0, error, refit, change, ratio, log2_size, alternatives in columns:
        yield TokenRecord(
            sae=batch.coder.dictionary.sae,
            token=token,
            text=text.text,
            context=text.context,
            l0=l0,
            encoder_error=error,
            refit_error=refit,
            refit_change=_defined(change),
            alternatives=tuple(chain.from_iterable(alternatives)),
            best_error_ratio=_defined(ratio),
            log2_size=log2_size,
        )


def _defined(value: float) -> float | None:
    return None if math.isnan(value) else value


def _alternatives(mode: Mode, batch: Batch) -> Iterator[list[Alternatives]]:
    """Each token's figures in one mode."""
    swaps = batch.modes[mode]
    figures = (swaps.count, swaps.attainable, swaps.change, swaps.droppable, swaps.unsigned)
    for rows in zip(*(figure.tolist() for figure in figures), strict=True):
        yield [
            Alternatives(
                mode=mode,
                epsilon=epsilon,
                count=count,
                attainable=attains if batch.coder.has_thresholds else None,
                change=change if 0 <= change < math.inf else None,
                droppable=droppable,
                unsigned=unsigned,
            )
            for epsilon, count, attains, change, droppable, unsigned in zip(
                batch.options.epsilons, *rows, strict=True
            )
        ]


def _most_changing(batch: Batch, swaps: ModeSwaps) -> Solved:
    """The alternatives to write: those of as many features that change most of the code.

    Candidates are the exchange that changes most, and the most accurate ones for the features that
    hold most of the code, a few more than are written as some leave a feature at zero.
    """
    moved, options = batch.moved, batch.options
    passes = (swaps.feature >= 0) & (swaps.error <= _tolerated(swaps)[:, -1:])
    place, row = swaps.farthest
    token = (place >= 0).nonzero().squeeze(1)
    passes[token, place[token]] = False
    most = min(CANDIDATES * options.max_alternatives, moved.shape[1])
    share, best = torch.where(passes, moved, -1.0).topk(most, dim=1)
    other, rank = (share >= 0).nonzero().unbind(1)
    other_place = best[other, rank]
    solved = _solve(
        swaps, torch.cat([token, other]), torch.cat([place[token], other_place]),
        torch.cat([row[token], swaps.feature[other, other_place]]),
    )  # fmt: skip
    full = (solved.codes > swaps.fit.floor[solved.token, None]) | (solved.rows < 0)
    solved = solved.only(full.all(1) & (solved.change.nan_to_num(0.0) >= options.min_change))
    solved = solved.only(torch.argsort(solved.change, descending=True, stable=True))
    solved = solved.only(torch.argsort(solved.token, stable=True))
    counts = torch.bincount(solved.token, minlength=len(moved))
    first = counts.cumsum(0) - counts
    rank = torch.arange(len(solved.token), device=moved.device) - first[solved.token]
    return solved.only(rank < options.max_alternatives)


def _tolerated(swaps: ModeSwaps) -> Tensor:
    """``[B, E]`` limits, and what rounding may add to an error."""
    return swaps.limits + TOLERANCE * swaps.fit.size[:, None]


def _solve(swaps: ModeSwaps, token: Tensor, place: Tensor, row: Tensor) -> Solved:
    """Solve exchanges again, and measure what they leave and change."""
    fit, supports = swaps.fit, swaps.fit.supports
    units = supports.units
    added = units.raw(row) / units.norms[row, None]
    vectors = supports.vectors[token]
    cross = (vectors @ added[:, :, None]).squeeze(2)
    moment = (fit.target[token] * added).sum(1)
    positive = torch.ones_like(cross, dtype=torch.bool)
    codes = fit.exchange(token, place, cross, moment).solve(positive)
    every = torch.arange(len(token), device=token.device)
    vectors[every, place] = added
    residual = fit.target[token] - (codes[:, None, :] @ vectors).squeeze(1)
    rows = supports.rows[token].clone()
    rows[every, place] = row
    change = changes(fit, token, codes, rows)
    return Solved(token, place, row, rows, codes, residual.square().sum(1), change)


def _mediator_records(
    batch: Batch, mode: Mode, solved: Solved, codes: list[tuple[Code, ...]],
    texts: list[TokenText],
) -> Iterator[MediatorRecord]:  # fmt: skip
    units, swaps = batch.coder.units, batch.modes[mode]
    removed = units.live[batch.supports.rows[solved.token, solved.place]].tolist()
    added = units.live[solved.row].tolist()
    alternatives = written_codes(units, batch.coder.thresholds, solved.rows, solved.codes)
    epsilons = _least_epsilons(batch, swaps, solved)
    moved = batch.moved[solved.token, solved.place].tolist()
    change = [_defined(value) for value in solved.change.tolist()]
    errors = solved.error.tolist()
    for n, case in enumerate(solved.token.tolist()):
        reference, worth = float(swaps.reference[case]), float(batch.worth[case])
        yield MediatorRecord(
            sae=batch.coder.dictionary.sae,
            token=int(batch.numbers[case]),
            text=texts[case].text,
            context=texts[case].context,
            l0=int(batch.l0[case]),
            mode=mode,
            epsilon=epsilons[n],
            removed=(removed[n],),
            added=(added[n],),
            codes=codes[case],
            alternative=alternatives[n],
            error=errors[n] * worth,
            reference_error=reference * worth,
            error_ratio=errors[n] / reference if reference else None,
            moved=moved[n],
            change=change[n],
            attainable=attainable(batch.coder.dictionary, alternatives[n]),
            valid=None,
            features=(),
        )


def _least_epsilons(batch: Batch, swaps: ModeSwaps, solved: Solved) -> list[float]:
    """The least tolerance that each error meets; the largest where rounding leaves none."""
    epsilons = batch.options.epsilons
    limits = _tolerated(swaps)[solved.token].tolist()
    return [
        next((e for e, most in zip(epsilons, row, strict=True) if error <= most), epsilons[-1])
        for error, row in zip(solved.error.tolist(), limits, strict=True)
    ]
