"""A fixed rotation that leaves no entry of a row outstanding, so that 8 bits do."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Rotation:
    """A fixed orthogonal map of R^d into R^d', d' = p q >= d, as two small matrix products.

    A vector is padded to p q entries, laid out as p x q and multiplied by a seeded random
    orthogonal matrix on either side, at a cost of d'(p + q) multiply-adds. Cosines do not change.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.source_width = width
        self.p, self.q = _factors(width)
        self.width = self.p * self.q
        generator = torch.Generator().manual_seed(20_000 + width)
        self._left = _orthogonal(self.p, generator).to(device)
        self._right = _orthogonal(self.q, generator).to(device)

    def __call__(self, rows: Tensor) -> Tensor:
        """Rotate rows ``[m, d]`` float32 to ``[m, d']`` float32."""
        if self.width != self.source_width:
            rows = torch.nn.functional.pad(rows, (0, self.width - self.source_width))
        grid = rows.reshape(-1, self.q) @ self._right
        turned = torch.matmul(self._left, grid.view(-1, self.p, self.q))
        return turned.view(-1, self.width)


def _orthogonal(size: int, generator: torch.Generator) -> Tensor:
    gaussian = torch.randn(size, size, dtype=torch.float64, generator=generator)
    orthogonal: Tensor = torch.linalg.qr(gaussian)[0]
    return orthogonal.to(torch.float32)


def _factors(width: int) -> tuple[int, int]:
    """Factor the least d' >= width, a multiple of 16, as p x q with q <= 2 p, as square as can be.

    Example: ``_factors(2304)`` is ``(48, 48)``.
    """
    padded = -(-width // 16) * 16
    while True:
        for p in range(math.isqrt(padded), 0, -1):
            if padded % p == 0:
                q = padded // p
                if q <= 2 * p or padded <= 64:
                    return p, q
                break
        padded += 16
