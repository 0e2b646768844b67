"""From a target, as `grammar` tells it, to the SAEs that it names: here, cached or on the hub."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from saeaudit.errors import AuditError, TargetError
from saeaudit.sample import SAMPLES, sample_root
from saeaudit.sources.cache import DECODER_SUFFIX, cache_root, decoder_root
from saeaudit.sources.grammar import URI, Target, parse_target
from saeaudit.sources.http import Note
from saeaudit.sources.hub import Repo, is_offline, open_repo
from saeaudit.sources.releases import Release
from saeaudit.sources.sae import Remote, Sae
from saeaudit.suggest import did_you_mean
from saeaudit.weights.assumptions import parse_assumptions
from saeaudit.weights.find import Listed, Located, find_listed, find_weights, natural

Opening = Callable[[str, str | None], Repo]
"""Opens a repository at a revision; whether online, and who hears of waits, is settled in it."""

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
        target: see `grammar`.
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
    parsed = parse_target(target)
    if parsed.note and note:
        note(parsed.note)
    named = _named(parsed, opening, revision, note)
    if parsed.layer is not None:
        named = [(name, _of_layer(sae, parsed.layer)) for name, sae in named]
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


def _of_layer(sae: Sae, layer: int) -> Sae:
    """One layer of an SAE, called as it can be typed."""
    remote = sae.remote and replace(sae.remote, uri=f"{sae.remote.uri}#{layer}")
    return replace(sae, id=f"{sae.id}#{layer}", remote=remote, layer=layer)


def _named(
    target: Target, opening: Opening, revision: str | None, note: Note | None
) -> list[tuple[str, Sae]]:
    """The SAEs that a target names, by their names for globs."""
    typed = target.typed
    if target.kind == "sample":
        return [("", Sae(typed, sample_root() / SAMPLES[typed], sample_root()))]
    if target.kind == "disk":
        return [_on_disk(typed, located) for located in find_weights(Path(typed), note, _copied)]
    if target.release is not None:
        return _from_release(target.release, target.sae, opening, revision)
    return _hub(target.uri, opening, revision)


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
        names = [repo.uri(one.name, match["revision"]) for one in find_listed(repo.files())]
        hint = did_you_mean(repo.uri(path, match["revision"]), names, cutoff=0.5)
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


def _from_release(
    release: Release, name: str, opening: Opening, revision: str | None
) -> list[tuple[str, Sae]]:
    match = URI.fullmatch(release.source)
    if not match:
        raise AuditError(f"bad source {release.source!r}", where=release.name)
    repo = opening(match["repo"], revision or match["revision"] or release.revision)
    path = "/".join(filter(None, (match["path"], release.saes.get(name, name))))

    def show(path: str) -> str:  # a closed release has names for its SAEs, and no paths
        return repo.uri(path, match["revision"]) if release.closed else f"{release.name}/{path}"

    try:
        listed = _in_repo(repo, path, show, release.name)
    except TargetError as error:
        if not name or error.hint:
            raise
        names = [f"{release.name}/{sae}" for sae in release.saes]
        hint = did_you_mean(f"{release.name}/{name}", names, cutoff=0.5)
        raise TargetError(error.what, where=error.where, hint=hint) from error
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
