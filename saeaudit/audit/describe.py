"""A dictionary as the record that stands before its findings."""

from __future__ import annotations

from saeaudit.audit.observer import SILENT, Observer
from saeaudit.dictionary import Dictionary
from saeaudit.records import DictionaryRecord, FileRecord, SourceRecord


def tell_notes(dictionary: Dictionary, observer: Observer) -> None:
    """Say what a user should know about how a file was read; every command that opens one does."""
    unavailable = dictionary.weights.codes_unavailable
    no_codes = (f"no codes: {unavailable}",) if unavailable else ()
    for line in (*dictionary.weights.notes, *no_codes):
        observer.note(f"{dictionary.sae}: {line}")


def describe_dictionary(dictionary: Dictionary, observer: Observer = SILENT) -> DictionaryRecord:
    """Return the dictionary's own record; the observer is told what a user should know about it."""
    tell_notes(dictionary, observer)
    weights = dictionary.weights
    usable = dictionary.norms[dictionary.norms.isfinite() & (dictionary.norms > 0)]
    files = [FileRecord(f.path, f.bytes, f.sha256) for f in dictionary.source.files]
    source = SourceRecord(
        uri=dictionary.source.uri,
        revision=dictionary.source.revision,
        path=files[0].path,
        bytes=files[0].bytes,
        sha256=files[0].sha256,
        others=tuple(files[1:]),
    )
    return DictionaryRecord(
        sae=dictionary.sae,
        control=dictionary.control,
        source=source,
        format=weights.format,
        architecture=weights.architecture,
        d_in=dictionary.d_in,
        d_sae=dictionary.d_sae,
        dtype=dictionary.dtype,
        k=weights.k,
        centred=weights.subtract_b_dec,
        maps_elsewhere=weights.maps_elsewhere,
        codes_unavailable=dictionary.codes_unavailable,
        neuronpedia=dictionary.neuronpedia,
        notes=weights.notes,
        norm_min=float(usable.min()),
        norm_max=float(usable.max()),
        zero_rows=tuple(dictionary.zero_rows.tolist()),
        nonfinite_rows=tuple(dictionary.nonfinite_rows.tolist()),
        collapsed_rows=tuple(dictionary.collapsed_rows.tolist()),
    )
