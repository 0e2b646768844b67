"""Data sets on the Hugging Face hub: which .parquet files are meant, fetched one after the other.

What is no .parquet file by its owner's hand the hub has converted, on a branch of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from saeaudit.errors import TargetError
from saeaudit.sources.http import Note
from saeaudit.sources.hub import Repo, is_offline, open_repo
from saeaudit.weights.find import natural

DATASETS = "hf://datasets/"
"""How the address of a data set begins."""
URI = re.compile(
    DATASETS + r"(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+?))?/?"
)
CONVERTED, CONVERSION = "refs/convert/parquet", "~parquet"
"""The branch on which the hub keeps its conversions, and what addresses call it."""
TRAINING = re.compile(r"(partial-)?train(\b|_)")
"""How files, or their folders, of the split that is taken are called, where there are several."""
SUFFIX = ".parquet"
MOST_NAMED = 5
"""Tables that a message names."""


@dataclass(frozen=True)
class Dataset:
    """Files of one table in a repository."""

    repo: Repo
    paths: tuple[str, ...]
    """In natural order."""
    identity: str
    """The address, with the commit."""

    @classmethod
    def open(cls, uri: str, *, offline: bool, note: Note | None = None) -> Dataset:
        """Find the files of a table.

        Args:
            uri: ``hf://datasets/owner/name[@revision][/path]``.
            offline: open no socket.
            note: called with lines that a user should read.

        Raises:
            TargetError: another address, no such data set, no .parquet file there, or several
                tables.
            AuditError: no permission, or no usable answer.
        """
        match = URI.fullmatch(uri)
        if match is None:
            raise TargetError(
                "not a data set's address", where=uri,
                hint=f"{DATASETS}owner/name[@revision][/path]",
            )  # fmt: skip
        repo_id, revision, path = match["repo"], match["revision"], match["path"] or ""

        def opened(revision: str | None) -> Repo:
            name = CONVERTED if revision == CONVERSION else revision
            return open_repo(repo_id, name, offline=is_offline(offline), note=note, kind="datasets")

        repo = opened(revision)
        listed = _tables(repo, path)
        if not listed and revision is None and not path:
            revision = CONVERSION
            repo = opened(revision)
            listed = _tables(repo, path)
        if not listed:
            raise TargetError(f"no {SUFFIX} files here", where=uri)
        paths = _of_training(listed)
        folders = sorted({str(PurePosixPath(path).parent) for path in paths}, key=natural)
        if len(folders) > 1:
            named = ", ".join(repo.uri(folder, revision) for folder in folders[:MOST_NAMED])
            more = ", …" if len(folders) > MOST_NAMED else ""
            raise TargetError(f"{len(folders)} tables", where=uri, hint=f"name one: {named}{more}")
        if note and len(paths) < len(listed):
            note(f"{uri}: {len(paths):,} of {len(listed):,} files, those of the training split")
        return cls(repo, paths, repo.uri(path, repo.commit))

    def files(self) -> Iterator[Path]:
        """The files on this machine, each fetched when it is asked for.

        Raises:
            AuditError: one cannot be fetched, or is not what the hub says it is.
        """
        for path in self.paths:
            self.repo.fetch([path])
            yield self.repo.local(path)


def _tables(repo: Repo, path: str) -> list[str]:
    """The .parquet files at or below a path."""
    files = [name for name in repo.files(path) if name.lower().endswith(SUFFIX)]
    exact = [name for name in files if name == path]
    return sorted(exact or files, key=natural)


def _of_training(paths: Sequence[str]) -> tuple[str, ...]:
    """Those of the training split, where there are splits.

    >>> _of_training(["en/test-0.parquet", "en/train-0.parquet", "en/train-1.parquet"])
    ('en/train-0.parquet', 'en/train-1.parquet')
    >>> _of_training(["en/test/0.parquet", "en/train/0.parquet"])
    ('en/train/0.parquet',)
    """
    places = [PurePosixPath(path) for path in paths]
    by_name = [str(place) for place in places if TRAINING.match(place.name)]
    by_folder = [str(place) for place in places if TRAINING.match(place.parent.name)]
    return tuple(by_name or by_folder or paths)
