"""Similarity of texts: cosines of embeddings, or of TF-IDF vectors where there are none."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

BOILERPLATE = re.compile(
    r"\b(references?|instances?|occurrences?|mentions?|words?|phrases?|tokens?|terms?|text|"
    r"related|relating|pertaining|indicating|associated|specific|various|particular)"
    r"( (to|of|with))?\b"
)
"""What explanations of everything share: it would make unlike ones look alike."""
WORD = re.compile(r"\w+")
COMMON = 0.2
"""Words in a greater share of the texts than this do not count: they tell none from another."""


class Similar(Protocol):
    """Similarity of texts, by their numbers."""

    blank: Sequence[bool]
    """Of each text, whether nothing in it can be compared."""

    def pairs(self, first: Sequence[int], second: Sequence[int]) -> Tensor:
        """Similarity of each pair of texts that are not blank, ``[n]`` float64."""
        ...


class Embedded:
    """Cosines of embeddings."""

    def __init__(self, vectors: Tensor) -> None:
        """Take embeddings ``[n, e]``; they need not be normalised. Zeros are blank texts."""
        vectors = vectors.to(torch.float64)
        self.blank: Sequence[bool] = (vectors == 0).all(1).tolist()
        self._vectors = torch.nn.functional.normalize(vectors, dim=1)

    def pairs(self, first: Sequence[int], second: Sequence[int]) -> Tensor:
        """Similarity of each pair of texts, by their numbers: ``[n]`` float64."""
        return (self._vectors[list(first)] * self._vectors[list(second)]).sum(1)


class TfIdf:
    """Cosines of TF-IDF vectors (log counts, smoothed inverse document frequency)."""

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        """Take the words of texts; their document frequencies are counted over them."""
        counts = [Counter(text) for text in texts]
        documents = Counter(word for count in counts for word in count)
        self.blank: Sequence[bool] = [not count for count in counts]
        self._vectors = []
        for count in counts:
            vector = {
                word: (1 + math.log(n)) * (1 + math.log((1 + len(texts)) / (1 + documents[word])))
                for word, n in count.items()
            }
            norm = math.sqrt(sum(v * v for v in vector.values())) or 1.0
            self._vectors.append({word: v / norm for word, v in vector.items()})

    def pairs(self, first: Sequence[int], second: Sequence[int]) -> Tensor:
        """Similarity of each pair of texts, by their numbers: ``[n]`` float64."""
        vectors = self._vectors
        similarities = []
        for i, j in zip(first, second, strict=True):
            other = vectors[j]
            shared = vectors[i].keys() & other.keys()
            similarities.append(sum(vectors[i][word] * other[word] for word in shared))
        return torch.tensor(similarities, dtype=torch.float64)


def words(text: str) -> list[str]:
    """Words of a text in lower case, without what all explanations share.

    A text of nothing else keeps it. Example: ``words("References to cats.")`` is ["cats"].
    """
    text = text.lower()
    return WORD.findall(BOILERPLATE.sub(" ", text)) or WORD.findall(text)


def telling_words(texts: Sequence[str]) -> list[list[str]]:
    """Words of each text that tell it from others: those in at most a fifth of the texts.

    A word in one text alone always is.
    """
    split = [words(text) for text in texts]
    documents = Counter(word for text in split for word in set(text))
    most = max(COMMON * len(split), 1)
    return [[word for word in text if documents[word] <= most] for text in split]
