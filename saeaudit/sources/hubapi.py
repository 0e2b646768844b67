"""What the hub says about a repository: commits and listings, believed only as far as checked.

Pages come from the hub's own origin, entries are counted, and a name, size or hash that could lead
anywhere but into its place in the cache ends the listing.
"""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from saeaudit.errors import AuditError, TargetError
from saeaudit.sources.cache import check_name
from saeaudit.sources.download import as_json, get_json, get_page
from saeaudit.sources.hosts import HostError, Refused, endpoint, host_of, origin, unexpected
from saeaudit.sources.http import Note, Patience

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
PAGE_LIMIT = 8 << 20
"""Bytes of an answer; a page of 1,000 files has half a megabyte."""
MAX_ENTRIES = 200_000
"""Files and folders in a listing; the hub advises against more than 100,000."""
MAX_SIZE = 1 << 50
NEXT = re.compile(r'<([^<>]*)>\s*;\s*rel="?next"?')


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as the hub lists it."""

    path: str
    size: int
    """In bytes."""
    sha256: str | None
    """Of LFS files."""
    git_sha1: str | None
    """Git's object id, for the others."""

    @property
    def oid(self) -> str:
        """The hash that names its content; empty for what was only seen in the cache."""
        return self.sha256 or self.git_sha1 or ""


def commit_of(listing: str, revision: str | None, uri: str, note: Note | None) -> str:
    """Ask for a revision's commit: 40 hexadecimal digits, or the hub is refused.

    Args:
        listing: ``models/owner/name`` or ``datasets/owner/name``.
        revision: a branch, tag or commit; the main branch where None.
        uri: the repository, for messages.
        note: called with lines that a user should read while something is waited for.

    Raises:
        TargetError: no such repository or revision.
        AuditError: no permission, or no usable answer.
    """
    at = f"/revision/{_quoted(revision)}" if revision else ""
    url = f"{endpoint()}/api/{listing}{at}?expand=sha"
    with hub_errors(uri):
        answer = get_json(url, limit=PAGE_LIMIT, where=uri, note=note)
    commit = answer.get("sha") if isinstance(answer, dict) else None
    if not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise unexpected(url, "no commit", uri)
    return commit


def list_tree(
    listing: str, commit: str, prefix: str, uri: str, note: Note | None
) -> dict[str, RemoteFile]:
    """List the files below a folder, or those beside a file; all where the prefix is empty.

    Args:
        listing: ``models/owner/name`` or ``datasets/owner/name``.
        commit: of the repository.
        prefix: the folder or file.
        uri: the same, for messages.
        note: called with lines that a user should read while something is waited for.

    Raises:
        TargetError: no such path.
        AuditError: no usable answer.
    """
    try:
        return _list(listing, commit, prefix, uri, note)
    except Refused as error:
        if error.code != "EntryNotFound" or not prefix:
            raise
        parent = prefix.rpartition("/")[0]
        files = _list(listing, commit, parent, uri, note)
        if prefix not in files:
            raise
        return files


def _list(
    listing: str, commit: str, folder: str, uri: str, note: Note | None
) -> dict[str, RemoteFile]:
    below = f"/{_quoted(folder, '/')}" if folder else ""
    url = f"{endpoint()}/api/{listing}/tree/{commit}{below}?recursive=true"
    files: dict[str, RemoteFile] = {}
    folders: set[str] = set()
    entries = 0
    for page in _pages(url, Patience(uri, note)):
        entries += len(page)
        if entries > MAX_ENTRIES:
            raise unexpected(url, f"a listing of more than {MAX_ENTRIES:,} entries", uri)
        for entry in page:
            path = _path(entry, folder, url, uri)
            if entry.get("type") == "directory":
                folders.add(path)
            elif path in files:
                raise unexpected(url, f"a listing that has {path!r} twice", uri)
            elif entry.get("type") == "file":
                files[path] = _file(path, entry, url, uri)
    for path in files:
        folders.update(map(str, PurePosixPath(path).parents))
    for path in folders & files.keys():
        raise unexpected(url, f"a listing that has {path!r} as a file and as a folder", uri)
    return files


def _pages(url: str, patience: Patience) -> Iterator[list[Any]]:
    """Pages of a listing, each from where the one before says, at the hub's own origin."""
    seen: set[str] = set()
    following: str | None = url
    while following:
        seen.add(following)
        page = get_page(following, patience, limit=PAGE_LIMIT)
        entries = as_json(page.content, url, patience.where)
        link = NEXT.search(page.headers.get("link", ""))
        if not isinstance(entries, list) or (link and not entries):
            raise unexpected(url, "no list of files", patience.where)
        yield entries
        following = _next(url, link[1], patience.where) if link else None
        if following in seen:
            raise unexpected(url, "a listing without an end", patience.where)


def _next(url: str, link: str, where: str) -> str:
    try:
        following = urllib.parse.urljoin(url, link)
        if origin(following) == origin(url):
            return following
    except ValueError:
        pass
    raise unexpected(url, "a listing that goes on at another host", where)


def _path(entry: Any, folder: str, url: str, uri: str) -> str:
    path = entry.get("path") if isinstance(entry, dict) else None
    if not isinstance(path, str):
        raise unexpected(url, "no list of files", uri)
    if folder and path != folder and not path.startswith(f"{folder}/"):
        raise unexpected(url, "files that were not asked for", uri)
    return check_name(path, f"{uri} at {host_of(url)}")


def _file(path: str, entry: dict[str, Any], url: str, uri: str) -> RemoteFile:
    size, large = entry.get("size"), entry.get("lfs")
    oid = large.get("oid") if isinstance(large, dict) else entry.get("oid")
    form = SHA256 if large else COMMIT
    if type(size) is not int or not 0 <= size <= MAX_SIZE:
        raise unexpected(url, f"no size of {path!r}", uri)
    if not isinstance(oid, str) or not form.fullmatch(oid):
        raise unexpected(url, f"no hash of {path!r}", uri)
    return RemoteFile(path, size, oid if large else None, None if large else oid)


def _quoted(text: str, safe: str = "") -> str:
    return urllib.parse.quote(text, safe=safe)


REFUSALS = {
    "GatedRepo": (
        AuditError, "access is gated",
        "accept the licence on the repository's page and set HF_TOKEN",
    ),
    "RepoNotFound": (
        TargetError, "no such repository, or it is private",
        "check the name; set HF_TOKEN for private ones",
    ),
    "RevisionNotFound": (TargetError, "no such revision", ""),
    "EntryNotFound": (TargetError, "no such path in the repository", ""),
    429: (HostError, "the hub is limiting requests", "wait a while, or set HF_TOKEN"),
    401: (AuditError, "no permission", "set HF_TOKEN"),
    403: (AuditError, "no permission", "set HF_TOKEN"),
}  # fmt: skip
"""Kind of error, what it says and what to do, by the hub's error code or by status."""


@contextmanager
def hub_errors(uri: str) -> Iterator[None]:
    """Turn the hub's refusals into words that say what to do."""
    try:
        yield
    except Refused as error:
        words = REFUSALS.get(error.code) or REFUSALS.get(error.status)
        if words is None:
            raise
        kind, what, hint = words
        raise kind(what, where=uri, hint=hint) from error
