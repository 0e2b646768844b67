"""Score: description lengths of an SAE's codes, the canonical choice, and disagreement."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from torch import Tensor

from saeaudit.audit.codes import Coder, misfit_note, unit_thresholds
from saeaudit.audit.observer import Observer
from saeaudit.audit.score.given_codes import (
    ListedCodes,
    list_codes,
    listed_batches,
)
from saeaudit.audit.score.inputs import CheckedInputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.prices import (
    PILOT,
    WINDOW,
    Fitted,
    Width,
    choose_width,
    fit_activations,
    fit_histograms,
)
from saeaudit.audit.score.records import Setting, choice_records, token_batch
from saeaudit.audit.score.tally import ScoreTally
from saeaudit.audit.score.window import PricedWindow, make_window, price_window
from saeaudit.core.codes.choose import Chooser
from saeaudit.core.codes.codelength import LOW_COVERAGE, Prices
from saeaudit.core.rows import UnitRows, spans
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import ChoiceRecord, ScoreSummary

MEASURED = 0.2
"""Share of the activations, the first ones, that is measured; the rest is fitted on."""
LEAST = 10
"""Fewest activations that can be parted."""


def score(
    dictionary: Dictionary, inputs: CheckedInputs, options: ScoreOptions, observer: Observer
) -> Iterator[ChoiceRecord | ScoreSummary]:
    """Price an SAE's codes and choose between alternatives.

    Args:
        dictionary: an opened SAE; with activations it needs its encoder.
        inputs: of this SAE.
        options: what is priced, and how finely.
        observer: is told how far it is, and what a user should read.

    Yields:
        A choice for each token or example, the summary.

    Raises:
        AuditError: too few tokens, no encoder, input that is not finite.
    """
    tokens = _part_tokens(inputs, options, dictionary.sae)
    listed = list_codes(inputs.mediators or (), tokens.chosen)
    plan = _make_plan(dictionary, inputs, tokens.measured, listed, options, observer)
    chooser = Chooser(plan.units, plan.fitted.prices, options.margin)
    setting = Setting(dictionary, chooser, inputs.explanations, plan.fitted.joint, inputs.tokens)
    tally = ScoreTally(setting, plan.fitted)
    searched = range(0) if inputs.mediators is not None else tokens.chosen
    for priced in plan.windows:
        tally.add_window(priced)
        choices: list[ChoiceRecord] = []
        for numbers, fit, group in priced.window.groups(plan.units, searched):
            enter = priced.window.enter
            alternatives = chooser.alternatives(fit, group.error, enter)
            if options.canonicalise:
                canonical = chooser.canonical(fit, group, enter)
                tally.add_canonical(canonical)
            batch = token_batch(setting, numbers, group, alternatives)
            choices += tally.add_choices(batch, choice_records(setting, batch))
        yield from sorted(choices, key=attrgetter("token"))
    for batch in listed_batches(listed, setting):
        yield from tally.add_choices(batch, choice_records(setting, batch))
    tally.add_unique(listed.unique)
    summary = tally.summary()
    if summary.fvu is not None and summary.fvu > 1:
        observer.note(misfit_note(summary.fvu))
    yield summary


class _Tokens(NamedTuple):
    """What is done with activations, by their numbers."""

    measured: int
    """So many are measured, the first ones; prices are fitted on the others."""
    chosen: range
    """Those, of the ones measured, that are chosen on."""


def _part_tokens(inputs: CheckedInputs, options: ScoreOptions, sae: str) -> _Tokens:
    count = 0 if inputs.activations is None else len(inputs.activations)
    if inputs.features is not None:
        return _Tokens(0, range(sys.maxsize))  # whatever examples are of
    if count < LEAST:
        raise AuditError(
            f"too few tokens: {count}; some are fitted on and the others measured",
            where=sae,
            hint="more activations",
        )
    measured = int(MEASURED * count)
    if options.explain is None:
        return _Tokens(measured, range(min(measured, options.max_tokens or measured)))
    if options.explain >= measured:
        raise AuditError(
            f"token {options.explain} is not among the {measured} that are measured",
            where="--explain",
            hint="prices are fitted on the others",
        )
    return _Tokens(measured, range(options.explain, options.explain + 1))


class _Plan(NamedTuple):
    """Prices, and what is measured by them."""

    units: UnitRows
    """Live rows that codes are priced in."""
    fitted: Fitted
    windows: Iterable[PricedWindow]
    """Tokens that are measured, made as they are asked for."""


def _make_plan(
    dictionary: Dictionary, inputs: CheckedInputs, measured: int, listed: ListedCodes,
    options: ScoreOptions, observer: Observer,
) -> _Plan:  # fmt: skip
    """Fit prices, on all activations but those that are measured, or on an export's histograms."""
    width = None if options.bin_width is None else Width(options.bin_width, "option")
    activations, features = inputs.activations, inputs.features
    if activations is not None:
        coder = Coder(dictionary, options.device)
        if features is None:
            fitted = fit_activations(
                coder, activations[measured:], options, first=measured,
                joint=listed.exchanged_sets(), observer=observer,
            )  # fmt: skip
            _note_seldom(fitted.prices[0], len(activations) - measured, observer)
            return _Plan(
                coder.units,
                fitted,
                _windows(coder, fitted.prices[0], activations[:measured], observer),
            )
        width = choose_width(coder, make_window(coder, activations[:PILOT], 0), options)
    live = dictionary.live(include_collapsed=True)
    units = UnitRows(dictionary.weights.decoder, live, dictionary.norms[live])
    thresholds = unit_thresholds(dictionary, live)
    fitted = fit_histograms(units, thresholds, features or {}, inputs.features_from, width)
    return _Plan(units, fitted, ())


def _windows(
    coder: Coder, prices: Prices, activations: Tensor, observer: Observer
) -> Iterator[PricedWindow]:
    for start, stop in spans(len(activations), WINDOW):
        yield price_window(make_window(coder, activations[start:stop], start), prices)
        observer.step("choosing", stop / len(activations))


def _note_seldom(prices: Prices, tokens: int, observer: Observer) -> None:
    seldom = int(((prices.samples < LOW_COVERAGE) & prices.observed).sum())
    if seldom > prices.features // 2:
        observer.note(
            f"{seldom:,} of {prices.features:,} features fired fewer than {LOW_COVERAGE} times on "
            f"the {tokens:,} tokens fitted: their values are priced by the pool"
        )
