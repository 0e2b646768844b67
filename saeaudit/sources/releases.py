"""Releases: names for repositories and for the SAEs in them, from configs/*.yaml."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from saeaudit.errors import AuditError
from saeaudit.sources.reads import UNTOLD, Reads, parse_reads
from saeaudit.untrusted import parse_yaml, read_text

KEYS = {
    "release", "model", "source", "revision", "neuronpedia", "saes", "collect", "scan", "policy",
}  # fmt: skip


@dataclass(frozen=True)
class Release:
    """A public release."""

    name: str
    """What the user types."""
    source: str
    """``hf://owner/repo[/path]``."""
    model: str = ""
    """The model it explains."""
    revision: str | None = None
    """Pinned commit, branch or tag; the latest where None."""
    neuronpedia: str | None = None
    """``model/source`` on Neuronpedia, of the SAEs that it names; {layer} and {width} are
    filled in from their paths."""
    saes: dict[str, str] = field(default_factory=dict)
    """Names of SAEs → their paths in the repository."""
    reads: Reads = UNTOLD
    """Which activations they read, where their files do not say it."""
    closed: bool = False
    """Whether it has no SAEs but these: one repository may hold several releases."""


def load_release(path: Path) -> Release:
    """Read one release file.

    Raises:
        AuditError: unknown keys, wrong types, or no YAML; names the file and the key.
    """
    content = parse_yaml(read_text(path), str(path))
    if not isinstance(content, dict):
        raise AuditError("a mapping was expected", where=str(path))
    for key in content:
        if key not in KEYS:
            raise AuditError(
                f"unknown key {key!r}", where=str(path), hint=f"known: {', '.join(sorted(KEYS))}"
            )

    def text(key: str, default: str | None) -> Any:
        value = content.get(key, default)
        if value is not None and not isinstance(value, str):
            raise AuditError(f"{key} is {value!r}; text was expected", where=str(path))
        return value

    saes = content.get("saes") or {}
    if not isinstance(saes, dict) or not all(
        isinstance(k, str) and isinstance(v, str) for k, v in saes.items()
    ):
        raise AuditError("saes must map names to paths", where=str(path))
    source = text("source", None)
    if not source or not source.startswith("hf://"):
        raise AuditError(f"source is {source!r}; hf://owner/repo was expected", where=str(path))
    return Release(
        name=text("release", path.stem),
        source=source,
        model=text("model", ""),
        revision=text("revision", None),
        neuronpedia=text("neuronpedia", None),
        saes=saes,
        reads=parse_reads(content.get("collect"), str(path)),
    )


_OWN: dict[str, Release] = {}


def add_release(release: Release) -> None:
    """Make a release of the user's own known by its name, before any that ships."""
    _OWN[release.name] = release


def added_releases() -> tuple[Release, ...]:
    """The releases that were added."""
    return tuple(_OWN.values())


def known_releases() -> dict[str, Release]:
    """The releases that ship with saeaudit and those that were added, by name."""
    return {**builtin_releases(), **_OWN}


@cache
def builtin_releases() -> dict[str, Release]:
    """The releases that ship with saeaudit, by name."""
    folder = config_folder()
    return {release.name: release for release in map(load_release, sorted(folder.glob("*.yaml")))}


def config_folder() -> Path:
    """Where the release files lie: inside the installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"
