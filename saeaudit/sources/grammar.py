"""The one grammar of targets: what a user types, parsed without asking anybody.

- ``sample``, ``sample/stitched``: the bundled dictionaries;
- a local file or folder;
- ``hf://owner/repo[@revision][/path/in/repo]``, without ``hf://`` where nothing here is meant, or
  the address of its page;
- ``release[/sae_id]``: a name from configs/*.yaml, or SAELens's own where it is installed;
- ``model/source`` as Neuronpedia has it, or the address of its page;
- any of them with ``#N`` behind it: layer N, from 0, of a decoder that writes to several.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

from saeaudit.errors import AuditError, TargetError
from saeaudit.sample import SAMPLES
from saeaudit.sources.cache import check_name
from saeaudit.sources.known_sources import known_sources
from saeaudit.sources.pasted import Page, read_page
from saeaudit.sources.registry import registry_file, registry_names, registry_release
from saeaudit.sources.releases import Release, known_releases
from saeaudit.suggest import MOST, did_you_mean, nearest
from saeaudit.weights.suffixes import SUFFIXES

URI = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+?))?/?")
LAYER = re.compile(r"(?P<target>.+)#(?P<layer>\d{1,4})", re.ASCII)
REPOSITORY = re.compile(r"[A-Za-z0-9]\w*/[\w.-]+(?:@[^/]+)?(?:/.+)?", re.ASCII)
"""What may be a repository's name without ``hf://``: owners of several words (a-b) are like
releases, and have to be written in full."""
OWNED = re.compile(r"[\w-]+/[\w.-]+(?:/[\w./-]*)?", re.ASCII)
"""What a repository's name may look like, or a path in it, whatever the owner is called."""
REGISTERED = re.compile(r"[A-Za-z0-9.]+([-_]+[A-Za-z0-9.]+)+(/.+)?")
"""What a name of SAELens's registry looks like: its releases have several words."""
CANONICAL = "-canonical"
"""What SAELens adds to a release's name where its canonical SAEs alone are meant."""
NEIGHBOURS = 10_000
"""Names of a folder that are looked at for one that may have been meant."""


class Target(NamedTuple):
    """A target, as far as it can be told without asking anybody."""

    typed: str
    """Without the layer."""
    layer: int | None
    """The layer that it names."""
    kind: Literal["sample", "disk", "hub", "release"]
    uri: str = ""
    """Of kind "hub": hf://owner/repo[@revision][/path]."""
    note: str = ""
    """What a user should know of how it was taken."""
    release: Release | None = None
    """Of kind "release"."""
    sae: str = ""
    """What follows the release's name."""

    @property
    def remote(self) -> bool:
        """Whether the hub has to be asked, or its cache."""
        return self.kind in ("hub", "release")


def parse_target(typed: str) -> Target:
    """Tell what a target means.

    Raises:
        TargetError: it names nothing.
        AuditError: SAELens's registry cannot be read.
    """
    # What is pasted has blanks and line ends about it; names of files may have some too.
    whole, layer = _part_layer(typed if _exists(typed) else typed.strip() or typed)
    if whole in SAMPLES:
        return Target(whole, layer, "sample")
    if whole.startswith("hf://"):
        return Target(whole, layer, "hub", _checked(whole))
    page = read_page(whole)
    if page is not None:
        return _paged(whole, layer, page)
    if _exists(whole):
        return Target(whole, layer, "disk")
    release = _release(whole)
    if release is not None:
        return Target(whole, layer, "release", release=release[0], sae=release[1])
    below = _exists(whole.partition("/")[0])  # a folder that is here: a path is meant
    uri = None if below else _uri_of_source(whole) or _uri_of_repository(whole)
    if uri is None:
        raise _unknown(whole)
    return Target(whole, layer, "hub", uri, note=f"{whole}: taken as {uri}")


def _part_layer(target: str) -> tuple[str, int | None]:
    """A target without the layer that it names, and the layer.

    >>> _part_layer("clt/W_dec_2.safetensors#1")
    ('clt/W_dec_2.safetensors', 1)
    """
    match = LAYER.fullmatch(target)
    if match is None or (not target.startswith("hf://") and _exists(target)):
        return target, None
    return match["target"], int(match["layer"])


def _exists(target: str) -> bool:
    try:
        return Path(target).exists()
    except OSError as error:  # a folder above it is closed, or the name is too long
        raise TargetError(f"cannot be read: {error.strerror}", where=target[:200]) from error


def _checked(uri: str) -> str:
    """A ``hf://`` address whose path leads nowhere else.

    Raises:
        TargetError: another form, or such a path.
    """
    match = URI.fullmatch(uri)
    if not match:
        raise TargetError("not a hub address", where=uri, hint="hf://owner/repo[@revision][/path]")
    _check_path(match["path"], uri)
    return uri


def _check_path(path: str | None, where: str) -> None:
    """Refuse a path in a repository that leads out of it.

    Raises:
        TargetError: it does.
    """
    if not path:
        return
    try:
        check_name(path, where)
    except AuditError as error:
        raise TargetError(error.what, where=where) from error


def _paged(typed: str, layer: int | None, page: Page) -> Target:
    """What a pasted address means."""
    if page.uri:
        return Target(typed, layer, "hub", _checked(page.uri))
    uri = _uri_of_source(page.source)
    if uri is None:
        raise _no_source(page.source)
    feature = "" if page.feature is None else f", whose feature {page.feature} the page is about"
    return Target(typed, layer, "hub", uri, note=f"{page.source}: the SAE {uri}{feature}")


