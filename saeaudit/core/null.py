"""What a control is made of: rows and activations with the same second moments, and no more."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.rows import spans

BLOCK = 4096
"""Activations rotated at once."""


def random_rows(units: Tensor, count: int, seed: int) -> Tensor:
    """Draw directions like those of a decoder, but independent of each other.

    Rows of N(0, M) are divided by their norms, with M = U'U/n the second moment of the n unit rows
    U: where these prefer a subspace or share a direction, so do the random ones. By the division
    their second moment is a little flatter than M; with one eigenvalue of M it is M.

    Args:
        units: ``[n, d]`` float64 unit rows.
        count: how many to draw.
        seed: of the draw.

    Returns:
        ``[count, d]`` float64 unit rows.
    """
    generator = torch.Generator().manual_seed(seed)
    values, axes = torch.linalg.eigh(units.T @ units / len(units))
    # The symmetric root does not depend on the signs of the axes, which are the library's choice.
    root = (axes * values.clamp(min=0).sqrt()) @ axes.T
    normal = torch.randn(count, units.shape[1], generator=generator, dtype=torch.float64)
    rows: Tensor = torch.nn.functional.normalize(normal @ root, dim=1)
    return rows


def permuted_along_axes(activations: Tensor, kept: Tensor, seed: int) -> Tensor:
    """Permute activations between tokens, along each of their principal axes by itself.

    Mean and marginal of every axis stay what they are, and so does the covariance but for the
    chance correlations of permuted coordinates, about 1/sqrt(m). What goes is everything that
    coordinates have to do with each other beyond that: which of them are large together.

    Permuting the coordinates as they are stored instead would flatten the spectrum as well, and
    show no more than that a decoder fits its data's covariance.

    Args:
        activations: ``[N, d]`` of any float dtype, all finite where kept.
        kept: ``[m]`` int64: which of them; others stay as they are.
        seed: of the permutations.

    Returns:
        ``[N, d]``, float32 or the activations' dtype where that is finer.
    """
    generator = torch.Generator().manual_seed(seed)
    width = activations.shape[1]
    total = torch.zeros(width, dtype=torch.float64)
    moment = torch.zeros(width, width, dtype=torch.float64)
    blocks = [kept[start:stop] for start, stop in spans(len(kept), BLOCK)]
    for block in blocks:
        total += activations[block].to(torch.float64).sum(0)
    mean = total / len(kept)
    for block in blocks:
        centred = activations[block].to(torch.float64) - mean
        moment += centred.T @ centred
    axes = torch.linalg.eigh(moment).eigenvectors
    out = activations.to(torch.promote_types(activations.dtype, torch.float32), copy=True)
    for block in blocks:
        out[block] = ((activations[block].to(torch.float64) - mean) @ axes).to(out.dtype)
    for axis in range(width):
        order = torch.randperm(len(kept), generator=generator)
        out[kept, axis] = out[kept[order], axis]
    for block in blocks:
        out[block] = (out[block].to(torch.float64) @ axes.T + mean).to(out.dtype)
    return out
