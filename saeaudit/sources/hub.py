"""Repositories on the Hugging Face hub: listed, fetched into the hub's own cache, verified.

huggingface_hub does the talking. Three things are added: large files resume across processes (the
library starts again after a crash), every byte is checked against the hash that the hub lists
(the library checks sizes), and offline no socket is opened at all.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from saeaudit.errors import AuditError, TargetError

# The library would otherwise ask the hub for a list of coding agents, to name one in its headers.
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

WORKERS = 4
RETRIES = 5
"""Cut connections in a row that are put up with, without a byte between them."""
HTTP_LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")
DECODER_SUFFIX = ".decoder.safetensors"
COMMIT = re.compile(r"[0-9a-f]{40}")

Bytes = Callable[[int], None]
"""Called with the number of bytes that have arrived since the last call."""


@dataclass(frozen=True)
class RemoteFile:
    """A file of a repository, as the hub lists it."""

    path: str
    size: int
    sha256: str | None
    """Of LFS files."""
    git_sha1: str | None
    """Git's object id, for the others."""


@dataclass
class Repo:
    """One repository at one commit."""

    repo_id: str
    commit: str
    offline: bool
    endpoint: str | None = None
    _files: dict[str, RemoteFile] = field(default_factory=dict)

    def uri(self, path: str = "", revision: str | None = None) -> str:
        """``hf://owner/repo[@revision][/path]``."""
        at = f"@{revision}" if revision else ""
        return f"hf://{self.repo_id}{at}" + (f"/{path}" if path else "")

    @property
    def folder(self) -> Path:
        """The repository's folder in the hub's cache."""
        return cache_root() / f"models--{self.repo_id.replace('/', '--')}"

    def local(self, path: str) -> Path:
        """Where a file lies, or will lie, on this machine.

        Raises:
            AuditError: a name or a link that leads out of the cache.
        """
        check_name(path, self.repo_id)
        place = self.folder / "snapshots" / self.commit / path
        inside = self.folder.resolve()
        if place.exists() and not place.resolve().is_relative_to(inside):
            raise AuditError("a link in the cache leads out of it; refused", where=str(place))
        return place

    def files(self, prefix: str = "") -> dict[str, RemoteFile]:
        """Files at or below a path: as the hub lists them, or offline as they are cached.

        Raises:
            AuditError: no such path, or the hub cannot be reached.
        """
        if self.offline:
            return self._cached(prefix)
        from huggingface_hub.errors import EntryNotFoundError

        with hub_errors(self.uri(prefix)):
            api = _api(self.endpoint)
            try:
                entries = list(
                    api.list_repo_tree(
                        self.repo_id, prefix or None, recursive=True, revision=self.commit
                    )
                )
            except EntryNotFoundError:
                entries = list(api.get_paths_info(self.repo_id, [prefix], revision=self.commit))
                if not entries:
                    raise
                parent = PurePosixPath(prefix).parent.as_posix()
                if parent != ".":
                    entries = list(
                        api.list_repo_tree(
                            self.repo_id, parent, recursive=True, revision=self.commit
                        )
                    )
        found = {e.path: _remote(e) for e in entries if hasattr(e, "size")}
        for path in found:
            check_name(path, self.repo_id)
        self._files |= found
        return found

    def _cached(self, prefix: str) -> dict[str, RemoteFile]:
        found: dict[str, RemoteFile] = {}
        for root, suffix in (
            (self.folder / "snapshots" / self.commit, ""),
            (decoder_root() / self.folder.name / self.commit, DECODER_SUFFIX),
        ):
            for place in sorted(root.rglob(f"*{suffix}")):
                path = place.relative_to(root).as_posix().removesuffix(suffix)
                below = not prefix or path == prefix or path.startswith(f"{prefix}/")
                if below and place.is_file():
                    found.setdefault(path, RemoteFile(path, place.stat().st_size, None, None))
        return found

    def fetch(self, paths: Sequence[str], progress: Bytes | None = None) -> None:
        """Bring files into the cache, several at a time, and check each against its hash.

        Raises:
            AuditError: one cannot be fetched, or is not what the hub says it is.
        """
        missing = [p for p in paths if not self._intact(p)]
        if self.offline and missing:
            raise AuditError(
                f"{missing[0]} is not in the cache",
                where=self.uri(),
                hint="run the same command once without --offline",
            )
        with ThreadPoolExecutor(WORKERS) as pool:
            list(pool.map(lambda path: self._fetch(path, progress), missing))

    def _intact(self, path: str) -> bool:
        """Whether a file is here; online, also whether it is what the hub lists."""
        place = self.local(path)
        if not place.is_file():
            return False
        listed = self._files.get(path)
        if self.offline or listed is None:
            return True
        if _matches(place, listed):
            return True
        blob = place.resolve()
        place.unlink()
        blob.unlink(missing_ok=True)
        return False

    def _fetch(self, path: str, progress: Bytes | None) -> None:
        from huggingface_hub import hf_hub_download

        listed = self._files.get(path)
        with hub_errors(self.uri(path)):
            if listed is not None and listed.sha256:
                self._fetch_blob(listed, listed.sha256, progress)
            hf_hub_download(
                self.repo_id, path, revision=self.commit, endpoint=self.endpoint,
                cache_dir=cache_root(),
            )  # fmt: skip
        place = self.local(path)
        if listed is not None and not _matches(place, listed):
            blob = place.resolve()
            place.unlink()
            blob.unlink(missing_ok=True)
            raise _wrong_bytes(self.uri(path))

    def _fetch_blob(self, listed: RemoteFile, sha256: str, progress: Bytes | None) -> None:
        """Bring one LFS file into the cache's blobs, going on where an earlier try broke off."""
        from huggingface_hub import hf_hub_url
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

        blob = self.folder / "blobs" / sha256
        blob.parent.mkdir(parents=True, exist_ok=True)
        locks = cache_root() / ".locks" / self.folder.name
        locks.mkdir(parents=True, exist_ok=True)
        url = hf_hub_url(self.repo_id, listed.path, revision=self.commit, endpoint=self.endpoint)
        with WeakFileLock(locks / f"{sha256}.saeaudit.lock"):
            if blob.exists():
                return
            part = blob.with_name(f"{sha256}.saeaudit.part")
            with part.open("ab") as stream:
                if stream.tell() > listed.size:
                    stream.truncate(0)
                _download(url, stream, listed.size, progress)
            if _sha256(part) != sha256:
                part.unlink()
                raise _wrong_bytes(self.uri(listed.path))
            part.replace(blob)


