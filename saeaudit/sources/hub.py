"""Repositories on the Hugging Face hub: fetched into the hub's own cache, verified, and resumed.

The files lie as huggingface_hub lays them, so that each finds what the other has fetched:

    models--owner--repo/blobs/<hash that the hub lists>
    models--owner--repo/snapshots/<commit>/<path> -> ../../blobs/<hash>
    models--owner--repo/refs/<branch or tag>      holds a commit

The library's own download is not used: it names blobs by a header of the answer (ETag) that a
server can set to any path, begins again after a crash, and checks sizes only. Here a name comes
from the checked listing, every byte is compared with its hash, and offline no socket is opened.
"""

from __future__ import annotations

import os
import time
import urllib.parse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from saeaudit.errors import AuditError, TargetError
from saeaudit.sources.cache import (
    DECODER_SUFFIX,
    cache_root,
    check_inside,
    check_name,
    decoder_root,
    link,
)
from saeaudit.sources.digests import git_sha1_of, sha256_of
from saeaudit.sources.download import Bytes, append
from saeaudit.sources.durable import check_room, keep, locked, storing, write_whole
from saeaudit.sources.hosts import HostError, endpoint
from saeaudit.sources.http import Note, library, silence
from saeaudit.sources.hubapi import COMMIT, RemoteFile, commit_of, hub_errors, list_tree
from saeaudit.sources.parallel import in_parallel

WORKERS = 4
Kind = Literal["models", "datasets"]
"""Of a repository, as the hub's addresses and its cache call it."""


@dataclass
class Repo:
    """One repository at one commit."""

    repo_id: str
    commit: str
    offline: bool
    note: Note | None = None
    """Called with lines that a user should read while something is waited for."""
    kind: Kind = "models"
    _files: dict[str, RemoteFile] = field(default_factory=dict)
    _outage: HostError | None = None
    _lost: float = 0.0
    """Seconds that went to failures since anything came."""

    def uri(self, path: str = "", revision: str | None = None) -> str:
        """``hf://[datasets/]owner/repo[@revision][/path]``."""
        at = f"@{revision}" if revision else ""
        return f"hf://{self._prefix}{self.repo_id}{at}" + (f"/{path}" if path else "")

    def url(self, path: str) -> str:
        """Where the hub serves a file."""
        name = urllib.parse.quote(path)
        return f"{endpoint()}/{self._prefix}{self.repo_id}/resolve/{self.commit}/{name}"

    @property
    def listing(self) -> str:
        """What the hub's interface calls it: ``models/owner/repo``."""
        return f"{self.kind}/{self.repo_id}"

    @property
    def _prefix(self) -> str:
        return "" if self.kind == "models" else f"{self.kind}/"

    @property
    def folder(self) -> Path:
        """The repository's folder in the hub's cache."""
        return cache_root() / f"{self.kind}--{self.repo_id.replace('/', '--')}"

    def local(self, path: str) -> Path:
        """Where a file lies, or will lie, on this machine.

        Raises:
            AuditError: a name or a link that leads out of the cache.
        """
        check_name(path, self.repo_id)
        return check_inside(self.folder / "snapshots" / self.commit / path, cache_root())

    def files(self, prefix: str = "") -> dict[str, RemoteFile]:
        """Files at or below a path, or beside a file: as the hub lists them, offline as cached.

        Raises:
            AuditError: no such path, or no usable answer from the hub.
        """
        if self.offline:
            return self._cached(prefix)
        uri = self.uri(prefix)
        with hub_errors(uri):
            files = list_tree(self.listing, self.commit, prefix, uri, self.note)
        self._files |= files
        return files

    def _cached(self, prefix: str) -> dict[str, RemoteFile]:
        files: dict[str, RemoteFile] = {}
        for root, suffix in (
            (self.folder / "snapshots" / self.commit, ""),
            (decoder_root() / self.folder.name / self.commit, DECODER_SUFFIX),
        ):
            for place in sorted(root.rglob(f"*{suffix}")):
                path = place.relative_to(root).as_posix().removesuffix(suffix)
                below = not prefix or path == prefix or path.startswith(f"{prefix}/")
                if below and place.is_file():
                    files.setdefault(path, RemoteFile(path, place.stat().st_size, None, None))
        return files

    def fetch(self, paths: Sequence[str], progress: Bytes | None = None) -> None:
        """Bring files into the cache, several at a time, and check each against its hash.

        Raises:
            AuditError: one cannot be fetched, or is not what the hub says it is.
        """
        with storing(cache_root()):
            missing = [path for path in paths if not self._intact(path)]
        if self.offline and missing:
            raise AuditError(
                f"{missing[0]} is not in the cache",
                where=self.uri(),
                hint="run the same command once without --offline",
            )
        if not missing:
            return
        with storing(cache_root()):
            check_inside(self.folder / "blobs", cache_root()).mkdir(parents=True, exist_ok=True)
            listed = [self._files[path] for path in missing]
            needed = sum(max(file.size - _size(self._part(file)), 0) for file in listed)
            check_room(self.folder, needed, self.uri())
        with self.patient():
            in_parallel(lambda file: self._fetch(file, progress), listed, WORKERS)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Put up with a hub that fails, but not for as long again with each of a hundred files.

        Raises:
            HostError: what is inside raised it, or it failed so often before that it is not tried.
        """
        if self._outage and self._lost > 2.5 * silence():
            raise HostError(
                f"not tried, since the hub keeps failing: {self._outage.what}",
                where=self.uri(), hint=self._outage.hint,
            )  # fmt: skip
        began = time.monotonic()
        try:
            yield
        except HostError as error:
            self._outage = error
            self._lost += time.monotonic() - began
            raise
        self._outage, self._lost = None, 0.0

    def _intact(self, path: str) -> bool:
        """Whether a file is here; online, also whether it is what the hub lists."""
        place = self.local(path)
        if not place.is_file():
            return False
        listed = self._files.get(path)
        if self.offline or listed is None or _matches(place, listed):
            return True
        blob = place.resolve()
        place.unlink()
        blob.unlink(missing_ok=True)
        return False

    def _part(self, file: RemoteFile) -> Path:
        return self.folder / "blobs" / f"{file.oid}.saeaudit.part"

    def _fetch(self, file: RemoteFile, progress: Bytes | None) -> None:
        uri = self.uri(file.path)
        blob = self.folder / "blobs" / file.oid
        lock = cache_root() / ".locks" / self.folder.name / f"{file.oid}.saeaudit.lock"
        with storing(cache_root()), locked(check_inside(lock, cache_root()), uri, self.note):
            check_inside(blob, cache_root())
            if not (blob.is_file() and _matches(blob, file)):
                blob.unlink(missing_ok=True)
                self._bring(file, blob, progress)
            link(self.local(file.path), blob, cache_root())

    def _bring(self, file: RemoteFile, blob: Path, progress: Bytes | None) -> None:
        """Fetch one file's content, going on where an earlier try broke off."""
        part, uri = self._part(file), self.uri(file.path)
        resumed = _size(part) > 0
        intact = self._fill(part, file, progress)
        if resumed and not intact:  # what was there may be what is wrong
            part.unlink()
            intact = self._fill(part, file, progress)
        if not intact:
            part.unlink()
            kind = "sha256" if file.sha256 else "git's hash"
            raise HostError(
                f"what arrived is not what the hub lists ({kind} differs); it was thrown away",
                where=uri,
                hint="run the command again; if it repeats, the file on the hub is damaged",
            )
        keep(part, blob)

    def _fill(self, part: Path, file: RemoteFile, progress: Bytes | None) -> bool:
        """Append what is missing of a file; returns whether it is then what the hub lists."""
        uri = self.uri(file.path)
        with hub_errors(uri), _opened(part) as stream:
            append(
                self.url(file.path), stream, file.size,
                where=uri, progress=progress, note=self.note,
            )  # fmt: skip
        return _matches(part, file)


