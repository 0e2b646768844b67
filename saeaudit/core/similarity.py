"""Similarity of texts: cosines of embeddings, or of TF-IDF vectors where there are none."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

BOILERPLATE = re.compile(
    r"\b(references?|instances?|occurrences?|mentions?|words?|phrases?|tokens?|terms?|text|"
    r"related|relating|pertaining|indicating|associated|specific|various|particular)"
    r"( (to|of|with))?\b"
)
"""What explanations of everything share: it would make unlike ones look alike."""
WORD = re.compile(r"\w+|[^\w\s]")


class Embedded:
    """Cosines of embeddings."""

    def __init__(self, vectors: Tensor) -> None:
        """Take embeddings ``[n, e]``; they need not be normalised."""
        self._vectors = torch.nn.functional.normalize(vectors.to(torch.float64), dim=1)

    def pairs(self, first: Sequence[int], second: Sequence[int]) -> list[float]:
        """Similarity of each pair of texts, by their numbers."""
        a, b = self._vectors[list(first)], self._vectors[list(second)]
        cosines: list[float] = (a * b).sum(1).tolist()
        return cosines


class TfIdf:
    """Cosines of TF-IDF vectors (log counts, smoothed inverse document frequency)."""

    def __init__(self, texts: Sequence[str]) -> None:
        """Take texts; their words' document frequencies are counted over them."""
        counts = [Counter(words(text)) for text in texts]
        documents = Counter(word for count in counts for word in count)
        self._vectors = []
        for count in counts:
            vector = {
                word: (1 + math.log(n)) * (1 + math.log((1 + len(texts)) / (1 + documents[word])))
                for word, n in count.items()
            }
            norm = math.sqrt(sum(v * v for v in vector.values())) or 1.0
            self._vectors.append({word: v / norm for word, v in vector.items()})

    def pairs(self, first: Sequence[int], second: Sequence[int]) -> list[float]:
        """Similarity of each pair of texts, by their numbers."""
        out = []
        for i, j in zip(first, second, strict=True):
            shorter, longer = sorted((self._vectors[i], self._vectors[j]), key=len)
            out.append(sum(v * longer.get(word, 0.0) for word, v in shorter.items()))
        return out


def words(text: str) -> list[str]:
    """Words and single signs of a text in lower case, without what all explanations share.

    A text of nothing else keeps it. Example: ``words("References to cats.")`` is ["cats", "."].
    """
    text = text.lower()
    return WORD.findall(BOILERPLATE.sub(" ", text)) or WORD.findall(text)
