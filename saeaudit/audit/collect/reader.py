"""A model that reads texts, batch by batch, and what it has at one place of each token."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from saeaudit.audit.collect.model import Model
from saeaudit.audit.collect.places import Place
from saeaudit.audit.collect.tap import activations_at
from saeaudit.audit.collect.tokens import Passage, Tokeniser, in_batches, padded
from saeaudit.errors import AuditError
from saeaudit.sources.collected.writer import Document as Kept
from saeaudit.sources.texts import Document, Texts


@dataclass(frozen=True, eq=False)
class Reader:
    """A model, the place in it, and the texts that it reads."""

    model: Model
    place: Place
    tokeniser: Tokeniser
    texts: Texts
    batch: int
    """Texts that are read at once."""
    limit: float = math.inf
    """Activations of a larger norm are dropped."""

    def kept(self, document: int = 0) -> Iterator[Kept]:
        """What is kept of each text, in order.

        Args:
            document: where to begin; texts before it that it shares a batch with come first, since
                padding moves the last bits of a batch's activations.

        Raises:
            AuditError: a text is not one document, or a file of texts cannot be read.
        """
        for batch in in_batches(self.texts.documents(), self.batch):
            if batch[-1].number >= document:
                for passage, activations in self._read(batch):
                    yield self._keep(passage, activations)

    def first(self, count: int) -> Tensor:
        """Activations ``[n, d]`` of the first texts, before a draw, and whatever their norms.

        Args:
            count: how many are enough; fewer where the texts are shorter.

        Raises:
            AuditError: there are none, or as for `kept`.
        """
        gathered: list[Tensor] = []
        for batch in in_batches(self.texts.documents(), self.batch):
            gathered += [x[passage.first :] for passage, x in self._read(batch)]
            if sum(map(len, gathered)) >= count:
                break
        if not any(map(len, gathered)):
            raise AuditError("holds no text to read", where=self.texts.name)
        return torch.cat(gathered)[:count]

    def _read(self, documents: Sequence[Document]) -> Iterator[tuple[Passage, Tensor]]:
        """Passages, and ``[t, d]`` activations at each of their tokens."""
        model = self.model
        passages = self.tokeniser.passages(documents, self.texts.name)
        passages = [passage for passage in passages if len(passage.ids)]
        if not passages:
            return
        ids, mask = padded(passages, model.tokenizer.pad_token_id or 0)
        if int(ids.max()) >= model.vocabulary:
            raise AuditError(
                f"its tokeniser gives a token {int(ids.max()):,}; the model knows "
                f"{model.vocabulary:,}: is it another model's?",
                where=model.files.name,
            )
        activations = activations_at(
            model.decoder, self.place, ids.to(model.device), mask.to(model.device)
        ).cpu()
        for row, passage in enumerate(passages):
            yield passage, activations[row, : len(passage.ids)]

    def _keep(self, passage: Passage, activations: Tensor) -> Kept:
        positions, dropped = passage.kept, dict(passage.dropped)
        kept = activations[positions]
        if math.isfinite(self.limit):
            large = norms(kept) > self.limit
            if bool(large.any()):
                dropped["norm"] = int(large.sum())
                positions, kept = positions[~large], kept[~large]
        return Kept(passage.document, passage.ids, positions, kept, dropped)


def norms(activations: Tensor) -> Tensor:
    """Lengths ``[n]`` float64 of activations ``[n, d]``."""
    return activations.double().square().sum(1).sqrt()
