"""Neuronpedia's bulk exports, fetched batch by batch into saeaudit's own cache.

No hash covers a batch. It is kept when it has the listed size, unpacks to what gzip's checksum
says, and is JSON Lines; what is not is thrown away, and the same command fetches it again.

    neuronpedia/v1/<model>/<source>/<kind>/batch-N.jsonl.gz
    neuronpedia/v1/<model>/<source>/<kind>/.complete    once all are here
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from saeaudit.errors import AuditError
from saeaudit.sources.batches import Allowance, batches_in, read_rows
from saeaudit.sources.bucket import list_bucket
from saeaudit.sources.cache import check_name
from saeaudit.sources.download import Bytes, append
from saeaudit.sources.durable import check_room, keep, locked, storing, write_whole
from saeaudit.sources.hosts import host_of, origin
from saeaudit.sources.http import Note
from saeaudit.sources.neuronpedia import COMPLETE, Kind, export_folder
from saeaudit.sources.parallel import in_parallel

BASE_URL = "https://neuronpedia-datasets.s3.us-east-1.amazonaws.com"
"""Overridden by SAEAUDIT_NEURONPEDIA_URL."""
WORKERS = 8
BATCH = re.compile(r"batch-[0-9]{1,9}\.jsonl\.gz")
MAX_BATCHES = 20_000
"""Of 1,024 rows each."""
MAX_EXPORT = 64 << 30
"""Bytes of an export, packed: several times what the largest have."""


def fetch_export(
    source: str, kind: Kind, *, offline: bool = False,
    progress: Bytes | None = None, note: Note | None = None,
) -> list[Path]:  # fmt: skip
    """Fetch all batches of an export, several at a time; those that are here and whole stay.

    Args:
        source: ``model/source``.
        kind: what to fetch.
        offline: only what is here.
        progress: called with the number of bytes that have arrived.
        note: called with lines that a user should read.

    Returns:
        The batches, whole. One process fetches them while others wait.

    Raises:
        AuditError: there is no such export, it cannot be fetched, or a batch is damaged.
    """
    export = _Export(source, kind, bucket_url(), progress, note)
    folder, complete = export.folder, export.folder / COMPLETE
    if offline:
        if not complete.exists():
            raise AuditError(
                f"the {kind} of {source} are not in the cache",
                where=export.where,
                hint="run the same command once without --offline",
            )
        batches = batches_in(folder)
        _read_through(batches, Allowance.of(batches))
        return batches
    sizes = export.listed()
    if export.missing(sizes, export.allowance(sizes)) or not complete.exists():
        with storing(folder), locked(folder / ".lock", export.where, note):
            allowance = export.allowance(sizes)
            missing = export.missing(sizes, allowance)  # another process may have brought them
            check_room(folder, sum(missing.values()), export.where)
            complete.unlink(missing_ok=True)
            in_parallel(lambda name: export.bring(name, missing[name], allowance), missing, WORKERS)
            write_whole(complete, f"{len(sizes)} batches\n".encode())
    return [folder / name for name in sizes]


def bucket_url() -> str:
    """The bucket's address, without a slash at its end.

    Raises:
        AuditError: SAEAUDIT_NEURONPEDIA_URL is none.
    """
    url = os.environ.get("SAEAUDIT_NEURONPEDIA_URL") or BASE_URL
    try:
        scheme, host, _ = origin(url)
    except ValueError:
        scheme = host = ""
    if scheme not in ("http", "https") or not host:
        raise AuditError(f"not a web address: {url!r:.100}", where="SAEAUDIT_NEURONPEDIA_URL")
    return url.rstrip("/")


@dataclass(frozen=True)
class _Export:
    """One kind of rows of one source."""

    source: str
    kind: Kind
    base: str
    """The bucket's address."""
    progress: Bytes | None
    note: Note | None

    @property
    def folder(self) -> Path:
        return export_folder(self.source) / self.kind

    @property
    def where(self) -> str:
        return f"neuronpedia {self.source}/{self.kind}"

    @property
    def prefix(self) -> str:
        return f"v1/{self.source}/{self.kind}/"

    def listed(self) -> dict[str, int]:
        """Sizes of the batches that the bucket has, in bytes, by name."""
        listed = list_bucket(self.base, self.prefix, where=self.where, note=self.note)
        for name in listed:
            check_name(name, f"{self.where}: {host_of(self.base)}")
        sizes = {name: size for name, size in listed.items() if BATCH.fullmatch(name)}
        if not sizes:
            raise AuditError(
                f"there is no export of {self.kind}", where=self.where, hint="check the source"
            )
        total = sum(sizes.values())
        if len(sizes) > MAX_BATCHES or total > MAX_EXPORT:
            raise AuditError(
                f"{host_of(self.base)} lists {len(sizes):,} batches of {total:,} bytes; at most "
                f"{MAX_BATCHES:,} of {MAX_EXPORT >> 30} GiB are fetched",
                where=self.where,
            )
        return sizes

    def allowance(self, sizes: Mapping[str, int]) -> Allowance:
        return Allowance.of_bytes(sum(sizes.values()), self.where)

    def missing(self, sizes: Mapping[str, int], allowance: Allowance) -> dict[str, int]:
        """Those of the batches that are not here, or not whole."""
        missing = {}
        for name, size in sizes.items():
            place = self.folder / name
            try:
                if place.stat().st_size == size:
                    _read_through([place], allowance)
                    continue
            except (OSError, AuditError):
                pass
            missing[name] = size
        return missing

    def bring(self, name: str, size: int, allowance: Allowance) -> None:
        """Fetch one batch; it has its name only once it has been read to its end."""
        url = f"{self.base}/{urllib.parse.quote(self.prefix + name)}"
        where, part = f"{self.where}/{name}", self.folder / f"{name}.part"
        try:
            with part.open("wb") as stream:
                append(url, stream, size, where=where, progress=self.progress, note=self.note)
            try:
                _read_through([part], allowance)
            except AuditError as error:
                raise AuditError(
                    f"{host_of(url)} sent a {error.what}; it was thrown away",
                    where=where,
                    hint="run it again; if it repeats, the export is damaged",
                ) from error
            keep(part, self.folder / name)
        finally:
            part.unlink(missing_ok=True)


def _read_through(batches: list[Path], allowance: Allowance) -> None:
    """Raises AuditError where a batch is damaged."""
    for _ in read_rows(batches, allowance):
        pass
