"""How far two explanations disagree, and what such a figure means.

A raw cosine of two texts says nothing. So every figure comes with its percentile among random
pairs of features of the same SAE and explainer, and, where features have two explanations, with
how far an explainer disagrees with another about one and the same feature.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from typing import Protocol

import torch

from saeaudit.core.similarity import Embedded, TfIdf
from saeaudit.errors import AuditError
from saeaudit.sources.explanations import Explanations
from saeaudit.sources.http import untracked
from saeaudit.sources.neuronpedia import Explanation
from saeaudit.vocabulary import SIMILARITY_MODEL, Similarity

RANDOM_PAIRS = 4000
"""Random pairs of features that figures are compared with."""
SELF_PAIRS = 20
"""With at least so many features of two explanations, these calibrate; else random pairs do."""


class _Similar(Protocol):
    def pairs(self, first: Sequence[int], second: Sequence[int]) -> list[float]: ...


class Disagreement:
    """1 - similarity of two features' explanations, calibrated once."""

    def __init__(
        self, explanations: Explanations, live: Sequence[int], *, method: Similarity = "auto",
        model: str = SIMILARITY_MODEL, offline: bool = False,
    ) -> None:  # fmt: skip
        """Embed all texts and calibrate.

        Args:
            explanations: cleaned ones.
            live: features that coverage is a share of.
            method: "auto" takes sentence embeddings where sentence-transformers is installed
                and the model is on this machine, else the export's own embeddings, else TF-IDF.
            model: a sentence-transformers model: a name on the hub, or a folder.
            offline: load the model only from this machine.

        Raises:
            AuditError: the method asked for is not to be had.
        """
        self.explanations = explanations
        labels = explanations.labels
        self.coverage = sum(i in labels for i in live) / max(len(live), 1)
        firsts = list(labels)
        texts = [labels[i] for i in firsts] + [pair[1] for pair in explanations.second.values()]
        self._place = {feature: place for place, feature in enumerate(firsts)}
        self.method, self._similar = _similar(texts, method, model, offline)
        self.random = self._random_pairs(len(firsts))
        seconds = range(len(firsts), len(texts))
        ones = [self._place[i] for i in explanations.second]
        self.self_ = sorted(1 - s for s in self._similar.pairs(ones, list(seconds)))
        if len(self.self_) >= SELF_PAIRS:
            self.calibrated_by = "self"
            self.level = self.self_[int(0.95 * (len(self.self_) - 1))]
        else:
            self.calibrated_by = "random"
            self.level = self.random[len(self.random) // 2] if self.random else 1.0

    def _random_pairs(self, count: int) -> list[float]:
        if count < 2:
            return []
        draw = random.Random(0)
        pairs = [draw.sample(range(count), 2) for _ in range(RANDOM_PAIRS)]
        return sorted(1 - s for s in self._similar.pairs(*zip(*pairs, strict=True)))

    def text(self, feature: int) -> str | None:
        """A feature's explanation."""
        explanation = self.explanations.labels.get(feature)
        return explanation.description if explanation else None

    def of(self, leaving: Sequence[int], entering: Sequence[int]) -> list[float | None]:
        """Disagreement of each pair of features; None where one of them has no explanation."""
        known = [
            n for n, pair in enumerate(zip(leaving, entering, strict=True))
            if pair[0] in self._place and pair[1] in self._place
        ]  # fmt: skip
        similarities = self._similar.pairs(
            [self._place[leaving[n]] for n in known], [self._place[entering[n]] for n in known]
        )
        disagreements: list[float | None] = [None] * len(leaving)
        for n, similarity in zip(known, similarities, strict=True):
            disagreements[n] = 1 - similarity
        return disagreements

    def percentile(self, disagreement: float) -> float | None:
        """Share of random pairs that disagree no more than this."""
        if not self.random:
            return None
        return bisect_right(self.random, disagreement) / len(self.random)


def _similar(
    texts: Sequence[Explanation], method: Similarity, model: str, offline: bool
) -> tuple[str, _Similar]:
    descriptions = [text.description for text in texts]
    if method in ("auto", "semantic"):
        try:
            local = offline or method == "auto"
            return f"semantic:{model}", Embedded(_sentences(descriptions, model, local))
        except ImportError as error:
            if method == "semantic":
                raise AuditError(
                    "sentence-transformers is not installed",
                    where="--similarity semantic",
                    hint="pip install 'saeaudit[semantic]'",
                ) from error
        except (OSError, ValueError) as error:
            if method == "semantic":
                line = str(error).strip().split("\n")[0]
                raise AuditError(
                    f"cannot load {model}: {line}", where="--similarity semantic"
                ) from error
    embeddings = [text.embedding for text in texts if text.embedding]
    if method in ("auto", "export") and len(embeddings) == len(texts):
        if len(set(map(len, embeddings))) == 1:
            return "export", Embedded(torch.tensor(embeddings, dtype=torch.float64))
    if method == "export":
        raise AuditError(
            "not every explanation has an embedding of the same length",
            where="--similarity export",
            hint="--similarity tfidf",
        )
    return "tfidf", TfIdf(descriptions)


def _sentences(texts: list[str], model: str, offline: bool) -> torch.Tensor:
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would write over ours

    with untracked():
        loaded = SentenceTransformer(model, device="cpu", local_files_only=offline)
    vectors = loaded.encode(texts, convert_to_tensor=True, show_progress_bar=False, batch_size=128)
    return torch.as_tensor(vectors).to(torch.float64).cpu()
