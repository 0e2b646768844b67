"""Activations, their documents and the texts of their tokens, wherever a path has them."""

from __future__ import annotations

import codecs
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saeaudit.errors import AuditError
from saeaudit.sample import SAMPLES, sample_root
from saeaudit.sources.collected.reader import Collected, CollectedTexts, read_collected
from saeaudit.sources.paths import ARROW, PARQUET, places_of
from saeaudit.sources.stacked import Activations, Part, Stacked
from saeaudit.untrusted import parse_json, read_bytes, text_lines
from saeaudit.weights.dtypes import FLOATS, INTEGERS
from saeaudit.weights.tensors import read_tensors

TOKENS = 256 << 20
"""Bytes of a file of tokens."""
MOST_TOKENS = 10_000_000
"""Tokens in a JSON list."""
MOST_DOCUMENTS = 1 << 53
"""Largest number of a document: more can be counted on from there."""
BEGINNINGS = frozenset({
    "[CLS]", "<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
})  # fmt: skip
"""Tokens that begin a document."""
ENDINGS = frozenset({
    "[SEP]", "</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
})  # fmt: skip
"""Tokens that end one."""


class Recorded(NamedTuple):
    """Activations, and what is known of them."""

    activations: Activations
    """``[N, d]``."""
    tokens: Sequence[str] | None
    """Text of each one; of collected ones `CollectedTexts`, which know what stands around."""
    documents: Tensor | None
    """``[N]`` int64, equal within a document; None where nothing tells."""


class Named(NamedTuple):
    """What is in one file, or in one folder that was collected."""

    parts: list[Part]
    documents: Tensor | None
    """``[n]`` int64: as its files say, or counted."""
    counted: bool
    """Whether these numbers say nothing outside: another file's 0 is another document."""
    collected: Collected | None = None


def sample_activations(target: str) -> tuple[Path, Path] | None:
    """The bundled activations and tokens of a bundled SAE, where it has any."""
    if target != next(iter(SAMPLES)):
        return None
    return sample_root() / "activations-test.safetensors", sample_root() / "tokens-test.json"


def read_activations(
    paths: Sequence[str | Path], width: int, texts: Path | None = None
) -> Recorded:
    """Open activations of an SAE; they are read when they are asked for.

    Of a file the tensor named ``activations`` is taken, else the only one of floats that has two
    or three axes: ``[N, d]`` or ``[documents, tokens, d]``. Documents are told by a tensor
    ``document`` [N] of whole numbers, by the first of three axes, or by tokens that begin or end
    texts (`BEGINNINGS`, `ENDINGS`).

    Args:
        paths: files, globs and folders: one that was collected, or one of files of any kind, taken
            in natural order. All are of one dtype.
        width: of the SAE's input, d.
        texts: a file of the tokens' texts, one for each activation.

    Raises:
        AuditError: nothing there, nothing or several things that could be meant, another width, no
            rows, numbers of documents that are none, or another number of texts.
    """
    named = [
        _open_collected(place) if place.is_dir() else _open_file(place)
        for path in paths
        for place in places_of(path)
    ]
    parts = [part for each in named for part in each.parts]
    for part in parts:
        if part.stored.shape[-1] != width:
            raise AuditError(
                f"activations of width {part.stored.shape[-1]}; the SAE reads {width}",
                where=part.where,
            )
        if not part.rows:
            raise AuditError("holds no activations: 0 rows", where=part.where)
    activations = Stacked(parts)
    tokens: Sequence[str] | None = None
    folders = [each.collected for each in named if each.collected]
    if texts is not None:
        tokens = read_tokens(texts, len(activations))
    elif len(folders) == len(named):
        tokens = CollectedTexts(folders)
    return Recorded(activations, tokens, _documents(named, tokens))


def _open_collected(folder: Path) -> Named:
    collected = read_collected(folder)
    parts = [Part(shard.tensors["activations"], str(folder)) for shard in collected.shards]
    return Named(parts, collected.documents, True, collected)


