"""Several SAEs in one run: what cannot be audited becomes a record, and a verdict ends the run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from functools import partial

from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.open import open_layers
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import DictionaryRecord, ErrorRecord, Finding, Record, Verdict
from saeaudit.sources.parallel import aside
from saeaudit.sources.sae import Sae


def audit_all(
    saes: Sequence[Sae],
    audit: Callable[[Dictionary], Iterator[Record]],
    check: Callable[[DictionaryRecord], object] | None = None,
    observer: Observer = SILENT,
) -> Iterator[Record]:
    """Audit resolved targets one after the other; the next is fetched and read meanwhile.

    Args:
        saes: in the order to report them.
        audit: yields the records of one.
        check: called with each SAE's dictionary before what follows it is looked for; raises an
            AuditError where that cannot be. A control's features are not the SAE's.
        observer: is told which SAE is looked at.

    Yields:
        Each SAE's records, an error record for one that cannot be audited, and a verdict last.
    """
    findings = errors = 0
    for number, (sae, opening) in enumerate(_opened_ahead(saes), 1):
        observer.begin(sae.id, number, len(saes))
        try:
            for dictionary in opening.result():
                for record in audit(dictionary):
                    if check and isinstance(record, DictionaryRecord) and not record.control:
                        check(record)
                    findings += isinstance(record, Finding)
                    yield record
        except AuditError as error:
            errors += 1
            yield ErrorRecord(sae.id, _reason(error, sae), error.hint)
    yield Verdict(passed=not errors, rules=(), new_findings=findings, known_findings=0)


def _opened_ahead(saes: Sequence[Sae]) -> Iterator[tuple[Sae, Future[list[Dictionary]]]]:
    """Open SAEs in order, each while its predecessor is being worked on, never two ahead."""
    following = aside(partial(open_layers, saes[0])) if saes else None
    for number, sae in enumerate(saes):
        current, following = following, None
        if current is None:
            return
        if number + 1 < len(saes):
            current.exception()  # wait: one file is read at a time
            following = aside(partial(open_layers, saes[number + 1]))
        yield sae, current


def _reason(error: AuditError, sae: Sae) -> str:
    """What is wrong, naming the place where that says more than the SAE's id."""
    if error.where in ("", sae.id, str(sae.file)):
        return error.what
    if error.where.startswith(f"{sae.id}["):  # a member of the file that the id names
        return f"{error.where.removeprefix(sae.id)[1:].removesuffix(']')}: {error.what}"
    return f"{error.where}: {error.what}"
