"""On how many choices the labels of exchangeable features disagree, and on how many by chance.

The null is the same statistic with the labels permuted among features of like firing rate: what a
set of labels of these lengths and topics shows when it has nothing to do with the features.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.disagreement import Disagreement
from saeaudit.audit.score.choose import Exchanges
from saeaudit.core.calibration import interval, like_permutations, resampled_sums
from saeaudit.records import MOVED, Estimate, IncoherentShare

PERMUTATIONS = 20
"""Permutations of the labels that make up the null."""
LIKE = 50
"""Features of like firing rate among which labels are permuted: at least so many."""
LEAST_CHOICES = 20
"""With fewer choices there is no share to speak of."""


class Incoherence(NamedTuple):
    """Shares at each least share of the code that changes hands, or why there are none."""

    shares: tuple[IncoherentShare, ...]
    """The first where any share counts, then by `MOVED`; empty where there are none."""
    unavailable: str | None


class Labels(NamedTuple):
    """Labels of live features, as they are and permuted."""

    explained: Disagreement
    """Compared and calibrated texts."""
    number: dict[int, int]
    """Column of each labelled feature."""
    texts: Tensor
    """``[1 + PERMUTATIONS, n]`` int64 texts of n labelled features: as they are, and permuted."""


def permute_labels(
    explained: Disagreement, rates: Mapping[int, float], *, shuffled: bool = False
) -> Labels:
    """Permute labels among features of like firing rate, always in the same ways.

    Args:
        explained: compared and calibrated texts.
        rates: firing rate of each live feature, in any unit.
        shuffled: whether labels are first dealt out by the first of the permutations.
    """
    features = [feature for feature in explained.place if feature in rates]
    permutations = like_permutations([rates[f] for f in features], LIKE, PERMUTATIONS)
    if shuffled:
        explained = _deal(explained, features, permutations[0].tolist())
    labels = torch.tensor([explained.place[feature] for feature in features])
    number = {feature: n for n, feature in enumerate(features)}
    return Labels(explained, number, torch.cat([labels[None], labels[permutations]]))


def _deal(explained: Disagreement, features: list[int], order: list[int]) -> Disagreement:
    """The same texts on other features: the n-th has those of the one that the order names n-th.

    What the texts are calibrated by stays: what an explainer says of one feature stays together.
    """
    source = {feature: features[n] for feature, n in zip(features, order, strict=True)}
    dealt, labels = copy(explained), explained.explanations.labels
    dealt.place = {f: explained.place[source.get(f, f)] for f in explained.place}
    dealt.explanations = replace(
        explained.explanations, labels={f: labels[source.get(f, f)] for f in labels}
    )
    return dealt


class IncoherenceTally:
    """Adds up choices on which exchangeable features disagree, as labelled and by chance."""

    def __init__(self, labels: Labels) -> None:
        self._explained, self._number, self._texts = labels
        self._most: list[Tensor] = []

    def add(self, cases: int, exchanges: Exchanges) -> None:
        """Add cases with their exchanges; those without a comparable exchange are left out."""
        number, level = self._number, self._explained.level
        known = [
            n
            for n, pair in enumerate(zip(exchanges.leaving, exchanges.entering, strict=True))
            if pair[0] in number and pair[1] in number
        ]
        if not known or level is None or self._explained.undecidable:
            return
        leaving = self._texts[:, [number[exchanges.leaving[n]] for n in known]].tolist()
        entering = self._texts[:, [number[exchanges.entering[n]] for n in known]].tolist()
        disagreements = torch.stack([*map(self._explained.between, leaving, entering)])
        moved = torch.tensor([exchanges.moved[n] for n in known], dtype=torch.float64)
        counted = torch.where(disagreements > level, moved, -1.0)
        case = torch.tensor([exchanges.case[n] for n in known])
        most = torch.full((len(leaving), cases), -torch.inf, dtype=torch.float64)
        most.scatter_reduce_(1, case.expand_as(counted), counted, "amax")
        self._most.append(most[:, most[0] > -torch.inf])

    def figures(self, unique: int) -> Incoherence:
        """The shares of everything added.

        Args:
            unique: choices without an alternative, which cannot be incoherent.
        """
        unavailable = self._explained.undecidable
        compared = sum(most.shape[1] for most in self._most)
        if unavailable is None and compared + unique < LEAST_CHOICES:
            unavailable = f"{compared + unique} choices can be judged, fewer than {LEAST_CHOICES}"
        if unavailable is not None:
            return Incoherence((), unavailable)
        none = torch.full((1 + PERMUTATIONS, unique), -1.0, dtype=torch.float64)
        most = torch.cat([*self._most, none], dim=1).T
        return Incoherence(tuple(_share(most, least) for least in (0.0, *MOVED)), None)


def _share(most: Tensor, least: float) -> IncoherentShare:
    """Share of ``[N, 1 + P]`` choices that exchange at least some share of the code.

    The difference's interval takes choices anew, and with each sample one of the permutations;
    where no choice ever counts there are no data for one.
    """
    incoherent = (most >= least).to(torch.float64)
    share, *chance = incoherent.mean(0).tolist()
    permutations = torch.tensor(chance, dtype=torch.float64)
    mean = float(permutations.mean())
    excess = None
    if incoherent.any():
        means = resampled_sums(incoherent) / len(incoherent)
        sample = torch.arange(len(means))
        differences = means[:, 0] - means[sample, 1 + sample % len(chance)]
        excess = Estimate(share - mean, *interval(differences))
    return IncoherentShare(least, share, Estimate(mean, *interval(permutations)), excess)
