"""The one grammar of targets: what a user types, resolved to SAEs.

- ``sample``, ``sample/stitched``: the bundled dictionaries;
- a local file or folder;
- ``hf://owner/repo[@revision][/path/in/repo]``;
- ``release[/sae_id]``: a name from configs/*.yaml, or SAELens's own where it is installed;
- any of them with ``#N`` behind it: layer N, from 0, of a decoder that writes to several.
"""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from saeaudit.errors import AuditError, TargetError
from saeaudit.sample import SAMPLES, sample_root
from saeaudit.sources.cache import DECODER_SUFFIX, cache_root, decoder_root
from saeaudit.sources.http import Note
from saeaudit.sources.hub import Repo, is_offline, open_repo
from saeaudit.sources.registry import registry_file, registry_names, registry_release
from saeaudit.sources.releases import Release, known_releases
from saeaudit.sources.sae import Remote, Sae
from saeaudit.weights.assumptions import parse_assumptions
from saeaudit.weights.find import Listed, Located, find_listed, find_weights, natural
from saeaudit.weights.tensors import READERS

URI = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(?:@(?P<revision>[^/]+))?(?:/(?P<path>.+?))?/?")
LAYER = re.compile(r"(?P<target>.+)#(?P<layer>\d{1,4})", re.ASCII)
Opening = Callable[[str, str | None], Repo]
"""Opens a repository at a revision; whether online, and who hears of waits, is settled in it."""


REGISTERED = re.compile(r"[A-Za-z0-9.]+([-_]+[A-Za-z0-9.]+)+(/.+)?")
"""What a name of SAELens's registry looks like: its releases have several words."""
LONGEST_GLOB = 1_000
"""Characters of a pattern, which becomes a regular expression."""


def resolve(
    target: str,
    globs: Sequence[str] = (),
    *,
    offline: bool = False,
    revision: str | None = None,
    note: Note | None = None,
    assumptions: str | None = None,
) -> list[Sae]:
    """Resolve a target to the SAEs it names, in natural order of id.

    Args:
        target: see the module.
        globs: keep only SAEs whose id, below the target, matches one of these patterns.
        offline: open no socket.
        revision: commit, branch or tag, where the target itself names none.
        note: called with lines that a user should read while something is waited for.
        assumptions: what the user says of the plain files among them, as `--assume` takes it.

    Raises:
        TargetError: it names nothing, or nothing that matches.
        AuditError: the hub cannot answer.
    """
    opening = partial(open_repo, offline=is_offline(offline), note=note)
    _check_globs(globs)
    assumed = None if assumptions is None else parse_assumptions(assumptions)
    whole, layer = _part_layer(target)
    named = _named(whole, opening, revision, note)
    if layer is not None:
        named = [(name, _of_layer(sae, layer)) for name, sae in named]
    kept: dict[Path, Sae] = {}  # a name and the path that it stands for are one SAE
    for name, sae in named:
        if _matches(name, globs):
            kept.setdefault(sae.file, replace(sae, assumptions=assumed))
    if not kept:
        names = ", ".join(name for name, _ in named[:5])
        raise TargetError(
            f"no SAE here matches --sae {' '.join(globs)}",
            where=target,
            hint=f"there are {len(named)}: {names}{' …' if len(named) > 5 else ''}",
        )
    return sorted(kept.values(), key=lambda sae: natural(sae.id))


def _part_layer(target: str) -> tuple[str, int | None]:
    """A target without the layer that it names, and the layer.

    >>> _part_layer("clt/W_dec_2.safetensors#1")
    ('clt/W_dec_2.safetensors', 1)
    """
    match = LAYER.fullmatch(target)
    if match is None or (not target.startswith("hf://") and _exists(target)):
        return target, None
    return match["target"], int(match["layer"])


def _of_layer(sae: Sae, layer: int) -> Sae:
    """One layer of an SAE, called as it can be typed."""
    remote = sae.remote and replace(sae.remote, uri=f"{sae.remote.uri}#{layer}")
    return replace(sae, id=f"{sae.id}#{layer}", remote=remote, layer=layer)


def _named(
    target: str, opening: Opening, revision: str | None, note: Note | None
) -> list[tuple[str, Sae]]:
    """The SAEs that a target names, by their names for globs."""
    if target in SAMPLES:
        return [("", Sae(target, sample_root() / SAMPLES[target], sample_root()))]
    if target.startswith("hf://"):
        return _hub(target, opening, revision)
    if _exists(target):
        return [_on_disk(target, located) for located in find_weights(Path(target), note, _copied)]
    return _release(target, opening, revision)


def _on_disk(target: str, located: Located) -> tuple[str, Sae]:
    """An SAE at or below a local target, and its name for globs."""
    root = target.rstrip("/") or "/"
    name = f"{root}/{located.name}" if located.name else target
    copied = _copied(located.file)
    sae = Sae(name, located.file, contents=located.contents, copy_of=copied)
    return located.name or Path(target).name, sae


def _copied(file: Path) -> Path | None:
    """Where the whole file would lie that a decoder-only copy in saeaudit's cache is of."""
    file = file.absolute()
    if not file.is_relative_to(decoder_root()) or not file.name.endswith(DECODER_SUFFIX):
        return None
    repository, *inside = file.relative_to(decoder_root()).parts
    return (
        cache_root()
        .joinpath(repository, "snapshots", *inside)
        .with_name(file.name.removesuffix(DECODER_SUFFIX))
    )


def _exists(target: str) -> bool:
    try:
        return Path(target).exists()
    except OSError as error:  # a folder above it is closed, or the name is too long
        raise TargetError(f"cannot be read: {error.strerror}", where=target[:200]) from error


