"""What a family of weight files is: which files it claims, and how it reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePath
from typing import NamedTuple, Protocol

from saeaudit.dictionary import Weights
from saeaudit.weights.tensors import Contents


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

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Make weights of what `file` holds, and whatever configuration lies beside it.

        Raises:
            WeightsError: not such weights, or of shapes that contradict each other.
        """
