"""Hashes of files, as the hub lists them and records give them."""

from __future__ import annotations

import hashlib
from pathlib import Path


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a whole file.

    Raises:
        OSError: it cannot be read.
    """
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def git_sha1_of(path: Path) -> str:
    """Hexadecimal name that git gives a file's content: SHA-1 of its size and its bytes.

    Raises:
        OSError: it cannot be read.
    """
    header = b"blob %d\0" % path.stat().st_size
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, lambda: hashlib.sha1(header, usedforsecurity=False))
    return digest.hexdigest()
