"""Incoherence and its null, counted again in plain numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from saeaudit.audit.disagreement import Disagreement
from saeaudit.audit.score.choose import Exchanges
from saeaudit.audit.score.incoherence import PERMUTATIONS, IncoherenceTally, permute_labels
from saeaudit.sample import sample_root
from saeaudit.sources.activations import read_activations, read_tokens, sample_activations
from saeaudit.sources.explanations import Explanations, find_explanations, load_explanations
from saeaudit.sources.neuronpedia import Explanation

FEATURES, CHOICES = 120, 60
ALIKE = dict.fromkeys(range(FEATURES), 0.1)
"""Features that fire equally often."""


def explained(
    texts: Sequence[str],
    vectors: np.ndarray | None = None,
    second: dict[int, tuple[str, np.ndarray | None]] | None = None,
) -> Disagreement:
    """Labels of features 0, 1, …, by the vectors where there are any, else by TF-IDF."""

    def explanation(text: str, vector: np.ndarray | None, model: str) -> Explanation:
        return Explanation(text, "kind", model, None if vector is None else tuple(vector.tolist()))

    rows: Iterator[np.ndarray | None] = iter(
        vectors if vectors is not None else [None] * len(texts)
    )
    labels = {n: explanation(text, next(rows), "model") for n, text in enumerate(texts)}
    both = {n: (labels[n], explanation(*said, "other")) for n, said in (second or {}).items()}
    method = "tfidf" if vectors is None else "export"
    return Disagreement(Explanations("", labels, both, 0), range(len(texts)), method=method)


def topics(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Vectors of labels in twelve topics, and each feature's topic."""
    topic = rng.integers(0, 12, FEATURES)
    centres = rng.normal(size=(12, 24))
    return centres[topic] + 0.4 * rng.normal(size=(FEATURES, 24)), topic


def labelled(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, Disagreement]:
    """The same, and labels with these vectors."""
    vectors, topic = topics(rng)
    return vectors, topic, explained([f"label {n}" for n in range(FEATURES)], vectors)


def exchanges(rng: np.random.Generator, topic: np.ndarray, alike: float) -> Exchanges:
    """Four exchanges for each choice, a share of them within a topic."""
    leaving = rng.integers(0, FEATURES, 4 * CHOICES)
    entering = rng.integers(0, FEATURES, 4 * CHOICES)
    for n in np.flatnonzero(rng.random(4 * CHOICES) < alike):
        entering[n] = rng.choice(np.flatnonzero(topic == topic[leaving[n]]))
    case = np.repeat(np.arange(CHOICES), 4)
    moved = rng.uniform(0, 0.4, 4 * CHOICES)
    return Exchanges(case.tolist(), leaving.tolist(), entering.tolist(), moved.tolist())


def share(labels: np.ndarray, vectors: np.ndarray, made: Exchanges, level: float, least: float):
    """Share of choices with an exchange that disagrees, in plain numpy."""
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    a, b = unit[labels[made.leaving]], unit[labels[made.entering]]
    differs = (1 - (a * b).sum(1) > level) & (np.array(made.moved) >= least)
    return len(set(np.array(made.case)[differs].tolist()))


@pytest.mark.parametrize("alike", [0.0, 0.95])
def test_incoherence_and_chance_against_a_count_in_numpy(alike: float) -> None:
    rng = np.random.default_rng(3)
    vectors, topic, texts = labelled(rng)
    rates = dict(enumerate(rng.exponential(1, FEATURES).tolist()))
    permuted = permute_labels(texts, rates)
    tally = IncoherenceTally(permuted)
    made = exchanges(rng, topic, alike)
    tally.add(CHOICES, made)
    figures = tally.figures(unique=15)
    assert figures.unavailable is None and texts.level is not None
    for one in figures.shares:
        counts = [
            share(labels.numpy(), vectors, made, texts.level, one.moved) / (CHOICES + 15)
            for labels in permuted.texts
        ]
        assert one.fraction == pytest.approx(counts[0])
        assert one.chance.value == pytest.approx(np.mean(counts[1:]))
        ends = np.quantile(counts[1:], [0.025, 0.975])
        assert [one.chance.low, one.chance.high] == pytest.approx(ends)
        assert one.excess is not None
        assert one.excess.value == pytest.approx(counts[0] - np.mean(counts[1:]))
        assert one.excess.low <= one.excess.value <= one.excess.high
    everything = figures.shares[0].excess
    assert everything is not None and (everything.high < 0) == (
        alike > 0
    )  # exchanges within a topic are no chance
    assert everything.low < 0
    assert [s.moved for s in figures.shares] == sorted(s.moved for s in figures.shares)


def test_the_interval_holds_choices_and_permutations() -> None:
    """Against resamples in numpy: as many choices, each sample against one permutation."""
    rng = np.random.default_rng(5)
    vectors, topic, texts = labelled(rng)
    permuted = permute_labels(texts, ALIKE)
    tally = IncoherenceTally(permuted)
    made = exchanges(rng, topic, 0.7)
    tally.add(CHOICES, made)
    excess = tally.figures(unique=0).shares[0].excess
    assert excess is not None
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    incoherent = np.zeros((1 + PERMUTATIONS, CHOICES))
    for row, labels in zip(incoherent, permuted.texts.numpy(), strict=True):
        a, b = unit[labels[made.leaving]], unit[labels[made.entering]]
        np.maximum.at(row, made.case, 1 - (a * b).sum(1) > texts.level)
    differences = []
    for _ in range(4000):
        drawn, permutation = rng.integers(CHOICES, size=CHOICES), rng.integers(PERMUTATIONS)
        differences.append((incoherent[0] - incoherent[1 + permutation])[drawn].mean())
    ends = np.quantile(differences, [0.025, 0.975])
    assert [excess.low, excess.high] == pytest.approx(ends, abs=0.03)


