"""Small files that commands are given."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def save(folder: Path, name: str, array: np.ndarray) -> Path:
    np.save(folder / name, array)
    return folder / name


def sae(folder: Path, decoder: np.ndarray) -> Path:
    """A JumpReLU SAE in Gemma Scope's layout."""
    count, width = decoder.shape
    np.savez(
        folder / "params.npz",
        W_dec=decoder.astype(np.float32),
        W_enc=np.linalg.pinv(decoder).astype(np.float32),
        b_enc=np.zeros(count, np.float32),
        b_dec=np.zeros(width, np.float32),
        threshold=np.full(count, 0.01, np.float32),
    )
    return folder / "params.npz"
