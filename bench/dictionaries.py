"""The dictionaries that scans are timed on: made of a seed, the same on every machine."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def clustered(count: int, width: int, device: str = "cpu") -> Tensor:
    """Features share directions; some are planted twins and triples."""
    options = _seeded(device)
    rows = torch.randn(count, width, **options)
    centres = torch.randn(count // 16, width, **options)
    shared = torch.randint(0, len(centres), (count,), **options)
    rows += 1.2 * torch.rand(count, 1, **options) * centres[shared]
    rows += 0.15 * torch.randn(1, width, **options)
    rows /= rows.norm(dim=1, keepdim=True)
    n = planted(count)
    noise = torch.randn(2 * n, width, **options) / width**0.5
    rows[-n:] = rows[:n] + 0.2 * noise[:n]
    rows[-2 * n : -n] = rows[n : 2 * n] - 0.7 * rows[2 * n : 3 * n] + 0.1 * noise[n:]
    return rows.contiguous()


def planted(count: int) -> int:
    """Twins, and triples, that `clustered` plants."""
    return count // 1000


def gaussian(count: int, width: int, device: str = "cpu") -> Tensor:
    """Independent rows: hundreds of partners of each lie just below its nearest."""
    return torch.randn(count, width, **_seeded(device))


def separated(count: int, width: int, device: str = "cpu") -> Tensor:
    """Each row has one partner far above the bulk."""
    options = _seeded(device)
    rows = torch.randn(count, width, **options)
    rows[1::2] = rows[: 2 * (count // 2) : 2] + 0.6 * rows[1::2]
    return rows


def copies(count: int, width: int, device: str = "cpu") -> Tensor:
    """One row in ten is nearly a copy of another."""
    options = _seeded(device)
    rows = torch.randn(count, width, **options)
    n = count // 10
    rows[-n:] = rows[:n] + 0.05 * torch.randn(n, width, **options)
    return rows


def sample(count: int, width: int, device: str = "cpu") -> Tensor:
    """The bundled dictionary, and turned by random rotations as often as it takes; of its width."""
    import saeaudit

    dictionary = saeaudit.open("sample")
    rows = dictionary.weights.decoder[dictionary.live()].to(torch.float32)
    options = _seeded("cpu")
    parts, made = [rows], len(rows)
    while made < count:
        square = torch.randn(rows.shape[1], rows.shape[1], **options)
        parts.append(rows @ torch.linalg.qr(square).Q)
        made += len(rows)
    return torch.cat(parts)[:count].to(device).contiguous()


def _seeded(device: str) -> dict[str, object]:
    return {"generator": torch.Generator(device).manual_seed(0), "device": device}


DICTIONARIES: dict[str, Callable[..., Tensor]] = {
    "sample": sample,
    "clustered": clustered,
    "random": gaussian,
    "separated": separated,
    "copies": copies,
}
