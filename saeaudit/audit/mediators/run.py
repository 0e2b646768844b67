"""Mediators: every other code of the same L0 that reconstructs an activation as well."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saeaudit.audit.checks import check_findings
from saeaudit.audit.codes import WINDOW, Coder, tell_better_reading
from saeaudit.audit.control import Steps, check_type, trials
from saeaudit.audit.describe import describe_dictionary
from saeaudit.audit.firing import FiringTally, watched_sets
from saeaudit.audit.many import audit_all
from saeaudit.audit.mediators.batch import Batch, make_batches
from saeaudit.audit.mediators.examples import exchanges
from saeaudit.audit.mediators.inputs import (
    PURSUITS,
    Codes,
    MediatorInputs,
    MediatorSources,
    read_inputs,
)
from saeaudit.audit.mediators.options import MediatorOptions
from saeaudit.audit.mediators.records import batch_records, exchanged_texts
from saeaudit.audit.mediators.tally import Tally
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.open import open_target
from saeaudit.audit.tokens import Sieve, draw_tokens
from saeaudit.core.rows import spans
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import (
    DictionaryRecord,
    FiringRecord,
    MediatorRecord,
    MediatorsSummary,
    Record,
    Skipped,
    TokenRecord,
)
from saeaudit.sources.sae import Sae
from saeaudit.vocabulary import Parts

if TYPE_CHECKING:
    from saeaudit.audit.open import Target

MediatorsRecord = DictionaryRecord | MediatorRecord | TokenRecord | FiringRecord | MediatorsSummary


def mediators_all(
    saes: Sequence[Sae],
    sources: MediatorSources,
    options: MediatorOptions,
    observer: Observer = SILENT,
) -> Iterator[Record]:
    """List the alternatives of resolved targets one after the other; see `mediators`, `audit_all`.

    Args:
        saes: in the order to report them.
        sources: where the inputs are, the same for all.
        options: what alternatives count.
        observer: is told how far it is, and what a user should read.
    """

    def audit(dictionary: Dictionary) -> Iterator[MediatorsRecord]:
        inputs = read_inputs(dictionary, sources, options.device, observer)
        return mediators(dictionary, inputs, options, observer)

    return audit_all(saes, audit, observer=observer)


def mediators(
    dictionary: Target,
    inputs: MediatorInputs,
    options: MediatorOptions | None = None,
    observer: Observer = SILENT,
) -> Iterator[MediatorsRecord]:
    """List the alternative codes of activations, and the exchanges that findings allow.

    Which activations are looked at is for `saeaudit.audit.tokens` to say, and what a control is
    for `saeaudit.audit.control`.

    Args:
        dictionary: an SAE, opened or anything that `saeaudit.open` takes; with activations it
            needs its encoder.
        inputs: activations, findings of a scan, or both.
        options: the defaults where None.
        observer: is told how far it is, and what a user should read.

    Yields:
        The dictionary record; a unit example for each exchange; for each activation its token
        record and its alternatives, those that change most first; with activations and findings,
        how the features of each pair and triple fire; the summary. With a control all
        of these of its yardstick, and again of it.

    Raises:
        AuditError: inputs of another type, no encoder, a transcoder, activations that are not
            finite or all outliers or too dense, codes that are negative or not finite, findings of
            another SAE, or a control with findings or files of codes.
    """
    check_type(inputs, MediatorInputs)
    dictionary = open_target(dictionary)
    options = options or MediatorOptions()
    control = options.control
    if control and (inputs.findings or any(read is not None for read in inputs.codes.values())):
        raise AuditError(
            "findings and codes are of the SAE, not of a control: --scan, --encoder and files of "
            "--codes do not go with it",
            where=f"--control {control}",
        )
    watching = Steps(observer) if control else observer
    for measured, on in trials(dictionary, inputs, control, options, options.device):
        yield from _list(measured, on, options, watching)


def _list(
    dictionary: Dictionary, inputs: MediatorInputs, options: MediatorOptions, observer: Observer
) -> Iterator[MediatorsRecord]:
    """List what one dictionary allows on its inputs, as they are."""
    findings = check_findings(inputs.findings, dictionary)
    texts = exchanged_texts(inputs.labels, dictionary)
    yield describe_dictionary(dictionary, observer)
    examples = 0
    for example in exchanges(dictionary, findings):
        if (example.change or 0.0) >= options.min_change:
            examples += 1
            yield replace(example, explanations=texts(example.removed, example.added))
    draw = None
    if inputs.activations is not None:
        draw = draw_tokens(len(inputs.activations), inputs.documents, options.seed)
    tally = Tally(dictionary, options.epsilons, examples, draw.part if draw else None, texts)
    drawn_by: Parts | None = None
    skipped: tuple[Skipped, ...] = ()
    if inputs.activations is not None and draw is not None:
        coder = Coder(dictionary, options.device, options.budget)
        tell_better_reading(dictionary, inputs.activations, options.device, observer)
        sieve = Sieve(coder, inputs.activations, draw, options, observer)
        looked_at = sieve.take(draw.order, options.max_tokens).sort().values
        sieve.tell(len(looked_at))
        drawn_by, skipped = draw.by, sieve.skipped()
        firing = FiringTally(
            dictionary.sae, coder.units, watched_sets(findings), draw.part, draw.by
        )
        total = len(looked_at)
        observer.step("swapping", 0.0, total)
        for start, stop in spans(total, WINDOW):
            tokens = looked_at[start:stop]
            encoded = coder.encode(inputs.activations, tokens)
            tally.add_activations(encoded.x)
            firing.add(tokens, encoded.active)
            others = _others(coder, inputs.codes, tokens)
            listed: list[list[TokenRecord | MediatorRecord]] = []
            for batch in make_batches(coder, options, encoded, tokens):
                _add(tally, batch, others, torch.searchsorted(tokens, batch.numbers))
                listed += batch_records(batch, inputs.tokens, texts)
                observer.step("swapping", (start + len(listed)) / total, total)
            for records in sorted(listed, key=_token):
                yield from records
        yield from firing.records()
    yield tally.summary(drawn_by, skipped)


def _token(records: list[TokenRecord | MediatorRecord]) -> int:
    return records[0].token or 0


def _others(
    coder: Coder, codes: Mapping[str, Codes | None], tokens: Tensor
) -> dict[str, Tensor | None]:
    """Other encoders' unit-row codes ``[m, n]`` of ``tokens [m]``; None for pursuits."""
    return {
        name: None if read is None else coder.unit(read(tokens).to(coder.device))
        for name, read in codes.items()
    }


def _add(tally: Tally, batch: Batch, others: Mapping[str, Tensor | None], places: Tensor) -> None:
    """Add a batch, and what other encoders make of its tokens."""
    tally.add_batch(batch)
    for name, codes in others.items():
        if codes is None:
            comparison = batch.compare_pursuit(nonnegative=PURSUITS[name])
        else:
            comparison = batch.compare_codes(codes[places])
        tally.add_comparison(name, comparison)
