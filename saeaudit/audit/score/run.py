"""Score: description lengths of an SAE's codes, the canonical choice, and disagreement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.codes import Coder
from saeaudit.audit.observer import Observer
from saeaudit.audit.score.given_codes import (
    ListedCodes,
    check_errors,
    list_codes,
    listed_batches,
)
from saeaudit.audit.score.incoherence import permute_labels
from saeaudit.audit.score.inputs import CheckedInputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.prices import (
    Fitted,
    Sample,
    Width,
    choose_width,
    fit_activations,
    fit_histograms,
)
from saeaudit.audit.score.records import Batch, Setting, choice_records, token_batch
from saeaudit.audit.score.split import Split, split_activations
from saeaudit.audit.score.tally import ScoreTally
from saeaudit.audit.score.window import PricedWindow, make_window, price_window
from saeaudit.core.codes.canonical import canonicalise
from saeaudit.core.codes.choose import Chooser
from saeaudit.core.codes.codelength import LOW_COVERAGE, Prices
from saeaudit.core.rows import spans
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import ChoiceRecord, ScoreSummary, TokenRecord


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
        AuditError: too few tokens, no encoder, input that is not finite, tokens that are none of
            those measured.
    """
    coder = Coder(dictionary, options.device) if inputs.activations is not None else None
    split = split_activations(coder, inputs, options, observer) if coder else None
    listed = _list_codes(inputs, split, options, observer)
    if coder and split and inputs.features is None:
        plan = _plan_activations(coder, inputs, split, listed, options, observer)
    else:
        width = _histogram_width(coder, split, options)
        features = inputs.features or {}
        fitted = fit_histograms(dictionary, features, inputs.features_from, width)
        plan = _Plan(fitted, (), [])
    fitted = plan.fitted
    chooser = Chooser(fitted.units, fitted.prices, options.margin, fitted.resampled)
    labels = None
    if inputs.explanations is not None:
        labels = permute_labels(
            inputs.explanations, fitted.rates, shuffled=options.control == "shuffled-labels"
        )
    explanations = None if labels is None else labels.explained
    setting = Setting(dictionary, chooser, explanations, fitted.joint, inputs.tokens)
    if coder and inputs.mediators is not None and inputs.activations is not None:
        check_errors(listed, setting, coder, inputs.activations)
    tally = ScoreTally(setting, fitted, labels, split.part if split else None)
    # Shares of one token say nothing: a choice that is explained is not added up.
    settle = _hand_on if options.explain is not None else tally.add_choices
    for priced in plan.windows:
        tally.add_window(priced)
        choices: list[ChoiceRecord] = []
        for searched, norms in plan.searched:
            for tokens, fit, group in priced.window.groups(fitted.units, searched):
                enter = priced.window.enter
                alternatives = chooser.alternatives(fit, group, enter, norms=norms)
                canonical = None
                if options.canonicalise:
                    canonical = canonicalise(chooser, fit, group, enter)
                    tally.add_canonical(canonical)
                batch = token_batch(
                    setting, tokens, group, alternatives, norms=norms, canonical=canonical
                )
                choices += settle(batch, choice_records(setting, batch))
        yield from sorted(choices, key=attrgetter("token"))
    for batch in listed_batches(listed, setting):
        yield from settle(batch, choice_records(setting, batch))
    if options.explain is None:
        tally.add_unlisted(listed.unlisted)
    summary = tally.summary(split)
    if options.distortion is not None and summary.fvu_quantised is not None:
        observer.note(
            f"{dictionary.sae}: quantised to an error of {summary.fvu_quantised:.4g} of the "
            f"variance on the tokens measured (--distortion {options.distortion:g})"
        )
    yield summary


def _hand_on(_: Batch, records: Iterator[ChoiceRecord]) -> Iterator[ChoiceRecord]:
    return records


def _list_codes(
    inputs: CheckedInputs, split: Split | None, options: ScoreOptions, observer: Observer
) -> ListedCodes:
    """Sort the records of mediators, and say where their tokens are not measured.

    Raises:
        AuditError: none of their tokens is.
    """
    records = inputs.mediators or ()
    if split is None or inputs.features is not None:
        return list_codes(records, None)
    tokens = [record.token for record in records if isinstance(record, TokenRecord)]
    measured = set((split.measured if options.explain is None else split.chosen).tolist())
    within = sum(token in measured for token in tokens)
    if tokens and not within:
        raise AuditError(
            f"none of its {len(tokens):,} tokens is among the {len(measured):,} measured",
            where="--mediators",
            hint=f"mediators --seed {options.seed} looks at those first",
        )
    if within < len(tokens) and options.explain is None:
        observer.note(
            f"{within:,} of {len(tokens):,} tokens of --mediators are among those measured, and "
            "chosen on"
        )
    return list_codes(records, measured)


class _Plan(NamedTuple):
    """Prices, and what is measured by them."""

    fitted: Fitted
    windows: Iterable[PricedWindow]
    """Tokens that are measured, made as they are asked for."""
    searched: list[tuple[Tensor, bool]]
    """Positions of those whose alternatives are searched for, and whether by L1 and L2 too."""


def _plan_activations(
    coder: Coder, inputs: CheckedInputs, split: Split, listed: ListedCodes, options: ScoreOptions,
    observer: Observer,
) -> _Plan:  # fmt: skip
    """Fit prices on the activations that are not measured."""
    width = _choose_width(coder, split, options)
    fitted = fit_activations(
        coder, Sample(split.activations, split.fitted, split.part), width,
        joint=listed.exchanged_sets(), observer=observer,
    )  # fmt: skip
    _note_seldom(fitted.prices[0], len(split.fitted), observer)
    searched = []
    if inputs.mediators is None:
        others = split.chosen[~torch.isin(split.chosen, split.normed)]
        searched = [(split.normed, True), (others, False)]
    return _Plan(fitted, _windows(coder, split, fitted.prices[0], observer), searched)


def _choose_width(coder: Coder, split: Split, options: ScoreOptions) -> Width:
    return choose_width(coder, make_window(coder, split.activations, split.pilot), options)


def _histogram_width(
    coder: Coder | None, split: Split | None, options: ScoreOptions
) -> Width | None:
    """The width that activations or options give; None leaves it to the histograms."""
    if coder and split:
        return _choose_width(coder, split, options)
    return None if options.bin_width is None else Width(options.bin_width, "option")


def _windows(
    coder: Coder, split: Split, prices: Prices, observer: Observer
) -> Iterator[PricedWindow]:
    for start, stop in spans(len(split.measured), split.window):
        window = make_window(coder, split.activations, split.measured[start:stop])
        yield price_window(window, prices)
        observer.step("choosing", stop / len(split.measured))


def _note_seldom(prices: Prices, tokens: int, observer: Observer) -> None:
    seldom = int(((prices.samples < LOW_COVERAGE) & prices.observed).sum())
    if seldom > prices.features // 2:
        observer.note(
            f"{seldom:,} of {prices.features:,} features fired fewer than {LOW_COVERAGE} times on "
            f"the {tokens:,} tokens fitted: their values are priced by the pool"
        )
