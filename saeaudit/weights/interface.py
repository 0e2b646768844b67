"""One way from a path to weights: which family a file belongs to, and what an SAE folder holds."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, Protocol

from saeaudit.dictionary import Weights
from saeaudit.errors import TargetError, WeightsError
from saeaudit.weights.tensors import read_tensors


class Loaded(NamedTuple):
    """What a family's reader returns."""

    weights: Weights
    files: tuple[Path, ...]
    """Every file that was read, the weights first."""


class Family(Protocol):
    """One way in which SAEs are stored."""

    name: str
    """Name of the format, as records give it."""

    def claims(self, file: Path) -> bool:
        """Whether this family reads `file`, by its name and its neighbours' names."""

    def read(self, file: Path) -> Loaded:
        """Read the weights in `file` and whatever configuration lies beside it."""


def families() -> tuple[Family, ...]:
    """All families, the most specific first."""
    from saeaudit.weights import gemma_scope, plain, saelens

    return (gemma_scope.GemmaScope(), saelens.SaeLens(), plain.Plain())


WEIGHT_SUFFIXES = (".npz", ".npy", ".safetensors", ".pt", ".pth", ".bin", ".ckpt")
SKIPPED = ("examples.safetensors", "sparsity.safetensors", "activation_whitening.safetensors")
"""Files that lie beside weights and are none."""


def family_of(file: Path) -> Family:
    """Return the family that reads a weight file."""
    return next(family for family in families() if family.claims(file))


def read_weights(file: Path) -> Loaded:
    """Read one SAE.

    Raises:
        WeightsError: not weights, damaged, refused, or of shapes that contradict each other.
    """
    try:
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
        file's name where its family fixes that, and empty for `root` itself.

    Raises:
        TargetError: nothing there, or nothing that looks like weights.
    """
    if root.is_file():
        return [("", root)]
    if not root.is_dir():
        raise TargetError("no such file or folder", where=str(root))
    found = []
    for file in sorted(root.rglob("*")):
        hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
        if hidden or file.suffix.lower() not in WEIGHT_SUFFIXES or file.name in SKIPPED:
            continue
        if not file.is_file():
            continue
        family = family_of(file)
        if family.name == "plain" and not _may_be_dictionary(file):
            continue
        inside = file.relative_to(root)
        name = inside if family.name == "plain" else inside.parent
        found.append(("" if name == Path() else name.as_posix(), file))
    if not found:
        raise TargetError(
            "no SAE weights in this folder",
            where=str(root),
            hint="known: params.npz, cfg.json + sae_weights.safetensors, or a decoder matrix in "
            ".npy, .npz, .safetensors, .pt, .pth",
        )
    return sorted(found, key=lambda item: natural(item[0]))


def _may_be_dictionary(file: Path) -> bool:
    """False for readable files without a decoder (activations, token ids), which are no error."""
    from saeaudit.weights.plain import decoder_name

    try:
        tensors, _ = read_tensors(file)
    except WeightsError:
        return True  # damaged: reported when it is opened
    return decoder_name(tensors) is not None


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key with numbers in numeric order: layer_2 before layer_10."""
    return [
        (0, int(part), "") if part.isdigit() else (1, 0, part)
        for part in re.split(r"(\d+)", text)
        if part
    ]
