"""From a resolved target to a validated dictionary: read, hash, measure, check."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from saeaudit.dictionary import Dictionary, FileRead, Source, Weights, validate
from saeaudit.errors import TargetError, WeightsError
from saeaudit.sources.digests import sha256_of
from saeaudit.sources.http import Note
from saeaudit.sources.neuronpedia import certain_source
from saeaudit.sources.sae import Sae
from saeaudit.sources.target import resolve
from saeaudit.weights.assumptions import assume
from saeaudit.weights.families import family_of
from saeaudit.weights.find import read_weights
from saeaudit.weights.layers import take_layer

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor, nn

    Target = str | Path | Dictionary | Tensor | ArrayLike | nn.Module | Mapping[str, Tensor]


def open_sae(sae: Sae) -> Dictionary:
    """Open one SAE of one dictionary; its files are hashed while its rows are measured.

    Raises:
        TargetError: its decoder is of several layers, and none is named.
        WeightsError: not weights, damaged, or nothing usable in it.
    """
    dictionaries = open_layers(sae)
    if len(dictionaries) > 1:
        raise TargetError(
            f"holds {len(dictionaries)} layers: {dictionaries[0].sae}, {dictionaries[1].sae}, …",
            where=sae.id,
            hint="open them one by one",
        )
    return dictionaries[0]


def open_layers(sae: Sae) -> list[Dictionary]:
    """Open one SAE: one dictionary, or of a cross-layer decoder one for each layer.

    Layers without a usable row are passed over, with a note, unless one is named.

    Raises:
        TargetError: a layer is named that is not there.
        WeightsError: not weights, damaged, or nothing usable in it.
    """
    sae = sae.bring()
    from saeaudit.core.rows import row_norms  # with torch, which fetching does without

    weights, paths = read_weights(sae.file, sae.contents, copy_of=sae.copy_of)
    if sae.assumptions is not None:
        weights = assume(weights, sae.assumptions, str(sae.file))
    layers = _pick_layers(sae, weights)
    try:
        with ThreadPoolExecutor(1) as pool:
            digests = pool.map(sae.early.of if sae.early else sha256_of, paths)
            norms = {suffix: row_norms(rows.decoder) for suffix, rows in layers.items()}
            files = tuple(
                FileRead(sae.shown(path), path.stat().st_size, digest)
                for path, digest in zip(paths, map(_checked, paths, digests), strict=True)
            )
    except OSError as error:  # it has vanished meanwhile
        raise WeightsError(
            f"cannot be read: {error.strerror or error}", where=str(sae.file)
        ) from error
    uri, neuronpedia = sae.remote.uri if sae.remote else sae.id, certain_source(sae)
    return [
        validate(
            f"{sae.id}{suffix}",
            rows,
            Source(f"{uri}{suffix}", files, sae.revision, neuronpedia),
            norms[suffix],
        )
        for suffix, rows in _usable_layers(layers, norms).items()
    ]


def _pick_layers(sae: Sae, weights: Weights) -> dict[str, Weights]:
    """What is audited of a file, by what its id is followed by: nothing, or ``#layer``.

    Raises:
        TargetError: a layer is named that is not there.
    """
    if weights.layers is None and sae.layer is None:
        return {"": weights}
    if weights.layers is None:
        raise TargetError(
            "a layer is named, but its decoder is of one only", where=sae.id,
            hint=f"leave #{sae.layer} out",
        )  # fmt: skip
    if sae.layer is None:
        return {f"#{layer}": take_layer(weights, layer) for layer in range(weights.layers)}
    if sae.layer >= weights.layers:
        raise TargetError(
            f"no such layer; its decoder has {weights.layers}, from #0 on", where=sae.id
        )
    return {"": take_layer(weights, sae.layer)}


def _usable_layers(
    layers: Mapping[str, Weights], norms: Mapping[str, Tensor]
) -> Mapping[str, Weights]:
    """The layers with any usable row, which note the others; all where there is none."""
    zero = [suffix for suffix in layers if not bool(norms[suffix].any())]
    usable = [
        suffix
        for suffix, lengths in norms.items()
        if bool((lengths.isfinite() & (lengths > 0)).any())
    ]
    broken = [suffix for suffix in layers if suffix not in (*zero, *usable)]
    notes = tuple(
        f"layers {reason} are passed over: {', '.join(passed)}"
        for reason, passed in (
            ("whose rows are all zero", zero),
            ("of which no row is finite and not zero", broken),
        )
        if passed
    )
    if not usable:
        return layers
    return {
        suffix: replace(layers[suffix], notes=(*layers[suffix].notes, *notes)) for suffix in usable
    }


def input_files(saes: Iterable[Sae]) -> Iterator[Path]:
    """Files that opening these SAEs reads: weights, and what lies beside them."""
    for sae in saes:
        yield sae.file
        yield from map(Path, family_of(sae.file).beside(sae.file))


def open_target(
    target: Target,
    *,
    sae: Sequence[str] = (),
    offline: bool = False,
    note: Note | None = None,
    assumptions: str | None = None,
    name: str = "memory",
) -> Dictionary:
    """Open the one SAE that a target names, or that is in memory (`saeaudit.open`).

    Args:
        target: anything the command line takes; a decoder ``[F, d]`` as a tensor or array; a
            module, e.g. an SAE of SAELens, or its state dictionary; a dictionary, which is open.
        sae: globs over SAE ids, where the target holds several.
        offline: open no socket.
        note: called with lines that a user should read while something is waited for.
        assumptions: what a plain file or a module leaves open, as `--assume` takes it.
        name: what records call an SAE that is in memory.

    Raises:
        AuditError: assumptions that are none.
        TargetError: it names none, or several, or is something else.
        WeightsError: the file is damaged or holds nothing usable.
    """
    if isinstance(target, Dictionary):
        return target
    if not isinstance(target, (str, Path)):
        from saeaudit.audit.memory import open_in_memory

        return open_in_memory(target, name=name, assumptions=assumptions)
    saes = resolve(str(target), sae, offline=offline, note=note, assumptions=assumptions)
    return open_single(saes, str(target))


def open_single(saes: Sequence[Sae], target: str) -> Dictionary:
    """Open the one SAE that a target was resolved to.

    Raises:
        TargetError: there are several.
        WeightsError: the file is damaged or holds nothing usable.
    """
    if len(saes) > 1:
        raise TargetError(
            f"names {len(saes)} SAEs: {saes[0].id}, {saes[1].id}, …",
            where=target,
            hint="open them one by one",
        )
    return open_sae(saes[0])


def _checked(path: Path, digest: str) -> str:
    """Compare a digest with the name that the hub's cache gives a large file: its sha256.

    Raises:
        WeightsError: the file has changed since it was fetched.
    """
    blob = path.resolve()
    if (
        path.is_symlink()
        and blob.parent.name == "blobs"
        and re.fullmatch(r"[0-9a-f]{64}", blob.name)
    ):
        if blob.name != digest:
            raise WeightsError(
                "damaged in the cache: its sha256 is not the hub's",
                where=str(path),
                hint="saeaudit fetch brings it again",
            )
    return digest
