"""Score as a library and the command line call it: describe the SAE, check its inputs, score it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from saeaudit.audit.describe import describe_dictionary
from saeaudit.audit.many import audit_all
from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.score.inputs import ScoreInputs, ScoreSources, check_inputs, read_inputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.run import score as score_checked
from saeaudit.dictionary import Dictionary
from saeaudit.records import ChoiceRecord, DictionaryRecord, Record, ScoreSummary
from saeaudit.sources.sae import Sae

ScoreRecord = DictionaryRecord | ChoiceRecord | ScoreSummary


def score_all(
    saes: Sequence[Sae], sources: ScoreSources, options: ScoreOptions, observer: Observer = SILENT
) -> Iterator[Record]:
    """Score resolved targets one after the other; see `score` and `audit_all`."""

    def audit(dictionary: Dictionary) -> Iterator[ScoreRecord]:
        inputs = read_inputs(dictionary, sources, observer)
        return score(dictionary, inputs, options, observer)

    return audit_all(saes, audit)


def score(
    dictionary: Dictionary,
    inputs: ScoreInputs,
    options: ScoreOptions | None = None,
    observer: Observer = SILENT,
) -> Iterator[ScoreRecord]:
    """Measure description lengths, choose between alternative codes, compare explanations.

    Prices are fitted on four fifths of the documents that the activations are of and measured on
    the others, or built from an export's histograms; activations then only choose the width of the
    bins.

    Args:
        dictionary: an opened SAE; with activations it needs its encoder.
        inputs: activations or feature statistics, and what to compare.
        options: the defaults where None.
        observer: is told how far it is, and what a user should read.

    Yields:
        The dictionary record, a choice for each token or example, the summary.

    Raises:
        AuditError: neither activations nor features, too few tokens, no encoder, input
            that is not finite or of another SAE.
    """
    options = options or ScoreOptions()
    yield describe_dictionary(dictionary, observer)
    checked = check_inputs(dictionary, inputs, options, observer)
    yield from score_checked(dictionary, checked, options, observer)
