"""Activations and codes: matrices that a command is given beside an SAE."""

from __future__ import annotations

import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors.numpy import save

from saeaudit.sources.activations import read_activations
from saeaudit.sources.codes import read_codes
from tests.fuzz.engine import Case
from tests.fuzz.mutate import SIZES, chance
from tests.fuzz.seeds import FEATURES, TOKENS, WIDTH
from tests.fuzz.targets.weights import mutate_safetensors, npy, npz

ODD = (np.nan, np.inf, -np.inf, -1.0, -0.0, 1e308, 5e-324, 3.4e38)


class Activations(NamedTuple):
    """A matrix of activations, all of it read."""

    name: str = "activations"

    def make(self, rng: random.Random) -> Case:
        if chance(rng, 0.2):
            return {"activations.npy": npy(rng)}
        if chance(rng, 0.2):
            return {"activations.npz": npz(rng)}
        matrix = numbers(rng, (TOKENS, WIDTH))
        return {"activations.safetensors": mutate_safetensors(rng, save({"activations": matrix}))}

    def run(self, folder: Path) -> None:
        for place in folder.iterdir():
            read_activations([place], WIDTH).activations[:].isfinite().all()


class Codes(NamedTuple):
    """Another encoder's codes, dense or sparse, all of them read."""

    name: str = "codes"

    def make(self, rng: random.Random) -> Case:
        if chance(rng, 0.3):
            tensors = {"codes": np.abs(numbers(rng, (TOKENS, FEATURES)))}
        else:
            indices = np.array(
                [[rng.choice((-1, *range(FEATURES), *_odd_indices(rng))) for _ in range(3)]
                 for _ in range(TOKENS)]
            )  # fmt: skip
            values = np.abs(numbers(rng, (TOKENS, 3)))
            kind = rng.choice((np.int64, np.int32, np.int16, np.uint8, np.float32))
            tensors = {"indices": indices.astype(kind), "values": values}
        data = save(tensors)
        return {"codes.safetensors": mutate_safetensors(rng, data) if chance(rng, 0.6) else data}

    def run(self, folder: Path) -> None:
        read = read_codes(folder / "codes.safetensors", TOKENS, FEATURES)
        for start in range(0, TOKENS, 16):
            read(torch.arange(start, min(start + 16, TOKENS)))


def _odd_indices(rng: random.Random) -> tuple[int, ...]:
    return (rng.choice((FEATURES, -5, *(n for n in SIZES if n < 1 << 63))),) * chance(rng, 0.02)


def numbers(rng: random.Random, shape: tuple[int, int]) -> np.ndarray:
    """A matrix of floats, seldom one with an odd number in it."""
    matrix = np.array([[rng.gauss(0, 1) for _ in range(shape[1])] for _ in range(shape[0])])
    if chance(rng, 0.2):
        matrix[rng.randrange(shape[0]), rng.randrange(shape[1])] = rng.choice(ODD)
    with np.errstate(over="ignore"):
        return matrix.astype(rng.choice((np.float32, np.float64, np.float16)))


TARGETS = (Activations(), Codes())