def _download(url: str, stream: BinaryIO, size: int, progress: Bytes | None) -> None:
    """Append what is missing of a remote file; a cut connection is taken up where it broke.

    The library's own download starts a new file in every process and writes 10 MB at a time.
    """
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import (  # type: ignore[attr-defined]
        build_hf_headers,
        hf_raise_for_status,
        http_stream_backoff,
    )

    tries = 0
    while (have := stream.seek(0, io.SEEK_END)) < size:
        headers = {**build_hf_headers(), "Range": f"bytes={have}-", "Accept-Encoding": "identity"}
        try:
            with http_stream_backoff(
                "GET", url, headers=headers, follow_redirects=True, retry_on_exceptions=()
            ) as answer:
                hf_raise_for_status(answer)
                if answer.status_code == 200:  # ranges are not served: all of it comes again
                    stream.truncate(0)
                for piece in answer.iter_bytes():  # as they arrive
                    stream.write(piece)
                    stream.flush()
                    tries = 0
                    if progress:
                        progress(len(piece))
        except HfHubHTTPError:
            raise
        except Exception as error:
            tries += 1
            if not _is_network(error) or tries > RETRIES:
                raise
            time.sleep(min(2.0**tries, 8.0))
    if have > size:
        raise OSError(f"{have - size} bytes too many")


def _is_network(error: BaseException) -> bool:
    """Whether an error comes from the HTTP library (whichever huggingface_hub uses) or a socket."""
    library = type(error).__module__.split(".")[0]
    return library in HTTP_LIBRARIES or isinstance(error, (ConnectionError, TimeoutError))


def open_repo(repo_id: str, revision: str | None, *, offline: bool) -> Repo:
    """Resolve a repository's revision to a commit.

    Args:
        repo_id: ``owner/name``.
        revision: a branch, tag or commit; the main branch where None.
        offline: take the commit from the cache.

    Raises:
        AuditError: no such repository or revision, no permission, or no connection.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or None
    name = revision or "main"
    if COMMIT.fullmatch(name):
        return Repo(repo_id, name, offline, endpoint)
    repo = Repo(repo_id, "", offline, endpoint)
    reference = repo.folder / "refs" / check_name(name, repo_id)
    if offline:
        if not reference.is_file():
            raise AuditError(
                f"revision {name} is not in the cache",
                where=f"hf://{repo_id}",
                hint="run the same command once without --offline",
            )
        commit = reference.read_text().strip()
        if not COMMIT.fullmatch(commit):
            raise AuditError("not a commit", where=str(reference), hint="delete this file")
        return Repo(repo_id, commit, offline, endpoint)
    with hub_errors(f"hf://{repo_id}" + (f"@{revision}" if revision else "")):
        commit = str(_api(endpoint).repo_info(repo_id, revision=revision).sha)
    reference.parent.mkdir(parents=True, exist_ok=True)
    reference.write_text(commit)
    return Repo(repo_id, commit, offline, endpoint)


def cache_root() -> Path:
    """The hub's own cache, read from the environment at each call."""
    given = os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE")
    home = os.environ.get("HF_HOME")
    if given:
        return Path(given).expanduser()
    base = Path(home).expanduser() if home else Path.home() / ".cache" / "huggingface"
    return base / "hub"


