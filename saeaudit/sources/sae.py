"""One SAE, here or not yet."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from saeaudit.sources.cache import DECODER_SUFFIX
from saeaudit.sources.digests import EarlyDigest
from saeaudit.sources.download import Bytes
from saeaudit.sources.hub import Repo
from saeaudit.sources.partial import decoder_path
from saeaudit.weights.assumptions import Assumptions
from saeaudit.weights.find import Listed
from saeaudit.weights.tensors import Contents


@dataclass(frozen=True)
class Sae:
    """One SAE on this machine, or one that `bring` will put there."""

    id: str
    """As the user can type it."""
    file: Path
    """Its weight file."""
    base: Path | None = None
    """Records give file names relative to this folder; as they are where it is None."""
    revision: str | None = None
    """Commit, for hub repositories."""
    remote: Remote | None = None
    """Where it is on the hub."""
    contents: Contents | None = None
    """What the weight file holds, where resolving the target has meant to open it."""
    assumptions: Assumptions | None = None
    """What the user says of a plain file."""
    layer: int | None = None
    """Which layer of a cross-layer decoder is meant, from 0; all where None."""
    neuronpedia: str | None = None
    """``model/source`` on Neuronpedia, where the user says it."""
    copy_of: Path | None = None
    """Where the whole file would lie, where `file` is a decoder-only copy."""
    early: EarlyDigest | None = field(default=None, repr=False, compare=False)
    """The SHA-256 of its weight file, where hashing has begun."""

    def shown(self, file: Path) -> str:
        """Name of a file for records: the same on every machine for samples and repositories."""
        if self.remote and self.copy_of and file == self.file:
            return f"{self.shown(self.copy_of)}{DECODER_SUFFIX}"
        if self.base and file.is_relative_to(self.base):
            return file.relative_to(self.base).as_posix()
        return str(file)

    @property
    def size(self) -> int:
        """Bytes of its weight file, here or on the hub; 0 where opening it will fail."""
        try:
            return self.remote.bytes if self.remote else self.file.stat().st_size
        except OSError:
            return 0

    def as_copy(self, file: Path) -> Sae:
        """This SAE as a decoder-only copy of its file holds it."""
        return replace(self, file=file, copy_of=self.file)

    def bring(self, progress: Bytes | None = None) -> Sae:
        """Fetch what is not here yet; an earlier decoder-only copy will do."""
        if self.remote is None or self.file.is_file():
            return self
        decoder = decoder_path(self.remote.repo, self.remote.listed)
        if decoder.is_file():
            self.remote.repo.fetch(self.remote.listed.configuration, progress)
            return self.as_copy(decoder)
        self.remote.repo.fetch(self.remote.files, progress)
        return self


def missing_bytes(saes: Iterable[Sae]) -> int:
    """Bytes that `bring` would fetch for these SAEs; each file counts once."""
    remotes = {sae.file: sae.remote for sae in saes if sae.remote and not sae.file.is_file()}
    return sum(
        remote.bytes
        for remote in remotes.values()
        if not decoder_path(remote.repo, remote.listed).is_file()
    )


@dataclass(frozen=True)
class Remote:
    """One SAE in a repository."""

    repo: Repo
    listed: Listed
    """Its files there."""
    uri: str
    """The target as the user can type it."""
    bytes: int
    """Of all its files."""

    @property
    def files(self) -> tuple[str, ...]:
        """Its files, the weights last: when they are there, all is."""
        return (*self.listed.beside, self.listed.file)
