"""How far two explanations disagree, and what such a figure means.

A raw cosine of two texts says nothing. So every figure comes with its percentile among random
pairs of features of the same SAE and explainer, and, where features have two explanations, with
how far an explainer disagrees with another about one and the same feature, and how surely the
similarity tells such pairs from explanations of different features.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from saeaudit.audit.similarity import make_similar
from saeaudit.core.calibration import mid_ranks, separation
from saeaudit.records import Estimate
from saeaudit.sources.explanations import Explanations
from saeaudit.vocabulary import Similarity

RANDOM_PAIRS = 4000
"""Random pairs of features that figures are compared with."""
LEAST_LABELS = 20
"""With fewer labels, or features of two explanations, there is nothing to calibrate by."""
SEPARATED = 500
"""Most features of two explanations by which the similarity is judged."""
OTHERS = 20
"""Explanations of other features that each of them is compared with."""


class Disagreement:
    """1 - similarity of two features' explanations, calibrated once."""

    def __init__(
        self, explanations: Explanations, live: Sequence[int], *, method: Similarity = "auto",
        model: str | None = None, offline: bool = False,
    ) -> None:  # fmt: skip
        """Make all texts comparable and calibrate.

        Args:
            explanations: cleaned ones.
            live: features that coverage is a share of.
            method: see `make_similar`.
            model: a name on the hub, or a folder; the method's usual one where None.
            offline: load the model only from this machine.

        Raises:
            AuditError: the method asked for is not to be had.
        """
        self.explanations = explanations
        labels = explanations.labels
        self.coverage = sum(i in labels for i in live) / max(len(live), 1)
        firsts = list(labels)
        texts = [labels[i] for i in firsts] + [pair[1] for pair in explanations.second.values()]
        self.method, self._similar = make_similar(texts, method, model, offline)
        blank = self._similar.blank
        self.place = {feature: n for n, feature in enumerate(firsts) if not blank[n]}
        """Number of the text of each feature whose label can be compared."""
        pairs = [
            (self.place[feature], second)
            for second, feature in enumerate(explanations.second, len(firsts))
            if feature in self.place and not blank[second]
        ]
        self.random = self._sorted(self._random_pairs())
        self.self_ = self._sorted(pairs)
        self.separation = self._separation(pairs)
        self.calibrated_by: Literal["self", "random"] = "random"
        self.level: float | None = None
        """Disagreement beyond which labels differ; None where too few can be compared."""
        if len(self.self_) >= LEAST_LABELS:
            self.calibrated_by = "self"
            self.level = float(self.self_[int(0.95 * (len(self.self_) - 1))])
        elif len(self.place) >= LEAST_LABELS:
            self.level = float(self.random[len(self.random) // 2])

    def _random_pairs(self) -> list[tuple[int, int]]:
        places, draw = list(self.place.values()), random.Random(0)
        if len(places) < 2:
            return []
        drawn = (draw.sample(places, 2) for _ in range(RANDOM_PAIRS))
        return [(first, second) for first, second in drawn]

    def _sorted(self, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """Disagreements of pairs of texts, ascending."""
        firsts, seconds = [first for first, _ in pairs], [second for _, second in pairs]
        return self.between(firsts, seconds).sort().values

    def _separation(self, pairs: Sequence[tuple[int, int]]) -> Estimate | None:
        """How surely a feature's two texts are told from one each of two features."""
        if len(pairs) < LEAST_LABELS:
            return None
        drawn = random.Random(0).sample(pairs, min(SEPARATED, len(pairs)))  # in random order
        firsts, seconds = [first for first, _ in drawn], [second for _, second in drawn]
        same = self._similar.pairs(firsts, seconds)
        others = [
            self._similar.pairs(firsts, [*seconds[shift:], *seconds[:shift]])
            for shift in range(1, min(OTHERS + 1, len(drawn)))
        ]
        return Estimate(*separation(same, torch.stack(others, dim=1)))

    @property
    def undecidable(self) -> str | None:
        """Why no labels can be said to differ, and what to do; None where they can."""
        if self.level is None:
            return f"{len(self.place)} labels can be compared, fewer than {LEAST_LABELS}"
        if self.level < float(self.random[-1]):
            return None
        pairs = "5 % of the pairs of texts on one feature"
        if self.calibrated_by == "random":
            pairs = "half of the random pairs of labels"
        return (
            f"{pairs} differ by {self.level:.2f}, and by {self.method} no labels differ more; "
            "pip install 'saeaudit[semantic]', then --similarity semantic"
        )

    def text(self, feature: int) -> str | None:
        """A feature's explanation."""
        explanation = self.explanations.labels.get(feature)
        return explanation.description if explanation else None

    def between(self, first: Sequence[int], second: Sequence[int]) -> Tensor:
        """Disagreement of each pair of texts that can be compared, ``[n]`` float64."""
        return 1 - self._similar.pairs(first, second)

    def of(self, leaving: Sequence[int], entering: Sequence[int]) -> list[float | None]:
        """Disagreement of each pair of features; None where one has no label to compare."""
        place = self.place
        pairs = list(zip(leaving, entering, strict=True))
        known = [n for n, pair in enumerate(pairs) if pair[0] in place and pair[1] in place]
        compared = self.between(
            [place[leaving[n]] for n in known], [place[entering[n]] for n in known]
        )
        disagreements: list[float | None] = [None] * len(pairs)
        for n, disagreement in zip(known, compared.tolist(), strict=True):
            disagreements[n] = disagreement
        return disagreements

    def percentile(self, disagreement: float) -> float | None:
        """Share of random pairs that disagree less than this, ties counted half."""
        if not len(self.random):
            return None
        return float(mid_ranks(self.random, self.random.new_tensor([disagreement])))
