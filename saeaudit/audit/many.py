"""Many SAEs in one run: what cannot be audited becomes a record, and a verdict ends the run."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.open import open_local
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.audit.score.inputs import Inputs, score_one
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.score.run import ScoreRecord
from saeaudit.core.cosines.screen import ScreenName
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import (
    DictionaryRecord,
    ErrorRecord,
    GroupRecord,
    PairRecord,
    Record,
    TripleRecord,
    Verdict,
)
from saeaudit.sources.target import Local


def _opened_ahead(found: Sequence[Local]) -> Iterator[tuple[Local, Future[Dictionary]]]:
    """Open SAEs in order, each while its predecessor is being worked on, never two ahead."""
    following = _open_aside(found[0]) if found else None
    for number, local in enumerate(found):
        current, following = following, None
        if current is None:
            return
        if number + 1 < len(found):
            current.exception()  # wait: one file is read at a time
            following = _open_aside(found[number + 1])
        yield local, current


def _open_aside(local: Local) -> Future[Dictionary]:
    """Open an SAE in a thread that ends with the process, whatever it is waiting for."""
    future: Future[Dictionary] = Future()

    def work() -> None:
        try:
            future.set_result(open_local(local))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=work, daemon=True, name=f"open {local.sae}").start()
    return future


def _reason(error: AuditError, local: Local) -> str:
    """What is wrong, naming the file where that says more than the SAE's id."""
    if error.where in ("", local.sae, str(local.file)):
        return error.what
    return f"{error.where}: {error.what}"


def scan_all(
    found: Sequence[Local],
    options: ScanOptions,
    screen: ScreenName,
    observer: Observer = SILENT,
    *,
    check: Callable[[DictionaryRecord], None] | None = None,
) -> Iterator[Record]:
    """Scan resolved targets one after the other; the next is fetched and read meanwhile.

    Args:
        found: the SAEs, in the order to report them.
        options: what to look for.
        screen: the kind of product.
        observer: is told how far it is, and what a user should read.
        check: called with each SAE's dictionary before it is searched; raises an AuditError where
            it cannot be judged.

    Yields:
        Each SAE's records, an error record for one that cannot be audited, and a verdict last.
    """
    findings = errors = 0
    for local, opening in _opened_ahead(found):
        try:
            dictionary = opening.result()
            for line in dictionary.weights.notes:
                observer.note(f"{local.sae}: {line}")
            for record in scan(dictionary, options, screen=screen, observer=observer):
                if check and isinstance(record, DictionaryRecord):
                    check(record)
                if isinstance(record, TripleRecord):
                    findings += not record.requested
                findings += isinstance(record, (PairRecord, GroupRecord))
                yield record
        except AuditError as error:
            errors += 1
            yield ErrorRecord(local.sae, _reason(error, local), error.hint)
    yield Verdict(passed=not errors, rules=(), new_findings=findings, known_findings=0)


def score_all(
    found: Sequence[Local], inputs: Inputs, options: ScoreOptions,
    observer: Observer = SILENT, *, mediators: list[Record] | None = None,
) -> Iterator[ScoreRecord | ErrorRecord | Verdict]:  # fmt: skip
    """Score SAEs in turn; the verdict comes last.

    Args:
        found: resolved targets.
        inputs: files.
        options: as for `score`.
        observer: is told how far it is, and what a user should read.
        mediators: records of `saeaudit.mediators`; each SAE takes its own.
    """
    errors = 0
    for local in found:
        try:
            dictionary = open_local(local)
            yield from score_one(dictionary, inputs, options, observer, mediators=mediators)
        except AuditError as error:
            errors += 1
            what = error.what if error.where in ("", local.sae) else f"{error.where}: {error.what}"
            yield ErrorRecord(local.sae, what, error.hint)
    yield Verdict(passed=not errors, rules=(), new_findings=0, known_findings=0)
