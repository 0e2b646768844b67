"""Cosines of encoder directions: the decoder alone does not make two features interchangeable."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.rows import fold, round9, spans
from saeaudit.dictionary import Dictionary


def encoder_cosines(dictionary: Dictionary, i: Tensor, j: Tensor) -> list[float | None]:
    """Cosines of encoder directions (columns of W_enc) of pairs of features, None if undefined."""
    if dictionary.encoder is None or not len(i):
        return [None] * len(i)
    used, back = torch.unique(torch.cat([i, j]), return_inverse=True)
    directions = dictionary.encoder[:, used].T.contiguous()
    a, b = back[: len(i)], back[len(i) :]
    cosines: list[float | None] = []
    for start, stop in spans(len(i), 256):
        x, y = directions[a[start:stop]].double(), directions[b[start:stop]].double()
        norms = fold(x * x).sqrt() * fold(y * y).sqrt()
        cosine = round9((fold(x * y) / norms).clamp(-1, 1))
        cosines += [float(c) if c == c else None for c in cosine.tolist()]
    return cosines