def _open_file(path: Path) -> Named:
    if path.suffix.lower() in (ARROW, PARQUET):
        return _open_columns(path)
    return _open_tensors(path)


def _open_columns(path: Path) -> Named:
    from saeaudit.sources.arrow import read_columns

    columns = read_columns(path)
    parts = [Part(column.stored, str(path)) for column in columns if column.stored.shape[0]]
    if not parts:
        raise AuditError("holds no activations: 0 rows", where=str(path))
    lengths = [column.lengths for column in columns if column.lengths is not None]
    if not lengths:
        return Named(parts, None, counted=True)
    rows = torch.cat(lengths)
    return Named(parts, torch.arange(len(rows)).repeat_interleave(rows), counted=True)


def _open_tensors(path: Path) -> Named:
    where = str(path)
    tensors = read_tensors(path).tensors
    matrices = {n: t for n, t in tensors.items() if len(t.shape) in (2, 3) and t.dtype in FLOATS}
    name = "activations" if "activations" in matrices else next(iter(matrices), "")
    if not matrices or (name != "activations" and len(matrices) > 1):
        raise AuditError(
            "holds no matrix of activations" if not matrices else "holds several matrices",
            where=where,
            hint="one float tensor [N, d], or several of which one is named 'activations'",
        )
    part = Part(matrices[name], where)
    stored = tensors.get("document")
    if stored is not None:
        if tuple(stored.shape) != (part.rows,) or stored.dtype not in INTEGERS:
            raise AuditError(
                f"document is {stored.dtype.name} of shape {list(stored.shape)}",
                where=where,
                hint=f"[{part.rows}] whole numbers, the document of each activation",
            )
        return Named([part], stored.load().long(), False)
    documents = None
    if len(part.stored.shape) == 3:
        documents = torch.arange(part.rows) // max(part.stored.shape[1], 1)
    return Named([part], documents, True)


def _documents(named: Sequence[Named], tokens: Sequence[str] | None) -> Tensor | None:
    """Documents of all, those that were counted apart from one path to the next."""
    numbers = []
    following = 0
    for each in named:
        if each.documents is None:
            return parted_by(tokens)
        if int(each.documents.max()) > MOST_DOCUMENTS:
            raise AuditError(
                f"has a document {int(each.documents.max())}", where=each.parts[0].where
            )
        numbers.append(each.documents + (following if each.counted else 0))
        following = max(following, int(numbers[-1].max()) + 1)
    return torch.cat(numbers)


def parted_by(tokens: Sequence[str] | None) -> Tensor | None:
    """Documents ``[N]`` int64 by tokens that begin or end texts; None where there are none."""
    begins = [token in BEGINNINGS for token in tokens or ()]
    ends = [token in ENDINGS for token in tokens or ()]
    if not any(begins) and not any(ends):
        return None
    after = torch.tensor([False, *ends[:-1]])
    return (torch.tensor(begins) | after).cumsum(0)


def read_tokens(path: Path, count: int) -> list[str]:
    """Token strings, one for each activation: a JSON list, or a line each.

    Lines end at ``\\n`` alone: a token may be a form feed. One that is a line end needs JSON.

    Args:
        path: UTF-8 text.
        count: number of activations in their file.

    Raises:
        AuditError: not such text, or another number of tokens.
    """
    where = str(path)
    data = read_bytes(path, TOKENS)
    if data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        listed = parse_json(data, where, limit=TOKENS, values=MOST_TOKENS)
        tokens: Iterable[Any] = listed
        total = len(listed)
    else:
        tokens = text_lines(io.BytesIO(data), where)
        total = data.count(b"\n") + (data[-1:] not in (b"", b"\n"))
    if total != count:
        raise AuditError(
            f"{total:,} tokens for {count:,} activations",
            where=where,
            hint="one token for each activation, a line each or a JSON list",
        )
    return [token if isinstance(token, str) else str(token) for token in tokens]
