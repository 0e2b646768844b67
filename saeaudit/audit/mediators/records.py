"""From a batch of tokens to records: each token's figures, and its alternatives."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.mediators.batch import MODES, Batch, ModeSwaps
from saeaudit.audit.mediators.examples import attainable
from saeaudit.core.codes.tolerances import TOLERANCE
from saeaudit.core.rows import UnitRows
from saeaudit.records import Alternatives, Code, MediatorRecord, TokenRecord
from saeaudit.vocabulary import Mode


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


def batch_records(
    batch: Batch, tokens: Sequence[str] | None
) -> Iterator[list[TokenRecord | MediatorRecord]]:
    """Each token's record and its alternatives, in the order of the batch."""
    texts = [tokens[number] if tokens else None for number in batch.numbers.tolist()]
    listed: list[list[TokenRecord | MediatorRecord]] = [
        [record] for record in _token_records(batch, texts)
    ]
    codes = _listed_codes(batch.coder.units, batch.supports.rows, batch.codes)
    for mode in MODES:
        token, place = _most_moving(batch, batch.modes[mode])
        if not len(token):
            continue
        solved = _solve(batch.modes[mode], token, place)
        records = _mediator_records(batch, mode, solved, codes, texts)
        for case, record in zip(token.tolist(), records, strict=True):
            listed[case].append(record)
    yield from listed


def _token_records(batch: Batch, texts: list[str | None]) -> Iterator[TokenRecord]:
    comparison = batch.compare_encoder()
    columns = zip(
        batch.numbers.tolist(), texts, comparison.l0.tolist(), comparison.error.tolist(),
        comparison.refit.tolist(), batch.best_error_ratio.tolist(), batch.log2_sizes.tolist(),
        zip(*(_alternatives(mode, batch) for mode in MODES), strict=True), strict=True,
    )  # fmt: skip
    for token, text, l0, error, refit, ratio, log2_size, alternatives in columns:
        yield TokenRecord(
            sae=batch.coder.dictionary.sae,
            token=token,
            text=text,
            l0=l0,
            encoder_error=error,
            refit_error=refit,
            alternatives=tuple(chain.from_iterable(alternatives)),
            best_error_ratio=ratio if ratio == ratio else None,
            log2_size=log2_size,
        )


def _alternatives(mode: Mode, batch: Batch) -> Iterator[list[Alternatives]]:
    """Each token's counts in one mode."""
    swaps = batch.modes[mode]
    for counts, unsigned in zip(swaps.count.tolist(), swaps.unsigned.tolist(), strict=True):
        columns = zip(batch.options.epsilons, counts, unsigned, strict=True)
        yield [Alternatives(mode, epsilon, count, free) for epsilon, count, free in columns]


def _most_moving(batch: Batch, swaps: ModeSwaps) -> tuple[Tensor, Tensor]:
    """Tokens and places ``[m]`` of the alternatives to write: those that move most of the code."""
    most = min(batch.options.max_alternatives, batch.moved.shape[1])
    passes = (swaps.feature >= 0) & (swaps.error <= _tolerated(swaps)[:, -1:])
    passes &= batch.moved >= batch.options.min_moved
    moved, place = torch.where(passes, batch.moved, -1.0).topk(most, dim=1)
    token, rank = (moved >= 0).nonzero().unbind(1)
    return token, place[token, rank]


def _tolerated(swaps: ModeSwaps) -> Tensor:
    """``[B, E]`` limits, and what rounding may add to an error."""
    return swaps.limits + TOLERANCE * swaps.fit.size[:, None]


def _solve(swaps: ModeSwaps, token: Tensor, place: Tensor) -> Solved:
    """Solve exchanges again, and measure what they leave."""
    fit, supports = swaps.fit, swaps.fit.supports
    units, row = supports.units, swaps.feature[token, place]
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
    return Solved(token, place, row, rows, codes, residual.square().sum(1))


def _mediator_records(
    batch: Batch, mode: Mode, solved: Solved, codes: list[tuple[Code, ...]],
    texts: list[str | None],
) -> Iterator[MediatorRecord]:  # fmt: skip
    units, swaps = batch.coder.units, batch.modes[mode]
    removed = units.live[batch.supports.rows[solved.token, solved.place]].tolist()
    added = units.live[solved.row].tolist()
    alternatives = _listed_codes(units, solved.rows, solved.codes)
    epsilons = _least_epsilons(batch, swaps, solved)
    moved = batch.moved[solved.token, solved.place].tolist()
    errors = solved.error.tolist()
    for n, case in enumerate(solved.token.tolist()):
        reference, worth = float(swaps.reference[case]), float(batch.worth[case])
        yield MediatorRecord(
            sae=batch.coder.dictionary.sae,
            token=int(batch.numbers[case]),
            text=texts[case],
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


def _listed_codes(units: UnitRows, rows: Tensor, codes: Tensor) -> list[tuple[Code, ...]]:
    """Unit-row codes ``[m, k]`` in the file's scale, by feature; zeros are left out."""
    index = rows.clamp(min=0)
    active = ((rows >= 0) & (codes > 0)).tolist()
    features, values = units.live[index].tolist(), (codes / units.norms[index]).tolist()
    return [
        tuple(
            Code(feature, value) for feature, value, is_active in sorted(zip(*row, strict=True))
            if is_active
        )
        for row in zip(features, values, active, strict=True)
    ]  # fmt: skip
