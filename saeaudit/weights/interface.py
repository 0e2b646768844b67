"""One way from a path to weights: which family a file belongs to, and what an SAE folder holds."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple, Protocol

from saeaudit.dictionary import Weights
from saeaudit.errors import AuditError, TargetError, WeightsError
from saeaudit.weights.tensors import read_tensors


class Loaded(NamedTuple):
    """What a family's reader returns."""

    weights: Weights
    files: tuple[Path, ...]
    """Every file that was read, the weights first."""


Present = Callable[[PurePath], bool]
"""Whether a file is there: on disk, or in a repository's listing."""


class Family(Protocol):
    """One way in which SAEs are stored."""

    name: str
    """Name of the format, as records give it."""

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether this family reads `file`, by its name and which files lie beside it."""

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Further files that are read where they are there."""

    def home(self, file: PurePath) -> PurePath:
        """What identifies the SAE: its folder, or the file where a folder holds several."""

    def read(self, file: Path) -> Loaded:
        """Read the weights in `file` and whatever configuration lies beside it."""


def families() -> tuple[Family, ...]:
    """All families, the most specific first."""
    from saeaudit.weights import (
        dictionary_learning,
        gemma_scope,
        llama_scope,
        plain,
        saelens,
        singles,
        sparsify,
    )

    return (
        gemma_scope.GemmaScope(),
        gemma_scope.GemmaScope2(),
        saelens.SaeLens(),
        sparsify.Sparsify(),
        dictionary_learning.DictionaryLearning(),
        llama_scope.LlamaScope(),
        llama_scope.LlamaScopeR1(),
        singles.QwenScope(),
        singles.CircuitTracer(),
        singles.CrossLayerTranscoder(),
        singles.Goodfire(),
        plain.Plain(),
    )


WEIGHT_SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".pth", ".bin", ".ckpt")
SKIPPED = ("examples.safetensors", "sparsity.safetensors", "activation_whitening.safetensors")
"""Files that lie beside weights and are none."""


def on_disk(file: PurePath) -> bool:
    """Whether a file is there, on this machine."""
    try:
        return Path(file).is_file()
    except OSError:  # its folder is closed
        return False


def family_of(file: PurePath, present: Present = on_disk) -> Family:
    """Return the family that reads a weight file."""
    return next(family for family in families() if family.claims(file, present))


class Listed(NamedTuple):
    """One SAE in a repository's listing."""

    name: str
    """Its id: the path of its folder, or of its file where a folder holds several."""
    file: str
    """Its weight file."""
    beside: tuple[str, ...]
    """Further files that are read with it."""
    format: str
    """Name of its family."""


def find_listed(names: Iterable[str]) -> list[Listed]:
    """Find the SAEs in a repository by its file names alone, in natural order of id.

    Plain files count only where no other family has any: their names say nothing.
    """
    paths = {PurePosixPath(name) for name in names}
    found: dict[bool, list[Listed]] = {True: [], False: []}
    for path in paths:
        hidden = any(part.startswith(".") for part in path.parts)
        if hidden or path.suffix.lower() not in WEIGHT_SUFFIXES or path.name in SKIPPED:
            continue
        family = family_of(path, paths.__contains__)
        beside = tuple(str(other) for other in family.beside(path) if other in paths)
        home = family.home(path).as_posix().removeprefix(".")
        listed = Listed(home, str(path), beside, family.name)
        found[family.name != "plain"].append(listed)
    return sorted(found[True] or found[False], key=lambda listed: natural(listed.name))


def read_weights(file: Path) -> Loaded:
    """Read one SAE.

    Raises:
        WeightsError: not weights, damaged, refused, or of shapes that contradict each other.
    """
    try:
        if file.is_dir():
            raise WeightsError("a folder that cannot be listed", where=str(file))
        return family_of(file).read(file)
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    except MemoryError as error:
        raise WeightsError("does not fit into memory", where=str(file)) from error


def find_weights(root: Path) -> list[tuple[str, Path]]:
    """Find every SAE at or below a path.

    Args:
        root: a weight file, an SAE's folder, or a folder of such folders.

    Returns:
        ``(id, weight file)`` in natural order of id; the id is relative to `root`, without the
        file's name where its family fixes that, and empty for `root` itself. What cannot be read
        is listed too, folders included: opening it says why.

    Raises:
        TargetError: nothing there, or nothing that looks like weights.
    """
    if not root.is_dir():
        if not root.exists():
            raise TargetError("no such file or folder", where=str(root))
        return [("", root)]
    found = []
    for file in _candidates(root):
        family = family_of(file)
        if family.name == "plain" and not _may_be_dictionary(file):
            continue
        home = Path(family.home(file))
        # A folder inside an SAE's own folder, or the file itself where it is the whole target.
        name = home.relative_to(root) if home.is_relative_to(root) else Path()
        found.append(("" if name == Path() else name.as_posix(), file))
    if not found:
        raise TargetError(
            "no SAE weights in this folder",
            where=str(root),
            hint="known: params.npz, cfg.json + sae_weights.safetensors, or a decoder matrix in "
            ".npy, .npz, .safetensors, .pt, .pth",
        )
    return sorted(found, key=lambda item: natural(item[0]))


def _candidates(root: Path) -> list[Path]:
    """What may be weights by its name, and folders that cannot be listed; sorted.

    Hidden files and folders are left out, and links to folders are not followed.
    """
    found: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=lambda e: found.append(Path(e.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            suffix = PurePath(name).suffix.lower()
            if suffix in WEIGHT_SUFFIXES and name not in SKIPPED and not name.startswith("."):
                found.append(Path(folder, name))
    return sorted(found)


def _may_be_dictionary(file: Path) -> bool:
    """False for readable files without a decoder (activations, token ids), which are no error."""
    from saeaudit.weights.plain import decoder_name

    try:
        tensors, _ = read_tensors(file)
    except AuditError:
        return True  # damaged or closed: reported when it is opened
    return decoder_name(tensors) is not None


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key with numbers in numeric order: layer_2 before layer_10."""
    return [
        (0, int(part), "") if part.isdecimal() and len(part) < 4000 else (1, 0, part)
        for part in re.split(r"(\d+)", text)
        if part
    ]