@cache
def _places() -> dict[str, str]:
    """``hf://`` addresses of the SAEs that Neuronpedia has, by ``model/source``."""
    return {source: f"hf://{repo}/{path}" for (repo, path), source in known_sources().items()}


def _uri_of_source(source: str) -> str | None:
    """Where the SAE of Neuronpedia's ``model/source`` lies.

    Raises:
        TargetError: a model that Neuronpedia has, with a source that is not known.
    """
    model, _, rest = source.partition("/")
    place = _places().get(source)
    if place is None and rest and any(known.startswith(f"{model}/") for known in _places()):
        raise _no_source(source)
    return place


def _no_source(source: str) -> TargetError:
    hint = did_you_mean(source, _places())
    return TargetError("no SAE is known of this source on Neuronpedia", where=source, hint=hint)


def _uri_of_repository(typed: str) -> str | None:
    """``owner/repo[@revision][/path]`` as an address, where nothing on this machine is meant.

    A repository that no release or table has is asked for only where the name is like nothing
    known: a mistyped path is a mistyped path.
    """
    uri = f"hf://{typed}"
    match = URI.fullmatch(uri)
    if match is None:
        return None
    if match["repo"] in _repositories():
        return _checked(uri)
    if Path(typed).suffix.lower() in SUFFIXES or not REPOSITORY.fullmatch(typed) or _nearby(typed):
        return None
    return _checked(uri)


def _repositories() -> set[str]:
    """Repositories that a release or Neuronpedia's table names."""
    listed = {match["repo"] for r in known_releases().values() if (match := URI.match(r.source))}
    return listed | {repo for repo, _ in known_sources()}


def _release(target: str) -> tuple[Release, str] | None:
    """The release that a target begins with and what follows its name; None where it has none.

    Raises:
        TargetError: the release has no such SAE.
    """
    releases = known_releases()
    name = next(
        (
            n
            for n in sorted(releases, key=len, reverse=True)
            if target == n or target.startswith(f"{n}/")
        ),
        target.partition("/")[0],
    )
    sae = target[len(name) + 1 :].rstrip("/")
    known = releases.get(name) or _canonical(name, releases)
    release = _with_registry(name, sae, known)
    if release is None:
        return None
    by_name = release.closed or re.search(r"canonical$", sae)
    if sae and sae not in release.saes and by_name:
        raise TargetError(
            f"release {name} has no SAE {sae!r}",
            where=target,
            hint=did_you_mean(target, [f"{name}/{known}" for known in release.saes], cutoff=0.4),
        )
    _check_path(release.saes.get(sae, sae), target)
    return release, sae


def _canonical(name: str, releases: dict[str, Release]) -> Release | None:
    """SAELens's name for a release's canonical SAEs alone, where SAELens is not installed."""
    release = releases.get(name.removesuffix(CANONICAL))
    if release is None or not name.endswith(CANONICAL):
        return None
    saes = {sae: path for sae, path in release.saes.items() if sae.endswith("canonical")}
    return replace(release, name=name, saes=saes, closed=True) if saes else None


def _with_registry(name: str, sae: str, release: Release | None) -> Release | None:
    """A release with the names that SAELens's registry has for it, where that is installed."""
    if release and (not sae or sae in release.saes):
        return release
    listed = registry_release(name)
    if release is None or listed is None or listed.source != release.source:
        return release or listed
    return replace(release, saes=listed.saes | release.saes)


def _unknown(target: str) -> TargetError:
    """The error for what names nothing, with what may have been meant."""
    path = target.startswith((".", "/", "~")) or Path(target).suffix.lower() in SUFFIXES
    what = "no such file or folder" if path else "no such file, folder or release"
    hints = [_nearby(target)]
    begins = any(name.startswith(target) for name in known_releases())
    if not begins and not path and REGISTERED.fullmatch(target[:300]) and registry_file() is None:
        hints.append("a name of SAELens's registry is known where sae-lens is installed")
    if not path and not hints[0] and OWNED.fullmatch(target[:300]):
        hints.append(f"hf://{target}, if a repository on the hub is meant")
    return TargetError(what, where=target, hint="; ".join(filter(None, hints)))


def _nearby(target: str) -> str:
    """A hint that names what may have been meant: releases, or what lies beside on the disk."""
    name, _, rest = target.partition("/")
    releases = {*known_releases(), *registry_names()}
    names = {*SAMPLES, *releases, *_beside(Path(target))}
    if rest and name not in releases:
        names |= {f"{release}/{rest}" for release in nearest(name, releases)}
    listed = len(nearest(target, releases)) > MOST
    more = "saeaudit releases lists them" if listed else ""
    missing = Path(target)  # the first name on the way that is not there
    while missing.parent != missing and not missing.parent.exists():
        missing = missing.parent
    return did_you_mean(target, names, more) or did_you_mean(str(missing), _beside(missing))


def _beside(path: Path) -> Iterable[str]:
    """What may be a target in the folder that a path names: files of weights, and folders."""
    try:
        entries = itertools.islice(path.parent.iterdir(), NEIGHBOURS)
        visible = [entry for entry in entries if entry != path and not entry.name.startswith(".")]
        is_file = path.suffix.lower() in SUFFIXES
        return [
            str(entry)
            for entry in visible
            if entry.suffix.lower() in SUFFIXES or (not is_file and entry.is_dir())
        ]
    except (OSError, ValueError):  # no such folder, a closed one, or no name of a folder
        return []
