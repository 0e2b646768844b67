"""The one grammar of targets: what a user types, resolved to files on this machine."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from saeaudit.errors import TargetError
from saeaudit.sample import SAMPLES, sample_root
from saeaudit.weights.interface import find_weights, natural


@dataclass(frozen=True)
class Local:
    """One SAE on this machine."""

    sae: str
    """Its id as the user can type it."""
    file: Path
    """Its weight file."""
    base: Path | None = None
    """Records give file names relative to this folder; as they are where it is None."""

    def shown(self, file: Path) -> str:
        """Name of a file for records: the same on every machine for the bundled samples."""
        return file.relative_to(self.base).as_posix() if self.base else str(file)


def resolve(target: str, globs: Sequence[str] = ()) -> list[Local]:
    """Resolve a target to the SAEs it names, in natural order of id.

    Args:
        target: a weight file, an SAE's folder, a folder of such folders, or a bundled sample.
        globs: keep only SAEs whose id, below the target, matches one of these patterns.

    Raises:
        TargetError: nothing there, or nothing that matches.
    """
    if target in SAMPLES:
        base = sample_root()
        found = [Local(target, base / SAMPLES[target], base)]
    else:
        path = Path(target)
        if not path.exists():
            raise TargetError("no such file or folder", where=target, hint=_nearest(target, path))
        below = find_weights(path)
        root = target.rstrip("/") or "/"
        found = [
            Local(f"{root}/{name}" if name else target, file)
            for name, file in below
            if _matches(name or path.name, globs)
        ]
        if not found:
            names = ", ".join(name or path.name for name, _ in below[:5])
            raise TargetError(
                f"no SAE here matches --sae {' '.join(globs)}",
                where=target,
                hint=f"there are {len(below)}: {names}{' …' if len(below) > 5 else ''}",
            )
    return sorted(found, key=lambda local: natural(local.sae))


def _matches(name: str, globs: Sequence[str]) -> bool:
    return not globs or any(fnmatch.fnmatchcase(name, glob) for glob in globs)


def _nearest(target: str, path: Path) -> str:
    names = list(SAMPLES)
    parent = path.parent
    if parent.is_dir():
        names += [str(parent / p.name) if str(parent) != "." else p.name for p in parent.iterdir()]
    close = difflib.get_close_matches(target, names, n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""
