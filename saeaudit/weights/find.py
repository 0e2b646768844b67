"""From a path to SAEs: what a folder or a repository's listing holds, and reading one of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path, PurePath, PurePosixPath
from typing import Literal, NamedTuple

from saeaudit.errors import AuditError, TargetError, WeightsError
from saeaudit.weights.families import family_of
from saeaudit.weights.interface import Loaded
from saeaudit.weights.plain import Plain, decoder_name, is_named_decoder, obvious_decoder
from saeaudit.weights.tensors import READERS, Contents, read_tensors

SKIPPED = ("examples.safetensors", "sparsity.safetensors", "activation_whitening.safetensors")
"""Files that lie beside weights and are none."""
KEPT_TENSORS = 100
"""A listing keeps what files of at most this many tensors hold, ten times an SAE's: a folder of
thousands of files takes little memory, whatever they hold."""


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

    @property
    def configuration(self) -> tuple[str, ...]:
        """What is read with it and holds no weights."""
        return tuple(name for name in self.beside if PurePath(name).suffix not in READERS)


class Located(NamedTuple):
    """One SAE in a folder of this machine."""

    name: str
    """Its id: as in `Listed`, relative to the folder; empty for the whole target."""
    file: Path
    """Its weight file."""
    kind: Literal["sae", "matrix", "unreadable"] = "sae"
    """What the file shows itself to be: a lone matrix may be anything."""
    contents: Contents | None = None
    """What the file holds, where finding that out has meant to open it."""


def find_listed(names: Iterable[str]) -> list[Listed]:
    """Find the SAEs in a repository by its file names alone, in natural order of id.

    Plain files count only where no other family has any: their names say nothing.
    """
    paths = {PurePosixPath(name) for name in names}
    plain: list[Listed] = []
    known: list[Listed] = []
    for path in paths:
        hidden = any(part.startswith(".") for part in path.parts)
        if hidden or not _is_named_as_weights(path):
            continue
        family = family_of(path, paths.__contains__)
        beside = tuple(str(other) for other in family.beside(path) if other in paths)
        home = family.home(path).as_posix().removeprefix(".")
        listed = Listed(home, str(path), beside, family.name)
        (plain if family.name == Plain.name else known).append(listed)
    return sorted(known or plain, key=lambda listed: natural(listed.name))


def find_weights(
    root: Path,
    note: Callable[[str], None] | None = None,
    copied: Callable[[Path], Path | None] = lambda _: None,
) -> list[Located]:
    """Find every SAE at or below a path, in natural order of id.

    What cannot be read is listed too, folders included: opening it says why. A lone matrix in a
    folder that has an SAE at or below it is not: embeddings look like a decoder.

    Args:
        root: a weight file, an SAE's folder, or a folder of such folders.
        note: called with a line that says what was passed over.
        copied: where the file lies of which a file holds a part, or None: that one's family is its.

    Raises:
        TargetError: no such path, or no file that looks like weights.
    """
    if not root.is_dir():
        if not root.exists():
            raise TargetError("no such file or folder", where=str(root))
        return [Located("", root)]
    located = [sae for file in _candidates(root) if (sae := _locate(root, file, copied(file)))]
    if not located:
        raise TargetError(
            "no SAE weights in this folder",
            where=str(root),
            hint="known: params.npz, cfg.json + sae_weights.safetensors, or a decoder matrix in "
            ".npy, .npz, .safetensors, .pt, .pth",
        )
    beside = _matrices_beside_saes(located)
    if beside and note:
        names = ", ".join(str(sae.file.relative_to(root)) for sae in beside[:5])
        more = f" and {len(beside) - 5} more" if len(beside) > 5 else ""
        note(f"{root}: passed over as no SAE of their own: {names}{more} (name one to audit it)")
    saes = [sae for sae in located if sae not in beside]
    return sorted(saes, key=lambda sae: natural(sae.name))


def _matrices_beside_saes(located: list[Located]) -> list[Located]:
    """Lone matrices in folders that have an SAE at or below them."""
    around = {folder for sae in located if sae.kind == "sae" for folder in sae.file.parents}
    return [sae for sae in located if sae.kind == "matrix" and sae.file.parent in around]


def _candidates(root: Path) -> list[Path]:
    """What may be weights by its name, and folders that cannot be listed; sorted.

    Hidden files and folders are left out, and links to folders are not followed.
    """
    paths: list[Path] = []
    closed: list[Path] = []
    for folder, folders, names in os.walk(root, onerror=lambda e: closed.append(Path(e.filename))):
        folders[:] = [name for name in folders if not name.startswith(".")]
        visible = [name for name in names if not name.startswith(".")]
        paths += [Path(folder, name) for name in visible if _is_named_as_weights(PurePath(name))]
    return sorted(paths + closed)


def _is_named_as_weights(path: PurePath) -> bool:
    return path.suffix.lower() in READERS and path.name not in SKIPPED


def _locate(root: Path, file: Path, whole: Path | None) -> Located | None:
    """The SAE of a candidate; None for a readable plain file without a decoder.

    Such files (activations, token ids) are no error. Plain files alone are opened for this: the
    names of all others say what they are.
    """
    family = family_of(whole or file)
    contents: Contents | None = None
    kind: Literal["sae", "matrix", "unreadable"] = "sae"
    if family.name == Plain.name:
        try:
            contents = read_tensors(file)
        except AuditError:  # damaged or closed: reported when it is opened
            kind = "unreadable"
        else:
            decoder = decoder_name(contents.tensors)
            if decoder is None:
                return None
            kind = "sae" if is_named_decoder(decoder) else "matrix"
            if len(contents.tensors) > KEPT_TENSORS:
                contents = None
    home = file if whole else Path(family.home(file))
    # A folder inside an SAE's folder, or the file itself where it is the whole target.
    name = home.relative_to(root) if home.is_relative_to(root) else Path()
    return Located("" if name == Path() else name.as_posix(), file, kind, contents)


def read_weights(
    file: Path, contents: Contents | None = None, *, copy_of: Path | None = None
) -> Loaded:
    """Read one SAE.

    Args:
        file: its weight file.
        contents: what the file held when it was listed; it is opened again where it has changed.
        copy_of: where the file lies, or would, of which this one holds a part: the family and the
            configuration are those of its place.

    Raises:
        WeightsError: not weights, damaged, refused, or of shapes that contradict each other.
    """
    try:
        if file.is_dir():
            raise WeightsError("a folder that cannot be listed", where=str(file))
        if contents is None or not contents.is_of(file):
            contents = read_tensors(file)
        place = copy_of or file
        loaded = family_of(place).read(place, contents)
        return loaded._replace(files=(file, *loaded.files[1:]))
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    except MemoryError as error:
        raise WeightsError("does not fit into memory", where=str(file)) from error


def check_header(file: Path) -> None:
    """See from a file's header that it is whole and may hold an SAE; no tensor is loaded.

    Raises:
        WeightsError: not weights, damaged or truncated, or a plain file without a decoder.
    """
    if file.is_dir():
        raise WeightsError("a folder that cannot be listed", where=str(file))
    contents = read_tensors(file)
    if family_of(file).name == Plain.name:
        obvious_decoder(contents.tensors, str(file))


def natural(text: str) -> list[tuple[int, int, str]]:
    """Sort key with numbers in numeric order: layer_2 before layer_10."""
    return [
        (0, int(part), "") if part.isdecimal() and len(part) < 4000 else (1, 0, part)
        for part in re.split(r"(\d+)", text)
        if part
    ]