def _matches(name: str, globs: Sequence[str]) -> bool:
    return not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _check_globs(globs: Sequence[str]) -> None:
    for glob in globs:
        if len(glob) > LONGEST_GLOB:
            raise TargetError(
                f"a pattern of {len(glob):,} characters; at most {LONGEST_GLOB:,}", where="--sae"
            )


def _hub(uri: str, opening: Opening, revision: str | None) -> list[tuple[str, Sae]]:
    match = URI.fullmatch(uri)
    if not match:
        raise TargetError("not a hub address", where=uri, hint="hf://owner/repo[@revision][/path]")
    named = match["revision"] or revision
    repo = opening(match["repo"], named)
    path = match["path"] or ""
    try:
        return _in_repo(repo, path, lambda name: repo.uri(name, match["revision"]), uri)
    except TargetError as error:
        if not path or error.hint or repo.offline:
            raise
        names = [one.name for one in find_listed(repo.files())]
        close = difflib.get_close_matches(path, names, n=1, cutoff=0.5)
        hint = f"did you mean {repo.uri(close[0], match['revision'])}?" if close else ""
        raise TargetError(error.what, where=error.where, hint=hint) from error


def _in_repo(
    repo: Repo, path: str, show: Callable[[str], str], where: str
) -> list[tuple[str, Sae]]:
    """SAEs at or below a path of a repository, named by their path below it."""
    files = repo.files(path)
    single = path in files  # a file: its folder was listed too
    listed = find_listed(files)
    if single:
        listed = [one for one in listed if one.file == path] or [Listed(path, path, (), "plain")]
    if not listed:
        raise TargetError(
            "no SAE weights here" + (" in the cache" if repo.offline else ""),
            where=where,
            hint="run once without --offline" if repo.offline else "",
        )
    named = []
    for one in listed:
        size = sum(files[name].size for name in (one.file, *one.beside) if name in files)
        remote = Remote(repo, one, show(one.name), size)
        base = repo.folder / "snapshots" / repo.commit
        name = one.name[len(path) :].strip("/") if path and not single else one.name
        sae = Sae(remote.uri, repo.local(one.file), base, repo.commit, remote)
        named.append((name or one.name, sae))
    return named


def _release(target: str, opening: Opening, revision: str | None) -> list[tuple[str, Sae]]:
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
    release = _with_registry(name, sae, releases.get(name))
    if release is None:
        path = target.startswith((".", "/", "~")) or Path(target).suffix.lower() in READERS
        what = "no such file or folder" if path else "no such file, folder or release"
        raise TargetError(what, where=target, hint=_nearest(target, path=path))
    by_name = release.closed or re.search(r"canonical$", sae)
    if sae and sae not in release.saes and by_name:
        close = difflib.get_close_matches(sae, release.saes, n=1, cutoff=0.4)
        raise TargetError(
            f"release {name} has no SAE {sae!r}",
            where=target,
            hint=f"did you mean {name}/{close[0]}?" if close else "",
        )
    return _from_release(release, sae, opening, revision)


def _with_registry(name: str, sae: str, release: Release | None) -> Release | None:
    """A release with the names that SAELens's registry has for it, where that is installed."""
    if release and (not sae or sae in release.saes):
        return release
    listed = registry_release(name)
    if release is None or listed is None or listed.source != release.source:
        return release or listed
    return replace(release, saes=listed.saes | release.saes)


def _from_release(
    release: Release, name: str, opening: Opening, revision: str | None
) -> list[tuple[str, Sae]]:
    match = URI.fullmatch(release.source)
    if not match:
        raise AuditError(f"bad source {release.source!r}", where=release.name)
    repo = opening(match["repo"], revision or match["revision"] or release.revision)
    path = "/".join(filter(None, (match["path"], release.saes.get(name, name))))
    try:
        listed = _in_repo(repo, path, lambda n: f"{release.name}/{n}", release.name)
    except TargetError as error:
        near = difflib.get_close_matches(name, release.saes, n=1, cutoff=0.5)
        if name and near and not error.hint:
            raise TargetError(
                error.what, where=error.where, hint=f"did you mean {release.name}/{near[0]}?"
            ) from error
        raise
    if name in release.saes:  # a name is of one SAE, though checkpoints may lie in its folder
        exact = [sae for _, sae in listed if _path_of(sae) == path] or [sae for _, sae in listed]
        if len(exact) == 1:
            return [(name, replace(exact[0], id=f"{release.name}/{name}"))]
    if name:
        return listed
    aliases = {path: alias for alias, path in release.saes.items()}
    named = [
        (aliases[path], replace(sae, id=f"{release.name}/{aliases[path]}"))
        for path, sae in listed
        if path in aliases
    ]
    if release.closed and not named:
        raise TargetError("none of its SAEs are in its repository", where=release.name)
    return named if release.closed else [*listed, *named]


def _path_of(sae: Sae) -> str:
    return sae.remote.listed.name if sae.remote else ""


def _nearest(target: str, *, path: bool) -> str:
    names = [*SAMPLES, *known_releases(), *registry_names()]
    parent = Path(target).parent
    try:
        beside = [entry.name for entry in itertools.islice(parent.iterdir(), 10_000)]
    except (OSError, ValueError):  # no such folder, a closed one, or no name of a folder
        beside = []
    names += [str(parent / name) if str(parent) != "." else name for name in beside]
    close = difflib.get_close_matches(target[:300], names, n=1, cutoff=0.6)
    hints = [f"did you mean {close[0]}?"] if close else []
    if not path and REGISTERED.fullmatch(target[:300]) and registry_file() is None:
        hints.append("a name of SAELens's registry is known where sae-lens is installed")
    return "; ".join(hints)
