"""Fetch: bring SAEs from the hub into the cache, and see from their headers that they are whole.

Only decoder-only copies are opened, since no hash covers them: PyTorch is not imported otherwise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from saeaudit.audit.observer import SILENT, Observer
from saeaudit.audit.open import open_layers
from saeaudit.errors import AuditError
from saeaudit.records import ErrorRecord, ListingRecord
from saeaudit.sources.exports import fetch_export
from saeaudit.sources.neuronpedia import Kind, source_of
from saeaudit.sources.partial import fetch_decoder
from saeaudit.sources.sae import Remote, Sae
from saeaudit.sources.segments import UnsuitableError
from saeaudit.weights.families import family_of
from saeaudit.weights.find import check_header


def list_all(saes: Sequence[Sae]) -> Iterator[ListingRecord]:
    """Describe resolved targets without fetching anything."""
    for sae in saes:
        yield _listing(sae, sae.remote)


def fetch_all(
    saes: Sequence[Sae],
    *,
    decoder_only: bool = False,
    exports: Sequence[Kind] = (),
    offline: bool = False,
    observer: Observer = SILENT,
) -> Iterator[ListingRecord | ErrorRecord]:
    """Fetch resolved targets one after the other, several files at a time.

    Args:
        saes: resolved targets.
        decoder_only: leave the encoder on the hub where the layout allows it.
        exports: what to fetch from Neuronpedia beside the weights.
        offline: open no socket.
        observer: is told of bytes that arrive, and what a user should read.

    Yields:
        A listing record for each SAE that is now here and whole; an error record for the others.
    """
    for sae in saes:
        try:
            yield _fetch(sae, decoder_only, observer)
            for kind in exports:
                source = source_of(sae)
                batches = fetch_export(
                    source, kind, offline=offline, progress=observer.arrived, note=observer.note
                )
                yield _export_listing(sae, source, kind, batches)
        except AuditError as error:
            what = f"{error.where}: {error.what}" if error.where != sae.id else error.what
            yield ErrorRecord(sae.id, what, error.hint)


def _fetch(sae: Sae, decoder_only: bool, observer: Observer) -> ListingRecord:
    if not decoder_only or sae.remote is None:
        return _fetch_whole(sae, observer)
    try:
        return _fetch_decoder(sae, sae.remote, observer)
    except UnsuitableError as error:
        listing = _fetch_whole(sae, observer)
        observer.note(f"{sae.id}: fetched the whole file, because {error}")
        return listing


def _fetch_decoder(sae: Sae, remote: Remote, observer: Observer) -> ListingRecord:
    place = fetch_decoder(
        remote.repo, remote.listed, lambda file: open_layers(sae.as_copy(file)), observer.arrived
    )
    size = place.stat().st_size
    return ListingRecord(sae.id, remote.uri, (str(place),), size, remote.listed.format, cached=True)


def _fetch_whole(sae: Sae, observer: Observer) -> ListingRecord:
    if sae.remote is not None:
        sae.remote.repo.fetch(sae.remote.files, observer.arrived)
    check_header(sae.file)
    return _listing(sae, sae.remote)


def _export_listing(sae: Sae, source: str, kind: Kind, batches: Sequence[Path]) -> ListingRecord:
    return ListingRecord(
        sae=sae.id,
        uri=f"neuronpedia:{source}/{kind}",
        files=tuple(map(str, batches)),
        bytes=sum(batch.stat().st_size for batch in batches),
        format=f"neuronpedia-{kind}",
        cached=True,
    )


def _listing(sae: Sae, remote: Remote | None) -> ListingRecord:
    if remote is None:
        return ListingRecord(
            sae.id, str(sae.file), (str(sae.file),), sae.file.stat().st_size,
            family_of(sae.file).name, cached=True,
        )  # fmt: skip
    cached = all(remote.repo.local(name).is_file() for name in remote.files)
    return ListingRecord(
        sae.id, remote.uri, remote.files, remote.bytes, remote.listed.format, cached=cached
    )
