"""What every generator shares; runs in a library's own environment, with torch and numpy alone.

A generator makes tiny SAEs with a library, trains them a few steps so that no parameter keeps its
initial value, saves each the library's own way, and asks the library for the codes and the
reconstruction of the same activations. Codes are in the scale of the decoder rows that the file
holds: where a library reports them times the rows' norms they are divided by these.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

D, F, K, N = 16, 48, 5, 96
torch.set_num_threads(1)  # tiny matrices on busy machines


def activations(width: int = D, seed: int = 1) -> Tensor:
    """Activations ``[N, width]`` float32 with a mean and a scale that are not those of noise."""
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator) / width**0.5
    offset = torch.randn(width, generator=generator)
    return 2 * torch.randn(N, width, generator=generator) @ mixing + offset


def train(module: nn.Module, loss: Callable[[Tensor], Tensor], steps: int = 8) -> None:
    """A few steps of Adam, then noise on every parameter that no gradient has reached."""
    start = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimiser = torch.optim.Adam(module.parameters(), lr=0.02)
    for step in range(steps):
        optimiser.zero_grad()
        loss(activations(seed=step + 10)).backward()
        optimiser.step()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            still = parameter == start[name]
            noise = torch.randn(parameter.shape, generator=generator).to(parameter)
            if "threshold" in name:
                noise = noise.abs() * 0.5 + 0.05
            parameter.add_(torch.where(still, 0.3 * noise, torch.zeros_like(noise)))
    module.requires_grad_(False)


class Cases:
    """Writes ``cases.jsonl``, a line a case, and the expected figures under ``expected/``."""

    def __init__(self, library: str) -> None:
        """Start a folder, named by the command's only argument."""
        self.root = Path(sys.argv[1])
        self.library = library
        (self.root / "expected").mkdir(parents=True)
        self.lines = (self.root / "cases.jsonl").open("w", encoding="utf-8")

    def folder(self, name: str) -> Path:
        """An empty folder for one SAE."""
        folder = self.root / name.replace(" ", "_")
        folder.mkdir(parents=True)
        return folder

    def add(
        self,
        name: str,
        file: Path,
        decoder: Tensor,
        *,
        x: Tensor | None = None,
        codes: Tensor | None = None,
        decoded: Tensor | None = None,
        encoder: Tensor | None = None,
        **options: Any,
    ) -> None:
        """Record one SAE.

        Args:
            name: what is special about it.
            file: what to open.
            decoder: ``[F, d]``, the rows that the library decodes with.
            x: activations ``[N, d_in]``.
            codes: the library's own codes of them ``[N, F]``; None where it has none.
            decoded: what the library decodes them to ``[N, d]``.
            encoder: ``[d_in, F]``, where the library has one.
            options: for the table.
        """
        arrays = {"decoder": decoder, "x": x, "codes": codes, "decoded": decoded,
                  "encoder": encoder}  # fmt: skip
        expected = self.root / "expected" / f"{name.replace(' ', '_')}.npz"
        kept = {key: a.detach().double().numpy() for key, a in arrays.items() if a is not None}
        np.savez(expected, **kept)
        line = {
            "library": self.library,
            "name": name,
            "file": file.relative_to(self.root).as_posix(),
            "expected": expected.relative_to(self.root).as_posix(),
            "options": options,
        }
        self.lines.write(json.dumps(line) + "\n")
        self.lines.flush()
