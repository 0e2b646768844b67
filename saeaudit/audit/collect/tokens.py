"""From documents to what a model reads: exactly one beginning each, cut, sampled, in batches.

No document shares a sequence with another: an SAE's activations would be of texts that attend to
strangers. A document that holds several in itself is refused, and one that begins twice.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from saeaudit.errors import AuditError
from saeaudit.sources.activations import BEGINNINGS, ENDINGS
from saeaudit.sources.collected.reader import PIECE
from saeaudit.sources.texts import Document
from saeaudit.vocabulary import Bos

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPACE, UNDECODED = "\u2581", "\ufffd"
"""What tokenisers put for a space, and for bytes that are no text."""

CHARACTERS, SLACK = 64, 16
"""Characters of a text for each token that is read, and tokens beyond those that are."""


class Passage(NamedTuple):
    """One document as a model reads it."""

    document: int
    """Number of its row."""
    ids: Tensor
    """``[t]`` int64: its tokens."""
    first: int
    """Position from which on activations may be kept."""
    kept: Tensor
    """``[n]`` int64, ascending: positions whose activations are kept; none may be."""
    dropped: dict[str, int]
    """Positions whose activations are not, by reason."""


@dataclass(frozen=True)
class Tokeniser:
    """How documents become passages.

    Args:
        tokenizer: the model's.
        bos: `keep` or `drop` the one token that begins, added to each document; `none` adds none.
        context: most tokens of a passage, those that begin and end it included.
        per_document: most positions of a passage that are kept, drawn at random; all where None.
        seed: of that draw.
    """

    tokenizer: PreTrainedTokenizerBase
    bos: Bos
    context: int
    per_document: int | None = None
    seed: int = 0

    def passages(self, documents: Sequence[Document], where: str) -> list[Passage]:
        """Tokenise some documents.

        Args:
            documents: some rows of a table.
            where: the table, for messages.

        Raises:
            AuditError: one begins twice, or holds several documents; names its row.
        """
        front, back = self._edges
        passages = []
        listed = self._inside([document.text for document in documents])
        for document, inside in zip(documents, listed, strict=True):
            self._check(front + inside, f"{where}: row {document.number}")
            ids = front + inside[: self.context - len(front) - len(back)] + back
            passages.append(self._passage(document.number, ids, len(front)))
        return passages

    def _inside(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of texts, nothing added; of a book no more than can matter."""

        def tokens(texts: Sequence[str]) -> list[list[int]]:
            read = self.tokenizer(list(texts), add_special_tokens=False, verbose=False)
            listed: list[list[int]] = read["input_ids"]
            return listed

        begun = [text[: CHARACTERS * self.context] for text in texts]
        listed = tokens(begun)
        for number, (text, prefix) in enumerate(zip(texts, begun, strict=True)):
            # Where a text was cut its tokens may be others; these are not to be among those read.
            if len(text) > len(prefix) and len(listed[number]) < self.context + SLACK:
                listed[number] = tokens([text])[0]
        return listed

    @cached_property
    def _edges(self) -> tuple[list[int], list[int]]:
        """What is added before and behind a text."""
        first, last = self.tokenizer.cls_token_id, self.tokenizer.sep_token_id
        if self.bos == "none":
            return [], []
        if first is not None and last is not None:  # for models that read both ways
            return [first], [last]
        return [self.tokenizer.bos_token_id], []

    @cached_property
    def _marks(self) -> tuple[frozenset[int], frozenset[int]]:
        """Tokens that begin documents, and those that end them; turns of a chat end otherwise."""
        special = self.tokenizer.all_special_tokens
        begin = {token for token in special if token in BEGINNINGS}
        end = {token for token in special if token in ENDINGS}
        if self.tokenizer.bos_token is not None:  # which may be what ends a document, too
            begin.add(self.tokenizer.bos_token)
        return self._ids(begin), self._ids(end)

    def _ids(self, tokens: Iterable[str]) -> frozenset[int]:
        return frozenset(self.tokenizer.convert_tokens_to_ids(list(tokens)))

    def _check(self, ids: Sequence[int], where: str) -> None:
        """Refuse a document that begins twice, or in which another begins or ends."""
        begin, end = self._marks
        if (begin | end).isdisjoint(ids[1:]):
            return
        last = len(ids) - 1
        for at, token in enumerate(ids[1:], start=1):
            if token not in begin | end or (at == last and token in end):
                continue
            name = self.tokenizer.convert_ids_to_tokens(token)
            if at == 1 and ids[0] in begin and token in begin:
                raise AuditError(
                    f"begins twice: its text brings a {name} of its own", where=where,
                    hint="take it out of the text, or --bos none adds none",
                )  # fmt: skip
            raise AuditError(
                f"holds several documents: {name} is token {at:,} of {last + 1:,}", where=where,
                hint="each row is one document: part them, or take these tokens out",
            )  # fmt: skip

    def _passage(self, number: int, ids: list[int], front: int) -> Passage:
        """A document with the positions that are kept of it."""
        first = front if self.bos == "drop" else 0
        kept: Sequence[int] = range(first, len(ids))
        dropped = {"bos": first} if first else {}
        if self.per_document is not None and len(kept) > self.per_document:
            # A draw for each document by itself: the same whatever was read before.
            draw = random.Random(f"{self.seed} {number}")
            dropped["sampled"] = len(kept) - self.per_document
            kept = sorted(draw.sample(kept, self.per_document))
        positions = torch.tensor(kept, dtype=torch.int64)
        return Passage(number, torch.tensor(ids, dtype=torch.int64), first, positions, dropped)


def beginning(tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The token that begins a document, where a tokenizer has one."""
    if tokenizer.cls_token is not None and tokenizer.sep_token is not None:
        return str(tokenizer.cls_token)
    return None if tokenizer.bos_token is None else str(tokenizer.bos_token)


def in_batches(documents: Iterable[Document], size: int) -> Iterator[list[Document]]:
    """Documents a number at a time: the same ones together whoever begins where.

    >>> [[d.number for d in batch] for batch in in_batches(map(Document, range(5), "abcde"), 2)]
    [[0, 1], [2, 3], [4]]
    """
    batch: list[Document] = []
    for document in documents:
        batch.append(document)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def padded(passages: Sequence[Passage], padding: int) -> tuple[Tensor, Tensor]:
    """Passages as a model reads them at once, the shorter ones filled up at the end.

    Args:
        passages: at least one.
        padding: token to fill up with.

    Returns:
        ``[b, t]`` int64 tokens, and a mask of the same shape: 1 where there is one.
    """
    longest = max(len(passage.ids) for passage in passages)
    ids = torch.full((len(passages), longest), padding, dtype=torch.int64)
    mask = torch.zeros_like(ids)
    for row, passage in enumerate(passages):
        ids[row, : len(passage.ids)] = passage.ids
        mask[row, : len(passage.ids)] = 1
    return ids, mask


def token_text(tokenizer: PreTrainedTokenizerBase, token: int) -> str:
    """The text of a token as people read it: spaces as spaces, pieces of words as such."""
    raw = str(tokenizer.convert_ids_to_tokens(token))
    if raw.startswith(PIECE):
        return raw
    if SPACE in raw:
        return raw.replace(SPACE, " ")
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    return raw if UNDECODED in text else text  # a part of a character