def cache_folder() -> Path:
    """saeaudit's own cache: SAEAUDIT_CACHE, or saeaudit in the user's cache folder."""
    given = os.environ.get("SAEAUDIT_CACHE")
    xdg = os.environ.get("XDG_CACHE_HOME")
    base = Path(given) if given else (Path(xdg) if xdg else Path.home() / ".cache") / "saeaudit"
    return base.expanduser()


def decoder_root() -> Path:
    """Where saeaudit keeps decoder-only copies."""
    return cache_folder() / "decoders"


def is_offline(asked: bool) -> bool:
    """Whether --offline was given or HF_HUB_OFFLINE is set."""
    return asked or os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON")


def check_name(path: str, where: str) -> str:
    """Refuse names that would lead out of the folder they belong in."""
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise AuditError(f"the name {path!r} leads out of its folder; refused", where=where)
    return path


def _api(endpoint: str | None) -> Any:
    from huggingface_hub import HfApi

    return HfApi(endpoint=endpoint)


def _remote(entry: Any) -> RemoteFile:
    lfs = entry.lfs
    return RemoteFile(entry.path, entry.size, lfs.sha256 if lfs else None,
                      None if lfs else entry.blob_id)  # fmt: skip


def _matches(place: Path, listed: RemoteFile) -> bool:
    if place.stat().st_size != listed.size:
        return False
    if listed.sha256:
        return _sha256(place) == listed.sha256
    if listed.git_sha1:
        digest = hashlib.sha1(b"blob %d\0" % listed.size, usedforsecurity=False)
        digest.update(place.read_bytes())
        return digest.hexdigest() == listed.git_sha1
    return True


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _wrong_bytes(uri: str) -> AuditError:
    return AuditError(
        "what arrived is not what the hub lists (sha256 differs); it was thrown away",
        where=uri,
        hint="run the command again; if it repeats, the file on the hub is damaged",
    )


@contextmanager
def hub_errors(uri: str) -> Iterator[None]:
    """Turn the hub's errors into one line each that says what to do."""
    from huggingface_hub import errors

    try:
        yield
    except errors.GatedRepoError as error:
        raise AuditError(
            "access is gated", where=uri,
            hint="accept the licence on the repository's page and set HF_TOKEN",
        ) from error  # fmt: skip
    except errors.RepositoryNotFoundError as error:
        raise TargetError(
            "no such repository, or it is private", where=uri,
            hint="check the name; set HF_TOKEN for private ones",
        ) from error  # fmt: skip
    except errors.RevisionNotFoundError as error:
        raise TargetError("no such revision", where=uri) from error
    except errors.LocalEntryNotFoundError as error:
        raise _unreachable(uri) from error
    except errors.EntryNotFoundError as error:
        raise TargetError("no such path in the repository", where=uri) from error
    except errors.OfflineModeIsEnabled as error:
        raise AuditError(
            "offline, and not in the cache", where=uri, hint="unset HF_HUB_OFFLINE"
        ) from error
    except errors.HFValidationError as error:
        raise TargetError("not a repository name", where=uri, hint="hf://owner/name") from error
    except errors.HfHubHTTPError as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status == 429:
            raise AuditError(
                "the hub is limiting requests", where=uri, hint="wait a while, or set HF_TOKEN"
            ) from error
        if status in (401, 403):
            raise AuditError("no permission", where=uri, hint="set HF_TOKEN") from error
        raise AuditError(f"the hub answered {status}", where=uri, hint="try again later") from error
    except OSError as error:
        if isinstance(error, AuditError):
            raise
        if error.errno == 28:
            raise AuditError("the disk is full", where=str(cache_root())) from error
        raise _unreachable(uri) from error
    except Exception as error:
        if _is_network(error):
            raise _unreachable(uri) from error
        raise


def _unreachable(uri: str) -> AuditError:
    return AuditError(
        "the hub cannot be reached, or the connection broke off",
        where=uri,
        hint="check the network and HF_ENDPOINT; what has arrived is kept, run it again",
    )