def open_repo(
    repo_id: str,
    revision: str | None,
    *,
    offline: bool,
    note: Note | None = None,
    kind: Kind = "models",
) -> Repo:
    """Resolve a repository's revision to a commit.

    Args:
        repo_id: ``owner/name``.
        revision: a branch, tag or commit; the main branch where None.
        offline: take the commit from the cache.
        note: called with lines that a user should read while something is waited for.
        kind: whether it holds models or data sets.

    Raises:
        AuditError: no such repository or revision, no permission, or no usable answer.
    """
    try:
        library().validate_repo_id(repo_id)
    except ValueError as error:
        raise TargetError(
            "not a repository name", where=f"hf://{repo_id}", hint="hf://owner/name"
        ) from error
    name = revision or "main"
    repo = Repo(repo_id, name, offline, note, kind)
    if COMMIT.fullmatch(name):
        return repo
    reference = repo.folder / "refs" / check_name(name, repo.uri())
    if offline:
        repo.commit = _remembered(reference, name, repo.uri())
    else:
        repo.commit = commit_of(repo.listing, revision, repo.uri(revision=revision), note)
        _remember(reference, repo)
    return repo


def _remembered(reference: Path, revision: str, uri: str) -> str:
    """The commit that an earlier run found; refused where it is none."""
    try:
        commit = reference.read_text("utf-8", "replace").strip()
    except OSError as error:
        raise AuditError(
            f"revision {revision} is not in the cache",
            where=uri,
            hint="run the same command once without --offline",
        ) from error
    if not COMMIT.fullmatch(commit):
        raise AuditError("not a commit", where=str(reference), hint="delete this file")
    return commit


def _remember(reference: Path, repo: Repo) -> None:
    """Keep a commit for later runs with --offline; a cache that cannot be written still serves."""
    check_inside(reference, cache_root())
    try:
        if not reference.is_file() or reference.read_text("utf-8", "replace") != repo.commit:
            reference.parent.mkdir(parents=True, exist_ok=True)
            write_whole(reference, repo.commit.encode())
    except OSError as error:
        if repo.note:
            repo.note(f"{reference}: {error.strerror}; --offline will not know this commit")


def is_offline(asked: bool) -> bool:
    """Whether --offline was given or HF_HUB_OFFLINE is set."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def _opened(part: Path) -> BinaryIO:
    """Open a file to append to, never through a link."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    return os.fdopen(os.open(part, flags, 0o666), "r+b")


def _size(place: Path) -> int:
    return place.stat().st_size if place.is_file() else 0


def _matches(place: Path, listed: RemoteFile) -> bool:
    """Whether a file is, in size and hash, what the hub lists."""
    if place.stat().st_size != listed.size:
        return False
    return (sha256_of if listed.sha256 else git_sha1_of)(place) == listed.oid
