"""Score as a library and the command line call it: describe the SAE, check its inputs, score it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from saeaudit.audit.control import Steps, check_type, trials
from saeaudit.audit.describe import describe_dictionary
from saeaudit.audit.many import audit_all
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.open import open_target
from saeaudit.audit.score.inputs import ScoreInputs, ScoreSources, check_inputs, read_inputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.run import score as score_checked
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import (
    ChoiceRecord,
    DictionaryRecord,
    FiringRecord,
    Record,
    ScoreSummary,
)
from saeaudit.sources.sae import Sae

if TYPE_CHECKING:
    from saeaudit.audit.open import Target

ScoreRecord = DictionaryRecord | ChoiceRecord | FiringRecord | ScoreSummary


def score_all(
    saes: Sequence[Sae], sources: ScoreSources, options: ScoreOptions, observer: Observer = SILENT,
    check: Callable[[DictionaryRecord], object] | None = None,
) -> Iterator[Record]:  # fmt: skip
    """Score resolved targets one after the other; see `score` and `audit_all`.

    `check` is called with each SAE's dictionary before it is scored; it raises an AuditError where
    the SAE cannot be.
    """

    def audit(dictionary: Dictionary) -> Iterator[ScoreRecord]:
        inputs = read_inputs(dictionary, sources, observer)
        for record in score(dictionary, inputs, options, observer):
            if check and isinstance(record, DictionaryRecord):
                check(record)
            yield record

    return audit_all(saes, audit, observer=observer)


def score(
    dictionary: Target,
    inputs: ScoreInputs,
    options: ScoreOptions | None = None,
    observer: Observer = SILENT,
) -> Iterator[ScoreRecord]:
    """Measure description lengths, choose between alternative codes, compare explanations.

    Prices are fitted on four fifths of the documents that the activations are of and measured on
    the others, or built from an export's histograms; activations then only choose the width of the
    bins.

    Args:
        dictionary: an SAE, opened or anything that `saeaudit.open` takes; with activations it
            needs its encoder.
        inputs: activations or feature statistics, and what to compare.
        options: the defaults where None.
        observer: is told how far it is, and what a user should read.

    Yields:
        The dictionary record, a choice for each token or example, how the features of each pair and
        triple of the findings fire, the summary. With a control all
        of these of its yardstick, where it has one, and of it.

    Raises:
        AuditError: inputs of another type, neither activations nor features, too few tokens, no
            encoder, input that is not finite or of another SAE, or a control with alternatives or
            features of the SAE, or without labels to shuffle.
    """
    check_type(inputs, ScoreInputs)
    dictionary = open_target(dictionary)
    options = options or ScoreOptions()
    control = options.control
    features = inputs.features is not None and control != "shuffled-labels"
    if control and (inputs.mediators is not None or inputs.findings or features):
        raise AuditError(
            "--mediators, --scan and --features are of the SAE, not of a control",
            where=f"--control {control}",
        )
    if control == "shuffled-labels" and inputs.explanations is None:
        raise AuditError(
            "there are no labels to shuffle",
            where=f"--control {control}",
            hint="--explanations FILE",
        )
    watching = Steps(observer) if control else observer
    for measured, on in trials(dictionary, inputs, control, options, options.device):
        yield describe_dictionary(measured, watching)
        if measured.control == "random-decoder":
            on = replace(on, explanations=None)
        checked = check_inputs(measured, on, options, watching)
        yield from score_checked(measured, checked, options, watching)
