"""Read a folder of collected activations: what it says of itself, checked against what is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, overload

import torch
from torch import Tensor

from saeaudit.errors import AuditError
from saeaudit.sources.collected.manifest import (
    VOCABULARY,
    Manifest,
    read_complete,
    shard_name,
)
from saeaudit.sources.collected.shards import read_shard
from saeaudit.untrusted import parse_json, read_text
from saeaudit.weights.tensors import Contents

VOCABULARY_BYTES = 256 << 20
"""Of a file of token texts."""
MOST_TEXTS = 10_000_000
"""Token texts in it."""
PIECE = "##"
"""How WordPiece, BERT's tokeniser, begins what goes on with a word."""


class Collected(NamedTuple):
    """A complete folder."""

    manifest: Manifest
    shards: tuple[Contents, ...]
    """In order."""
    vocabulary: Mapping[int, str]
    """Texts of the token ids that occur."""
    folder: Path

    @property
    def documents(self) -> Tensor:
        """``[N]`` int64: the document of each activation."""
        return torch.cat([shard.tensors["document"].load() for shard in self.shards])

    @property
    def in_pieces(self) -> bool:
        """Whether token texts are WordPiece's, which have no spaces, and say what goes on."""
        texts = self.vocabulary.values()
        return any(text.startswith(PIECE) for text in texts) and not any(" " in t for t in texts)


def read_collected(folder: Path) -> Collected:
    """Read a folder's manifest and vocabulary, and check its shards; no activation is read.

    Raises:
        AuditError: it is not complete, or a file is missing, damaged or not as the manifest says.
    """
    manifest, totals = read_complete(folder)
    shards = []
    for number, start in enumerate(range(0, totals.rows, manifest.shard_rows)):
        count = min(manifest.shard_rows, totals.rows - start)
        shards.append(read_shard(folder / shard_name(number), manifest, count))
    return Collected(manifest, tuple(shards), _read_vocabulary(folder / VOCABULARY), folder)


def _read_vocabulary(path: Path) -> dict[int, str]:
    text = read_text(path, VOCABULARY_BYTES)
    texts = parse_json(text, str(path), limit=VOCABULARY_BYTES, values=MOST_TEXTS)
    if not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
        raise AuditError("is no object of token ids and texts", where=str(path))
    if not all(key.isascii() and key.isdigit() and len(key) < 20 for key in texts):
        raise AuditError("has a key that is no token id", where=str(path))
    return {int(key): text for key, text in texts.items()}


class CollectedTexts(Sequence[str]):
    """The text of each activation of some folders, and what stands around it."""

    def __init__(self, folders: Sequence[Collected]) -> None:
        self._shards = [(shard, folder) for folder in folders for shard in folder.shards]
        self._in_pieces = [pieces for f in folders for pieces in [f.in_pieces] * len(f.shards)]
        self._ids = [shard.tensors["tokens"].load().clone() for shard, _ in self._shards]
        self._ends = torch.tensor([len(ids) for ids in self._ids]).cumsum(0)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, number: int) -> str: ...

    @overload
    def __getitem__(self, number: slice) -> list[str]: ...

    def __getitem__(self, number: int | slice) -> str | list[str]:
        if isinstance(number, slice):
            return [self[each] for each in range(*number.indices(len(self)))]
        shard, row = self._place(number)
        return self._text(shard, self._ids[shard][row])

    def around(self, number: int) -> tuple[str, str]:
        """Texts of a few tokens before an activation's in its document, and of a few behind it.

        Each ends and begins with a space where one lies between it and the token.

        Raises:
            AuditError: the folder has no text of one.
        """
        shard, row = self._place(number)
        tensors = self._shards[shard][0].tensors
        before, after = (
            [self._text(shard, token) for token in tensors[side].load()[row] if token >= 0]
            for side in ("before", "after")
        )
        if not self._in_pieces[shard]:
            return "".join(before), "".join(after)
        goes_on = not before or self[number].startswith(PIECE)
        return _spaced(before).strip() + ("" if goes_on else " "), _spaced(after)

    def _place(self, number: int) -> tuple[int, int]:
        """Shard of an activation, and its row there."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        shard = int(torch.searchsorted(self._ends, number, right=True))
        return shard, number - (int(self._ends[shard - 1]) if shard else 0)

    def _text(self, shard: int, token: Tensor) -> str:
        folder = self._shards[shard][1]
        text = folder.vocabulary.get(int(token))
        if text is None:
            raise AuditError(
                f"has no text of token {int(token)}", where=str(folder.folder / VOCABULARY)
            )
        return text


def _spaced(pieces: Sequence[str]) -> str:
    """What WordPiece's tokens spell.

    >>> _spaced(["put", "##out", "##s", "set"])
    ' putouts set'
    """
    return "".join(
        piece.removeprefix(PIECE) if piece.startswith(PIECE) else f" {piece}" for piece in pieces
    )
