"""Sums over tokens, and the summary they make."""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.records import (
    MOVED,
    EncoderSummary,
    Involved,
    MediatorsSummary,
    Mode,
    MovedShare,
    NonUnique,
)

INVOLVED = 20
"""Most exchanges in the summary."""


class Compared(NamedTuple):
    """One encoder's codes for some tokens, each ``[B]``."""

    l0: Tensor
    """Active features."""
    error: Tensor
    """Squared error."""
    refit: Tensor
    """Squared error of least squares on the same support."""
    agreement: Tensor
    """Jaccard index of its support and the SAE's own."""
    better: Tensor
    """Whether its error is less than that of the SAE's own codes."""


class Tally:
    """Adds up tokens."""

    def __init__(self, sae: str, epsilons: tuple[float, ...], examples: int) -> None:
        self._sae, self._epsilons, self._examples = sae, epsilons, examples
        self._tokens = 0
        self._sum: Tensor | None = None
        self._squares = 0.0
        self._modes: dict[Mode, dict[str, Tensor]] = {}
        self._encoders: dict[str, dict[str, float]] = {}
        self._involved: Counter[tuple[int, int]] = Counter()
        self._gap = 0.0
        self._gaps = 0

    def activations(self, x: Tensor) -> None:
        """Take activations ``[m, d]``, for their variance."""
        x = x.to(torch.float64)
        self._tokens += len(x)
        self._squares += float(x.square().sum())
        self._sum = x.sum(0) if self._sum is None else self._sum + x.sum(0)

    def alternatives(
        self, mode: Mode, count: Tensor, unsigned: Tensor, passing: Tensor, moved: Tensor,
        sizes: Tensor | None,
    ) -> None:  # fmt: skip
        """Take ``[B, E]`` counts, ``[B, E, k]`` passing features and ``[B, k]`` shares moved.

        `sizes` ``[B]`` replaces log2(1 + count) at the least tolerance, where given.
        """
        share = torch.where(passing, moved[:, None, :], -1.0)
        largest = (
            share.amax(2) if share.shape[2] else torch.full_like(count, -1.0, dtype=moved.dtype)
        )
        steps = torch.tensor(MOVED, dtype=largest.dtype, device=largest.device)
        log2 = torch.log2(1 + count.to(torch.float64))
        if sizes is not None:
            log2[:, 0] = sizes
        new = {
            "any": (count > 0).sum(0),
            "unsigned": (unsigned > 0).sum(0),
            "moved": (largest[:, :, None] >= steps).sum(0),
            "count": count.sum(0).to(torch.float64),
            "log2": log2.sum(0),
        }
        old = self._modes.get(mode)
        self._modes[mode] = {k: v + old[k] for k, v in new.items()} if old else new

    def compared(self, name: str, codes: Compared) -> None:
        """Take one encoder's codes for some tokens."""
        sums = self._encoders.setdefault(name, dict.fromkeys(Compared._fields, 0.0))
        for key, value in codes._asdict().items():
            sums[key] += float(value.sum())
        if name == "encoder":
            some = codes.error > 0
            self._gap += float((codes.refit[some] / codes.error[some]).sum())
            self._gaps += int(some.sum())

    def involve(self, removed: list[int], added: list[int]) -> None:
        """Take the best exchanges of some tokens."""
        self._involved.update(zip(removed, added, strict=True))

    def summary(self) -> MediatorsSummary:
        """Return the summary of everything taken."""
        n = self._tokens
        variance = self._squares
        if self._sum is not None:
            variance -= float(self._sum.square().sum()) / n
        encoders = tuple(
            EncoderSummary(
                name=name,
                mean_l0=sums["l0"] / n,
                fvu=sums["error"] / variance if variance > 0 else 0.0,
                fvu_refit=sums["refit"] / variance if variance > 0 else 0.0,
                support_agreement=sums["agreement"] / n,
                more_accurate=sums["better"] / n,
            )
            for name, sums in sorted(self._encoders.items(), key=lambda item: item[0] != "encoder")
        )
        own = encoders[0] if encoders else None
        ordered = sorted(self._involved.items(), key=lambda item: (-item[1], item[0]))
        return MediatorsSummary(
            sae=self._sae,
            tokens=n,
            exchanges=self._examples,
            mean_l0=own.mean_l0 if own else None,
            fvu_encoder=own.fvu if own else None,
            fvu_refit=own.fvu_refit if own else None,
            refit_gap=self._gap / self._gaps if self._gaps else None,
            non_unique=tuple(
                NonUnique(
                    mode=mode,
                    epsilon=epsilon,
                    non_unique_fraction=float(sums["any"][e]) / n,
                    by_moved=tuple(
                        MovedShare(least, float(sums["moved"][e, m]) / n)
                        for m, least in enumerate(MOVED)
                    ),
                    unsigned_fraction=float(sums["unsigned"][e]) / n,
                    mean_alternatives=float(sums["count"][e]) / n,
                    mean_log2_size=float(sums["log2"][e]) / n,
                )
                for mode, sums in self._modes.items()
                for e, epsilon in enumerate(self._epsilons)
            ),
            most_involved=tuple(Involved(*pair, count) for pair, count in ordered[:INVOLVED]),
            encoders=encoders,
        )
