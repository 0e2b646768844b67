"""Score: description lengths of an SAE's codes, the canonical choice, and disagreement."""

from __future__ import annotations

from collections.abc import Iterator
from operator import attrgetter

from saeaudit.audit.codes import Coder
from saeaudit.audit.firing import FiringTally, watched_sets
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.score.choose import Batch, Setting, search_batches
from saeaudit.audit.score.given_codes import list_codes, listed_batches
from saeaudit.audit.score.incoherence import permute_labels
from saeaudit.audit.score.inputs import CheckedInputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.prices import fit_prices
from saeaudit.audit.score.records import choice_records
from saeaudit.audit.score.split import Split, split_activations
from saeaudit.audit.score.tally import ScoreTally
from saeaudit.audit.score.window import PricedWindow, make_window, price_window
from saeaudit.core.codes.choose import Chooser
from saeaudit.core.codes.codelength import Prices
from saeaudit.core.rows import spans
from saeaudit.dictionary import Dictionary
from saeaudit.records import ChoiceRecord, FiringRecord, ScoreSummary


def score(
    dictionary: Dictionary, inputs: CheckedInputs, options: ScoreOptions, observer: Observer
) -> Iterator[ChoiceRecord | FiringRecord | ScoreSummary]:
    """Price an SAE's codes and choose between alternatives.

    Args:
        dictionary: an opened SAE; with activations it needs its encoder.
        inputs: of this SAE.
        options: what is priced, and how finely.
        observer: is told how far it is, and what a user should read.

    Yields:
        A choice for each token or example, how the features of findings fire, the summary.

    Raises:
        AuditError: too few tokens, no encoder, input that is not finite, tokens that are none of
            those measured.
    """
    coder = Coder(dictionary, options.device) if inputs.activations is not None else None
    split = split_activations(coder, inputs, options, observer) if coder else None
    listed = list_codes(inputs, split, options, observer)
    firing = None
    if split is not None:
        sets = watched_sets(inputs.findings, listed.exchanged_sets())
        firing = FiringTally(dictionary.sae, split.coder.units, sets, split.part, split.drawn_by)
    fitted = fit_prices(dictionary, inputs, split, firing, options, observer)
    chooser = Chooser(fitted.units, fitted.prices, options.margin, fitted.resampled)
    texts, shuffled = inputs.explanations, options.control == "shuffled-labels"
    labels = permute_labels(texts, fitted.rates, shuffled=shuffled) if texts else None
    explained = labels.explained if labels else None
    setting = Setting(dictionary, chooser, explained, fitted.joint, inputs.tokens)
    tally = ScoreTally(setting, fitted, labels, split)

    def settle(batch: Batch) -> list[ChoiceRecord]:
        choices = list(choice_records(setting, batch))
        if batch.canonical is not None:
            tally.add_canonical(batch.canonical)
        if options.explain is None:  # shares of one token say nothing
            tally.add_choices(batch.exchanges, choices)
        return choices

    searched = split.searched if split and inputs.mediators is None else ()
    looked_at, total = 0, sum(len(positions) for positions, _ in searched)
    # A search takes longer than what it is for, and is watched itself.
    for priced in _windows(split, fitted.prices[0], SILENT if searched else observer):
        tally.add_window(priced)
        if firing is not None:
            firing.add(priced.window.tokens, priced.window.active)
        batches = search_batches(setting, priced.window, searched, canonical=options.canonicalise)
        choices: list[ChoiceRecord] = []
        for batch in batches:
            choices += settle(batch)
            looked_at += len(batch.cases)
            observer.step("choosing", looked_at / total, total)
        yield from sorted(choices, key=attrgetter("token"))
    for batch in listed_batches(listed, setting):
        yield from settle(batch)
    if options.explain is None:
        tally.add_unlisted(listed.unlisted)
    if firing is not None:
        yield from firing.records(fitted.prices[0])
    summary = tally.summary()
    if options.distortion is not None and summary.fvu_quantised is not None:
        observer.note(
            f"{dictionary.sae}: quantised to an error of {summary.fvu_quantised:.4g} of the "
            f"variance on the tokens measured (--distortion {options.distortion:g})"
        )
    yield summary


def _windows(split: Split | None, prices: Prices, observer: Observer) -> Iterator[PricedWindow]:
    """Tokens that are measured, made as they are asked for."""
    if split is None:
        return
    total = len(split.measured)
    observer.step("measuring", 0.0, total)
    for start, stop in spans(total, split.window):
        window = make_window(split.coder, split.activations, split.measured[start:stop])
        yield price_window(window, prices)
        observer.step("measuring", stop / total, total)
