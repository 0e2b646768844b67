"""A dictionary as the record that stands before its findings."""

from __future__ import annotations

from saeaudit.dictionary import Dictionary
from saeaudit.records import DictionaryRecord, FileRecord, SourceRecord


def describe_dictionary(dictionary: Dictionary) -> DictionaryRecord:
    """Return the dictionary's own record."""
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
        source=source,
        format=dictionary.weights.format,
        architecture=dictionary.weights.architecture,
        d_in=dictionary.d_in,
        d_sae=dictionary.d_sae,
        dtype=dictionary.dtype,
        norm_min=float(usable.min()),
        norm_max=float(usable.max()),
        zero_rows=tuple(dictionary.zero_rows.tolist()),
        nonfinite_rows=tuple(dictionary.nonfinite_rows.tolist()),
        collapsed_rows=tuple(dictionary.collapsed_rows.tolist()),
    )
