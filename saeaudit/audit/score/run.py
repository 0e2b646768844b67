"""Score: description lengths of an SAE's codes, the canonical choice, and disagreement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

from torch import Tensor

from saeaudit.audit.codes import Coder, misfit_note
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
from saeaudit.audit.score.records import Batch, Setting, choice_records, token_batch
from saeaudit.audit.score.tally import ScoreTally
from saeaudit.audit.score.window import Window, make_window
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
    if inputs.features is not None:
        plan = _plan_histograms(dictionary, inputs, options, observer)
    else:
        plan = _plan_activations(dictionary, inputs, options, observer)
    chooser = Chooser(plan.units, plan.fitted.prices, options.margin)
    setting = Setting(dictionary, chooser, inputs.explanations, plan.fitted.joint, inputs.tokens)
    tally = ScoreTally(setting, plan.fitted)
    for window in plan.windows:
        tally.add_window(window)
        yield from _choose(window, plan.chosen, setting, tally, options.canonicalise)
    for batch in listed_batches(plan.listed, setting):
        yield from _settle(batch, setting, tally)
    tally.add_unique(plan.listed.unique)
    summary = tally.summary()
    if summary.fvu is not None and summary.fvu > 1:
        observer.note(misfit_note(summary.fvu))
    yield summary


class _Plan(NamedTuple):
    """Prices, and what is measured and chosen on."""

    units: UnitRows
    """Live rows that codes are priced in."""
    fitted: Fitted
    windows: Iterable[Window]
    """Tokens that are measured, made as they are asked for."""
    chosen: range
    """Tokens whose alternatives are looked for."""
    listed: ListedCodes
    """Codes of tokens and examples that are chosen between as they are."""


def _plan_histograms(
    dictionary: Dictionary, inputs: CheckedInputs, options: ScoreOptions, observer: Observer
) -> _Plan:
    """Prices from an export, choices between the codes of examples."""
    features, where = inputs.features or {}, inputs.features_from
    width = _histogram_width(dictionary, inputs.activations, options)
    live = dictionary.live(include_collapsed=True)
    fitted = fit_histograms(dictionary, live, features, where, width)
    share = len(features) / max(dictionary.d_sae, 1)
    if share < 0.5:
        observer.note(f"{where} covers {share:.0%} of the features: is it of another SAE?")
    listed = list_codes(inputs.mediators or (), None)
    units = UnitRows(dictionary.weights.decoder, live, dictionary.norms[live])
    return _Plan(units, fitted, (), range(0), listed)


def _histogram_width(
    dictionary: Dictionary, activations: Tensor | None, options: ScoreOptions
) -> Width | None:
    """The width that activations or options give; None leaves it to the histograms."""
    if activations is not None:
        coder = Coder(dictionary, options.device)
        return choose_width(coder, make_window(coder, activations[:PILOT], 0), options)
    return None if options.bin_width is None else Width(options.bin_width, "option")


def _plan_activations(
    dictionary: Dictionary, inputs: CheckedInputs, options: ScoreOptions, observer: Observer
) -> _Plan:
    """Prices from the last activations, choices on the first."""
    activations = inputs.activations
    assert activations is not None  # without features there are some
    coder = Coder(dictionary, options.device)
    measured, chosen = _measured_tokens(len(activations), options, dictionary.sae)
    listed = list_codes(inputs.mediators or (), chosen)
    fitted = fit_activations(
        coder, activations[measured:], options, first=measured, joint=listed.exchanged_sets(),
        observer=observer,
    )  # fmt: skip
    _note_seldom(fitted.prices[0], len(activations) - measured, observer)
    windows = _windows(coder, activations[:measured], observer)
    if inputs.mediators is not None:
        chosen = range(0)
    return _Plan(coder.units, fitted, windows, chosen, listed)


def _windows(coder: Coder, activations: Tensor, observer: Observer) -> Iterator[Window]:
    for start, stop in spans(len(activations), WINDOW):
        yield make_window(coder, activations[start:stop], start)
        observer.step("choosing", stop / len(activations))


def _measured_tokens(count: int, options: ScoreOptions, sae: str) -> tuple[int, range]:
    """How many of `count` activations are measured, and which of these are chosen on."""
    if count < LEAST:
        raise AuditError(
            f"too few tokens: {count}; some are fitted on and the others measured",
            where=sae,
            hint="more activations",
        )
    measured = int(MEASURED * count)
    if options.explain is None:
        return measured, range(min(measured, options.max_tokens or measured))
    if options.explain >= measured:
        raise AuditError(
            f"token {options.explain} is not among the {measured} that are measured",
            where="--explain",
            hint="prices are fitted on the others",
        )
    return measured, range(options.explain, options.explain + 1)


def _note_seldom(prices: Prices, tokens: int, observer: Observer) -> None:
    seldom = int(((prices.samples < LOW_COVERAGE) & prices.observed).sum())
    if seldom > prices.features // 2:
        observer.note(
            f"{seldom:,} of {prices.features:,} features fired fewer than {LOW_COVERAGE} times on "
            f"the {tokens:,} tokens fitted: their values are priced by the pool"
        )


def _choose(
    window: Window, chosen: range, setting: Setting, tally: ScoreTally, canonicalise: bool
) -> list[ChoiceRecord]:
    """Choices on the chosen tokens of a window, in order."""
    chooser = setting.chooser
    records: list[ChoiceRecord] = []
    for places in window.groups(chosen):
        fit, group = window.fit_tokens(chooser.units, places)
        alternatives = chooser.alternatives(fit, group.error, window.enter)
        if canonicalise:
            tally.add_canonical(chooser.canonical(fit, group, window.enter))
        batch = token_batch(setting, window.first + places, group, alternatives)
        records += _settle(batch, setting, tally)
    return sorted(records, key=attrgetter("token"))


def _settle(batch: Batch, setting: Setting, tally: ScoreTally) -> Iterator[ChoiceRecord]:
    """Decide a batch of cases, and add it up."""
    tally.add_exchanges(len(batch.cases), batch.exchanges)
    for record in choice_records(setting, batch):
        tally.add_choice(record)
        yield record
