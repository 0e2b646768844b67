from __future__ import annotations

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from saeaudit import AuditError
from saeaudit.audit.collect.tokens import Passage, Tokeniser, beginning, in_batches, padded
from saeaudit.sources.texts import Document

WORDS = [f"w{number}" for number in range(30)]
SPECIAL = {
    "gemma": {"bos_token": "<bos>", "eos_token": "<eos>", "pad_token": "<pad>"},
    "gpt2": {"bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"},
    "bert": {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]"},
    "qwen": {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"},
}


def tokenizer(family: str) -> PreTrainedTokenizerFast:
    special = SPECIAL[family]
    vocabulary = {word: at for at, word in enumerate([*dict.fromkeys(special.values()), *WORDS])}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="w0"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=words, **special)


def passage(family: str, text: str, bos: str, **more: object) -> Passage:
    made = Tokeniser(tokenizer(family), bos, **{"context": 8, **more})
    return made.passages([Document(5, text)], "a.txt")[0]


@pytest.mark.parametrize(
    ("family", "bos", "tokens", "kept", "dropped"),
    [
        ("gemma", "drop", "<bos> w1 w2 w3", [1, 2, 3], {"bos": 1}),
        ("gemma", "keep", "<bos> w1 w2 w3", [0, 1, 2, 3], {}),
        ("gemma", "none", "w1 w2 w3", [0, 1, 2], {}),
        ("gpt2", "drop", "<|endoftext|> w1 w2 w3", [1, 2, 3], {"bos": 1}),
        ("bert", "drop", "[CLS] w1 w2 w3 [SEP]", [1, 2, 3, 4], {"bos": 1}),
        ("bert", "none", "w1 w2 w3", [0, 1, 2], {}),
        ("qwen", "none", "w1 w2 w3", [0, 1, 2], {}),
    ],
)
def test_each_text_begins_once(
    family: str, bos: str, tokens: str, kept: list[int], dropped: dict[str, int]
) -> None:
    made = passage(family, "w1 w2 w3", bos)
    assert " ".join(tokenizer(family).convert_ids_to_tokens(made.ids.tolist())) == tokens
    assert made.document == 5 and made.kept.tolist() == kept and made.dropped == dropped


def test_a_text_is_cut_to_the_context_and_still_ends() -> None:
    long = " ".join(WORDS)
    ids = passage("bert", long, "drop").ids.tolist()
    assert tokenizer("bert").convert_ids_to_tokens(ids) == ["[CLS]", *WORDS[:6], "[SEP]"]
    assert len(passage("gemma", long, "none").ids) == 8


def test_of_a_book_the_beginning_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lengths = []
    read = PreTrainedTokenizerFast.__call__

    def counted(self: PreTrainedTokenizerFast, texts: list[str], **more: object) -> object:
        lengths.extend(map(len, texts))
        return read(self, texts, **more)

    monkeypatch.setattr(PreTrainedTokenizerFast, "__call__", counted)
    book = "w1 w2 w3 " * 1_000
    whole = [1, 2, 3, 1, 2, 3, 1]
    assert passage("gemma", book, "drop").ids[1:].tolist() == [3 + n for n in whole]
    assert lengths == [8 * 64]
    wide = f"{'w1'.ljust(600)}{'w2'.ljust(600)}w3"  # more characters a token than any text has
    assert passage("gemma", wide, "drop").ids[1:].tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("family", "text", "bos", "words"),
    [
        ("gemma", "<bos> w1", "drop", "begins twice: its text brings a <bos>"),
        ("gpt2", "<|endoftext|> w1", "keep", "begins twice"),
        ("gemma", "<bos> <bos> w1", "none", "begins twice"),
        ("bert", "[CLS] w1", "drop", "begins twice"),
        ("gemma", "w1 <bos> w2", "drop", "holds several documents: <bos> is token 2 of 4"),
        ("gemma", "w1 <eos> w2", "drop", "holds several documents: <eos> is token 2 of 4"),
        ("gpt2", "w1 <|endoftext|> w2", "none", "several documents: <|endoftext|> is token 1 of 3"),
        ("qwen", "w1 <|endoftext|> w2", "none", "several documents"),
        ("bert", "w1 [SEP] w2", "drop", "holds several documents"),
    ],
)
def test_what_is_not_one_document_is_refused(family: str, text: str, bos: str, words: str) -> None:
    with pytest.raises(AuditError) as raised:
        passage(family, text, bos)
    assert words in raised.value.line() and "a.txt: row 5: " in raised.value.line()


@pytest.mark.parametrize(
    ("family", "text", "bos"),
    [
        ("gemma", "<bos> w1 w2 <eos>", "none"),  # brings its beginning along, and none is added
        ("gemma", "w1 <eos>", "drop"),
        ("gpt2", "w1 <|endoftext|>", "drop"),
        ("qwen", "w1 <|im_end|> w2 <|im_end|>", "none"),  # turns of a chat
    ],
)
def test_what_is_one_document_is_taken(family: str, text: str, bos: str) -> None:
    passage(family, text, bos)


def test_positions_are_drawn_for_each_document_by_itself() -> None:
    text = " ".join(WORDS)
    made = Tokeniser(tokenizer("gemma"), "drop", 25, per_document=4, seed=3)
    documents = [Document(number, text) for number in range(40)]
    drawn = made.passages(documents, "")
    assert all(len(p.kept) == 4 and p.dropped == {"bos": 1, "sampled": 20} for p in drawn)
    assert all(p.kept.tolist() == sorted(set(p.kept.tolist())) and p.kept[0] > 0 for p in drawn)
    assert {int(at) for p in drawn for at in p.kept} == set(range(1, 25))
    alone = made.passages(documents[7:8], "")[0]
    assert alone.kept.equal(drawn[7].kept)
    other = Tokeniser(tokenizer("gemma"), "drop", 25, per_document=4, seed=4)
    assert not other.passages(documents[7:8], "")[0].kept.equal(alone.kept)


def test_batches_are_padded_behind_and_masked() -> None:
    made = Tokeniser(tokenizer("gemma"), "drop", 8)
    texts = ["w1", "w1 w2 w3"]
    ids, mask = padded(made.passages([Document(i, t) for i, t in enumerate(texts)], ""), 2)
    assert ids.tolist() == [[0, 4, 2, 2], [0, 4, 5, 6]]
    assert mask.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert ids.dtype == mask.dtype == torch.int64


def test_what_begins_a_document() -> None:
    begins = {family: beginning(tokenizer(family)) for family in SPECIAL}
    assert begins == {"gemma": "<bos>", "gpt2": "<|endoftext|>", "bert": "[CLS]", "qwen": None}
    assert list(in_batches([], 3)) == []
