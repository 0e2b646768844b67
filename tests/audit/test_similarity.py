"""Static embeddings: a model made here, read from a folder and fetched from a hub on loopback."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from model2vec import StaticModel
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from saeaudit import AuditError
from saeaudit.audit.similarity import STATIC_FILES, make_similar
from saeaudit.sources.neuronpedia import Explanation
from saeaudit.vocabulary import STATIC_MODEL, Similarity
from tests.support.hub import Running

WORDS = {
    "dog": (1.0, 0.1, 0.0), "puppy": (0.9, 0.2, 0.0), "bark": (0.7, 0.0, 0.3),
    "template": (0.0, 0.1, 1.0), "syntax": (-0.2, 1.0, 0.4),
}  # fmt: skip
TEXTS = ("References to dog, puppy.", "the puppy: bark", "template syntax", "zebra", "the syntax")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hub's folder that serves a static model of five words under the usual name."""
    served = tmp_path_factory.mktemp("served")
    tokenizer = Tokenizer(
        WordLevel({"[UNK]": 0, **{w: n for n, w in enumerate(WORDS, 1)}}, "[UNK]")
    )
    tokenizer.pre_tokenizer = Whitespace()
    vectors = np.array([(5.0, 5.0, 5.0), *WORDS.values()], dtype=np.float32)
    StaticModel(vectors, tokenizer).save_pretrained(served / STATIC_MODEL)
    return served


def explanations(*texts: str, embedded: int = 0) -> list[Explanation]:
    """Texts, the first of them with an embedding."""
    return [
        Explanation(text, "", "", (1.0, float(n)) if n < embedded else None)
        for n, text in enumerate(texts)
    ]


def mean_of_words(*words: str) -> np.ndarray:
    vector = np.mean([WORDS[word] for word in words], axis=0)
    return vector / np.linalg.norm(vector)


def test_texts_are_means_of_their_words(model: Path) -> None:
    """Boilerplate, punctuation and words of every text leave no trace, nor unknown ones."""
    folder = str(model / STATIC_MODEL)
    name, similar = make_similar(explanations(*TEXTS), "semantic", folder, True)
    assert name == f"semantic:{folder}"
    assert list(similar.blank) == [False, False, False, True, True]
    expected = mean_of_words("dog") @ mean_of_words("bark")  # "puppy", "syntax", "the": in 2 of 5
    near, far = similar.pairs([0, 0], [1, 2]).tolist()
    assert near == pytest.approx(expected, abs=1e-6)
    assert far == pytest.approx(mean_of_words("dog") @ mean_of_words("template"), abs=1e-6)


def test_the_model_is_fetched_as_an_sae_is(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(AuditError, match="not in the cache"):
        make_similar(explanations(*TEXTS), "semantic", None, True)
    assert make_similar(explanations(*TEXTS), "auto", None, False)[0] == "tfidf"  # fetches nothing
    (model / "someone/network").mkdir(parents=True)
    (model / "someone/network/config.json").write_text("{}")
    with Running(model) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        name, _ = make_similar(explanations(*TEXTS), "semantic", None, False)
        assert name == f"semantic:{STATIC_MODEL}"
        assert {path.rsplit("/", 1)[-1] for path in hub.sent} == set(STATIC_FILES)
        hub.sent.clear()
        with pytest.raises(AuditError, match=r"no static embeddings: it has no model\.safetensors"):
            make_similar(explanations(*TEXTS), "semantic", "someone/network", False)
        assert not hub.sent
    for method in ("semantic", "auto"):  # the hub is gone
        name, _ = make_similar(explanations(*TEXTS), method, None, True)
        assert name == f"semantic:{STATIC_MODEL}"


@pytest.mark.parametrize(
    ("embedded", "method", "expected"),
    [(5, "auto", "export"), (5, "tfidf", "tfidf"), (4, "auto", "tfidf"), (5, "export", "export")],
)
def test_an_exports_embeddings_come_first(
    embedded: int,
    method: Similarity,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    texts = explanations(*TEXTS, embedded=embedded)
    assert make_similar(texts, method, None, False)[0] == expected


def test_a_model_by_name_is_asked_for(model: Path) -> None:
    folder = str(model / STATIC_MODEL)
    texts = explanations(*TEXTS, embedded=5)
    assert make_similar(texts, "auto", folder, True)[0] == f"semantic:{folder}"


@pytest.mark.parametrize("damaged", STATIC_FILES)
def test_a_damaged_model_is_one_line(model: Path, tmp_path: Path, damaged: str) -> None:
    for name in STATIC_FILES:
        (tmp_path / name).write_bytes((model / STATIC_MODEL / name).read_bytes()[:-20])
        if name != damaged:
            (tmp_path / name).write_bytes((model / STATIC_MODEL / name).read_bytes())
    with pytest.raises(AuditError, match=f"cannot load {tmp_path}") as caught:
        make_similar(explanations(*TEXTS), "semantic", str(tmp_path), True)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("method", "module", "library"),
    [
        ("semantic", "model2vec", "model2vec"),
        ("sentence-transformers", "sentence_transformers", "sentence-transformers"),
    ],
)
def test_what_is_not_installed_is_named(
    method: Similarity, module: str, library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(AuditError, match=f"{library} is not installed") as caught:
        make_similar(explanations(*TEXTS), method, None, True)
    assert f"pip install 'saeaudit[{method}]'" in str(caught.value)
