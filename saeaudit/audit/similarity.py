"""By what the texts of explanations are compared: the method asked for, or the best at hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from saeaudit.core.similarity import Embedded, Similar, TfIdf, telling_words
from saeaudit.errors import AuditError
from saeaudit.sources.http import untracked
from saeaudit.sources.hub import is_offline, open_repo
from saeaudit.sources.neuronpedia import Explanation
from saeaudit.vocabulary import SENTENCE_MODEL, STATIC_MODEL, Similarity

STATIC_FILES = ("config.json", "model.safetensors", "tokenizer.json")
"""What static embeddings are made of; nothing else of their repository is fetched."""


def make_similar(
    texts: Sequence[Explanation], method: Similarity, model: str | None, offline: bool
) -> tuple[str, Similar]:
    """Make texts comparable.

    Args:
        texts: explanations; pairs of them are asked for by their numbers.
        method: "auto" takes the export's embeddings where every text has one, else static ones
            where model2vec is installed and its model is on this machine, else TF-IDF.
        model: for "semantic" and "sentence-transformers": a name on the hub, or a folder; with
            "auto" it means "semantic"; the method's usual one where None.
        offline: load the model only from this machine.

    Returns:
        What the records name the method, and the similarities.

    Raises:
        AuditError: the method asked for is not to be had.
    """
    descriptions = [text.description for text in texts]
    if method == "auto" and model is not None:
        method = "semantic"
    if method in ("semantic", "sentence-transformers"):
        return _embedded(descriptions, method, model, is_offline(offline))
    if method in ("auto", "export"):
        embeddings = [text.embedding for text in texts if text.embedding]
        if len(embeddings) == len(texts) and len(set(map(len, embeddings))) == 1:
            return "export", Embedded(torch.tensor(embeddings, dtype=torch.float64))
    if method == "export":
        raise AuditError(
            "not every explanation has an embedding of the same length",
            where="--similarity export",
            hint="--similarity tfidf",
        )
    if method == "auto":
        try:
            return _embedded(descriptions, "semantic", None, offline=True)
        except AuditError:  # not installed, or not on this machine: the next best serves
            pass
    return "tfidf", TfIdf(telling_words(descriptions))


def _embedded(
    texts: Sequence[str], method: _Method, model: str | None, offline: bool
) -> tuple[str, Embedded]:
    """Embeddings by a library that may not be installed, of a model that may be anything."""
    library, usual, embed = LIBRARIES[method]
    model = model or usual
    where = f"--similarity {method}"
    try:
        return f"{method}:{model}", Embedded(embed(texts, model, offline))
    except ImportError as error:
        raise AuditError(
            f"{library} is not installed", where=where, hint=f"pip install 'saeaudit[{method}]'"
        ) from error
    except AuditError:
        raise
    except Exception as error:  # tokenizers raises bare Exception for a file that is none
        line = str(error).strip().split("\n")[0]
        raise AuditError(f"cannot load {model}: {line}", where=where) from error


def _by_word(texts: Sequence[str], model: str, offline: bool) -> Tensor:
    """``[n, e]``: mean of the static embeddings of the words that tell a text from others.

    Static embeddings weigh what all explanations share ("references to") like any other words.
    """
    from model2vec import StaticModel

    loaded = StaticModel.from_pretrained(_static_folder(model, offline))
    joined = [" ".join(words) for words in telling_words(texts)]
    return torch.from_numpy(loaded.encode(joined, use_multiprocessing=False))


def _static_folder(model: str, offline: bool) -> Path:
    """Where a static model lies: fetched as SAEs are, since the library sets no time limits."""
    if Path(model).is_dir():
        return Path(model)
    repo = open_repo(model, None, offline=offline)
    missing = set(STATIC_FILES) - set(repo.files())
    if missing and not offline:
        raise AuditError(
            f"no static embeddings: it has no {min(missing)}",
            where=f"--similarity-model {model}",
            hint="--similarity sentence-transformers for models of that library",
        )
    repo.fetch(STATIC_FILES)
    return repo.local(STATIC_FILES[0]).parent


def _by_sentence(texts: Sequence[str], model: str, offline: bool) -> Tensor:
    """``[n, e]``: embeddings of whole texts by a network that reads them."""
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    logging.disable_progress_bar()  # it would write over ours

    with untracked():
        loaded = SentenceTransformer(model, device="cpu", local_files_only=offline)
    vectors = loaded.encode(
        list(texts), convert_to_tensor=True, show_progress_bar=False, batch_size=128
    )
    return torch.as_tensor(vectors).cpu()


_Method = Literal["semantic", "sentence-transformers"]
LIBRARIES: dict[_Method, tuple[str, str, Callable[[Sequence[str], str, bool], Tensor]]] = {
    "semantic": ("model2vec", STATIC_MODEL, _by_word),
    "sentence-transformers": ("sentence-transformers", SENTENCE_MODEL, _by_sentence),
}
"""Option → library, which the extra of the option's name installs; usual model; how it embeds."""
