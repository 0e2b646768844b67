"""Hashes that are begun before they are needed."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from saeaudit.audit import open as opening
from saeaudit.cli.console import console
from saeaudit.cli.targets import resolve_targets
from saeaudit.sources.digests import EarlyDigest, sha256_of


def test_an_early_digest_is_of_the_file_as_it_is_when_it_is_taken(tmp_path: Path) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(b"first")
    early = EarlyDigest.begin(file)
    assert early is not None and early.of(file) == hashlib.sha256(b"first").hexdigest()
    file.write_bytes(b"second, and longer")
    assert early.of(file) == sha256_of(file) != early.digest.result()
    other = tmp_path / "b.bin"
    other.write_bytes(b"other")
    assert early.of(other) == sha256_of(other)


def test_only_files_are_hashed_early(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", tmp_path, tmp_path / "gone", Path("/dev/zero")):
        assert EarlyDigest.begin(path) is None


def test_the_first_sae_of_a_command_is_hashed_once_and_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.npy", "b.npy"):
        np.save(tmp_path / name, np.random.default_rng(0).normal(size=(8, 4)))
    first, second = resolve_targets([str(tmp_path)], None, console(quiet=True), offline=True)
    assert first.early is not None and second.early is None
    monkeypatch.setattr(opening, "sha256_of", lambda path: "0" * 64)
    assert opening.open_sae(first).source.files[0].sha256 == sha256_of(tmp_path / "a.npy")
    assert opening.open_sae(second).source.files[0].sha256 == "0" * 64
