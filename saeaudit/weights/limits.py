"""What opening one file of weights may take, whatever the file claims."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """One budget for every format; real files stay far below it."""

    tensors: int = 10_000
    """Named tensors in a file, and members of an archive."""
    name: int = 1_000
    """Characters of a tensor's name."""
    header: int = 16 << 20
    """Bytes of a header, and of the pickle that describes a state dictionary."""
    directory: int = 4 << 20
    """Bytes of an archive's list of members, which zipfile turns into twenty times as many."""
    steps: int = 500_000
    """Instructions of a pickle, and entries of its dictionaries, counted each time they occur."""
    inflated: int = 1 << 30
    """Compressed members of a file may unpack to this much together, whatever the file's size."""
    ratio: int = 50
    """Beyond `inflated`, the largest ratio of unpacked bytes to the file's that is believed."""


LIMITS = Limits()