def test_labels_that_share_no_words_are_refused_and_no_clean_bill() -> None:
    """The level was 1.0, which nothing exceeds, and incoherence 0 %."""
    texts = explained([f"only{n} here{n}" for n in range(FEATURES)])
    assert texts.level == 1.0
    tally = IncoherenceTally(permute_labels(texts, ALIKE))
    tally.add(CHOICES, exchanges(np.random.default_rng(0), np.zeros(FEATURES), 0.0))
    figures = tally.figures(unique=0)
    assert figures.shares == ()
    assert figures.unavailable is not None
    assert "by tfidf no labels differ more" in figures.unavailable
    assert "pip install 'saeaudit[semantic]'" in figures.unavailable


def test_too_little_data_is_no_figure() -> None:
    rng = np.random.default_rng(0)
    vectors, topic, texts = labelled(rng)
    tally = IncoherenceTally(permute_labels(texts, ALIKE))
    made = exchanges(rng, topic, 0.0)
    first = [n for n, case in enumerate(made.case) if case < 12]
    tally.add(12, Exchanges(*([column[n] for n in first] for column in made)))
    assert tally.figures(unique=7) == ((), "19 choices can be judged, fewer than 20")
    assert tally.figures(unique=8).unavailable is None
    calm = IncoherenceTally(permute_labels(texts, ALIKE)).figures(unique=30)
    assert [(s.fraction, s.chance.value, s.excess) for s in calm.shares] == [(0, 0, None)] * 6
    few = explained([f"label {n}" for n in range(19)], vectors[:19])
    assert few.level is None
    assert IncoherenceTally(permute_labels(few, ALIKE)).figures(unique=50) == (
        (), "19 labels can be compared, fewer than 20",
    )  # fmt: skip


def test_a_choice_without_labels_is_neither_coherent_nor_not() -> None:
    """It was counted as if its labels agreed."""
    rng = np.random.default_rng(1)
    vectors, topic = topics(rng)
    made = exchanges(rng, topic, 0.0)
    labelled = explained([f"label {n}" for n in range(FEATURES)], vectors)
    rates = dict.fromkeys(range(2 * FEATURES), 0.1)
    labels = permute_labels(labelled, rates)
    alone, beside = IncoherenceTally(labels), IncoherenceTally(labels)
    alone.add(CHOICES, made)
    foreign = [FEATURES + feature for feature in made.leaving]
    beside.add(CHOICES, made)
    beside.add(CHOICES, made._replace(leaving=foreign))
    assert beside.figures(unique=0) == alone.figures(unique=0)


def test_words_of_a_fifth_of_the_labels_and_punctuation_do_not_count() -> None:
    """Labels were alike by their quotation marks and by "tokens such as"."""
    listed = ["tokens such as 'red', 'blue'", "tokens such as 'sea', 'blue'"]
    texts = explained([*listed, *(f"tokens such as 'only{n}'" for n in range(30))])
    near, far = texts.of([0, 2], [1, 3])
    assert near is not None and 0 < near < 1 and far == 1
    blank = explained(["such as, …", *(f"such as {n}" for n in range(30))])
    assert blank.of([0, 1], [1, 2])[0] is None  # nothing in it tells it from others


def test_separation_tells_whether_two_texts_on_a_feature_are_more_alike() -> None:
    rng = np.random.default_rng(4)
    vectors, _ = topics(rng)
    names = [f"label {n}" for n in range(FEATURES)]
    areas = []
    for noise in (0.2, 1e6):
        again = vectors + noise * rng.normal(size=vectors.shape)
        second = {n: (f"again {n}", again[n]) for n in range(0, FEATURES, 2)}
        texts = explained(names, vectors, second)
        assert texts.calibrated_by == "self" and texts.separation is not None
        assert texts.separation.low <= texts.separation.value <= texts.separation.high
        areas.append(texts.separation)
    assert areas[0].low > 0.9 and areas[1].low < 0.5 < areas[1].high
    assert explained(names, vectors, dict.fromkeys(range(19), ("x", vectors[0]))).separation is None


def test_the_samples_second_texts_are_of_its_bundled_activations() -> None:
    place, files = find_explanations("sample"), sample_activations("sample")
    assert place is not None and files is not None
    weights = np.load(sample_root() / "layer_3/width_2k/average_l0_23/params.npz")
    x = read_activations([files[0]], 384).activations[:].double().numpy()
    codes = x @ weights["W_enc"].astype(float) + weights["b_enc"]
    codes[codes <= weights["threshold"]] = 0
    tokens = read_tokens(files[1], len(x))
    explanations = load_explanations(place, 2048)
    assert sorted(explanations.second) == np.flatnonzero((codes > 0).sum(0) >= 6).tolist()
    for feature, (label, second) in explanations.second.items():
        strongest = np.argsort(-codes[:, feature], kind="stable")[:6]
        listed = dict.fromkeys(tokens[n] for n in strongest)
        assert second.description == "tokens such as " + ", ".join(map(repr, listed))
        assert (label.kind, second.kind) == ("top-tokens", "top-tokens-held-out")
