"""Write collected activations so that a run that was killed goes on to the same bytes.

A shard is complete or not there. Each says in its metadata where it ends: in which document, after
how many of its activations, and what was dropped in the documents before. So the last one is all
that is needed to go on, and whoever appends may begin again at any document up to that one.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor

from saeaudit.errors import AuditError
from saeaudit.sources.collected.manifest import (
    AFTER,
    BEFORE,
    LOCK,
    MANIFEST,
    STRICT,
    VOCABULARY,
    Manifest,
    Totals,
    dump_manifest,
    parse_as,
    read_manifest,
    shard_name,
)
from saeaudit.sources.collected.shards import columns, ids_in, read_shard
from saeaudit.sources.durable import storing, write_whole
from saeaudit.weights.tensors import Contents

SHARD_BYTES = 64 << 20
"""Bytes of a shard's activations: what a crash can lose, and what is held in memory."""
WRITTEN = re.compile(r"(manifest\.json|vocabulary\.json|activations-\d{5,}\.safetensors)")
LEFT_OVER = re.compile(WRITTEN.pattern + r"\.\d+-\d+\.new")
"""What `write_whole` leaves where the process is killed."""
ENDED = "ended"
"""Name of what a shard's metadata says."""


class Document(NamedTuple):
    """One document, and what is kept of it."""

    number: int
    """Its place among all that are read, from 0; they are appended in ascending order."""
    ids: Tensor
    """``[t]`` of any integer dtype: its tokens, as the model read them."""
    positions: Tensor
    """``[n]`` int64, ascending: which of these are kept; there may be none."""
    activations: Tensor
    """``[n, d]`` of any float dtype: at these positions."""
    dropped: Mapping[str, int]
    """Positions that are not kept, counted by reason."""


@dataclass(frozen=True)
class Ended:
    """Where the activations of a shard end."""

    __pydantic_config__ = STRICT

    document: int
    """The document of the last one."""
    kept: int
    """Activations of that document in this shard and those before."""
    dropped: dict[str, int]
    """Positions dropped in the documents before that one, by reason."""


def rows_for(width: int, itemsize: int) -> int:
    """Activations in a shard.

    >>> rows_for(2304, 2)
    14563
    """
    return max(1, SHARD_BYTES // (width * itemsize))


class Writer:
    """A folder that is being filled; a context, within which no other process may fill it.

    ::

        with Writer(folder, manifest, resume=True) as writer:
            if not writer.manifest.totals:
                for document in documents(writer.document):  # or from any earlier one
                    writer.append(document)
                writer.finish(text_of)
    """

    manifest: Manifest
    """With totals where the folder is complete: then there is nothing to append."""
    document: int
    """The next document to append, from 0; some of its activations may be there."""
    rows: int
    """Activations of the documents before that one."""

    def __init__(self, folder: Path, manifest: Manifest, *, resume: bool = False) -> None:
        """Make the folder, or see how far another process came.

        Args:
            folder: a new or empty one or, to resume, one that was begun with the same manifest.
            manifest: what is to be written, without totals.
            resume: whether to go on in a folder that was begun.

        Raises:
            AuditError: the folder holds other files, or activations that are not to be resumed or
                were begun with another manifest; another process fills it; it cannot be written.
        """
        self.manifest, self._folder = manifest, folder
        self._shards: list[Contents] = []
        self._ended = self._resumed_at = Ended(0, 0, {})
        self._held: dict[str, Tensor] = {}
        self._filled = 0
        with ExitStack() as stack:
            with _storing(folder):
                folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_alone(folder))
                self._begin(resume=resume)
            self._stack = stack.pop_all()
        self._dropped = Counter(self._resumed_at.dropped)
        self.document = self._resumed_at.document
        self.rows = len(self._shards) * manifest.shard_rows - self._resumed_at.kept

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._stack.close()

    def append(self, document: Document) -> None:
        """Append what is kept of the next document; what is there already is passed over.

        Raises:
            AuditError: an activation of another width, or one that is not finite in the dtype that
                is kept; the folder cannot be written.
            ValueError: documents that do not ascend.
        """
        number, count = document.number, len(document.positions)
        if number < self._resumed_at.document:
            return
        if number < self.document:
            raise ValueError(f"document {number} after {self.document - 1}")
        start = self._resumed_at.kept if number == self._resumed_at.document else 0
        rows = self._rows(document)
        while start < count:
            stop = min(count, start + self.manifest.shard_rows - self._filled)
            self._hold(rows, start, stop)
            self._ended = Ended(number, stop, dict(sorted(self._dropped.items())))
            if self._filled == self.manifest.shard_rows:
                self._write_shard()
            start = stop
        self.rows += count
        self._dropped.update(document.dropped)
        self.document = number + 1

    def finish(self, text_of: Callable[[int], str]) -> Manifest:
        """Write what is held, the texts of all tokens that occur, and what there is in all.

        Args:
            text_of: the text of a token id.

        Raises:
            AuditError: the folder cannot be written.
        """
        if self._filled:
            self._write_shard()
        texts = {str(token): text_of(token) for token in ids_in(self._shards)}
        totals = Totals(self.rows, self.document, dict(sorted(self._dropped.items())))
        self.manifest = replace(self.manifest, totals=totals)
        with _storing(self._folder):
            content = json.dumps(texts, indent=0, ensure_ascii=False) + "\n"
            write_whole(self._folder / VOCABULARY, content.encode("utf-8", "replace"))
            write_whole(self._folder / MANIFEST, dump_manifest(self.manifest))
        return self.manifest

    def _begin(self, *, resume: bool) -> None:
        check_folder(self._folder, resume=resume)
        names = {path.name for path in self._folder.iterdir()} - {LOCK}
        left_over = {name for name in names if LEFT_OVER.fullmatch(name)}
        if MANIFEST in names:
            begun = read_manifest(self._folder)
            _check_same(begun, self.manifest, self._folder)
            self.manifest = begun
            if not begun.totals:
                self._resumed_at = self._complete_shards()
                complete = {shard_name(number) for number in range(len(self._shards))}
                left_over |= {name for name in names if WRITTEN.fullmatch(name)} - complete
                left_over.remove(MANIFEST)
        for name in left_over:
            (self._folder / name).unlink()
        if MANIFEST not in names:
            write_whole(self._folder / MANIFEST, dump_manifest(self.manifest))

    def _complete_shards(self) -> Ended:
        """List the shards that are full, and say where the last one ends."""
        ended = Ended(0, 0, {})
        while (path := self._path(len(self._shards))).exists():
            try:
                shard = read_shard(path, self.manifest, self.manifest.shard_rows)
            except AuditError:  # the last one has fewer rows, and is made again
                break
            ended = parse_as(Ended, str(shard.scalars.get(ENDED)), str(path))
            self._shards.append(shard)
        return ended

    def _path(self, number: int) -> Path:
        return self._folder / shard_name(number)

    def _rows(self, document: Document) -> dict[str, Tensor]:
        """A document's part of each column."""
        ids, positions = document.ids.to("cpu", torch.int32), document.positions.cpu()
        count = len(positions)
        absent = torch.full((max(BEFORE, AFTER),), -1, dtype=torch.int32)
        padded = torch.cat([absent[:BEFORE], ids, absent[:AFTER]])
        before, after = torch.arange(BEFORE), torch.arange(BEFORE + 1, BEFORE + 1 + AFTER)
        return {
            "activations": self._kept(document),
            "tokens": ids[positions],
            "document": torch.full((count,), document.number),
            "position": positions.to(torch.int32),
            "before": padded[positions[:, None] + before],
            "after": padded[positions[:, None] + after],
        }

    def _kept(self, document: Document) -> Tensor:
        """Activations ``[n, d]`` as they are kept."""
        dtype, _ = columns(self.manifest)["activations"]
        kept = document.activations.to("cpu", dtype.in_torch())
        shape = (len(document.positions), self.manifest.width)
        if kept.shape != shape:
            raise AuditError(
                f"activations of shape {list(kept.shape)} where {list(shape)} is needed",
                where=f"document {document.number}",
            )
        finite = kept.isfinite().all(1)
        if not bool(finite.all()):
            position = int(document.positions[(~finite).nonzero()[0]])
            raise AuditError(
                f"the activation at position {position} is not finite in {dtype.name}",
                where=f"document {document.number}",
                hint="--dtype float32, unless the model itself overflows",
            )
        return kept

    def _hold(self, rows: Mapping[str, Tensor], start: int, stop: int) -> None:
        if not self._held:
            count = self.manifest.shard_rows
            self._held = {
                name: torch.empty(count, *inner, dtype=dtype.in_torch())
                for name, (dtype, inner) in columns(self.manifest).items()
            }
        filled = self._filled + stop - start
        for name, column in rows.items():
            self._held[name][self._filled : filled] = column[start:stop]
        self._filled = filled

    def _write_shard(self) -> None:
        path = self._path(len(self._shards))
        held = {name: column[: self._filled] for name, column in self._held.items()}
        # One entry: the library writes several in an order that differs from run to run.
        content = save(held, {ENDED: json.dumps(asdict(self._ended))})
        with _storing(self._folder):
            write_whole(path, content)
        self._shards.append(read_shard(path, self.manifest, self._filled))
        self._filled = 0


def check_folder(folder: Path, *, resume: bool) -> None:
    """Refuse a folder that is not to be filled, before any work is done for it.

    Raises:
        AuditError: it is no folder, it holds other files, or activations that `resume` does not ask
            to go on with.
    """
    where = str(folder)
    with _storing(folder):
        if folder.exists() and not folder.is_dir():
            raise AuditError("is no folder", where=where, hint="name a new folder")
        names = {path.name for path in folder.iterdir()} - {LOCK} if folder.exists() else set()
    if MANIFEST in names:
        if not resume:
            raise AuditError(
                "holds collected activations already", where=where,
                hint="--resume goes on, or name another folder",
            )  # fmt: skip
    elif not all(map(LEFT_OVER.fullmatch, names)):
        raise AuditError("holds other files", where=where, hint="name a new folder")


def _check_same(begun: Manifest, asked: Manifest, folder: Path) -> None:
    """Refuse to go on with other arguments, naming the first that differs."""
    first, second = (_flat(asdict(replace(each, totals=None))) for each in (begun, asked))
    for name in sorted(first.keys() | second.keys()):
        if first.get(name) != second.get(name):
            raise AuditError(
                f"was begun with {name} {first.get(name)}, not {second.get(name)}",
                where=str(folder),
                hint="the same arguments, or another folder",
            )


def _flat(nested: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of nested mappings by the names of the innermost."""
    flat: dict[str, Any] = {}
    for name, value in nested.items():
        flat |= _flat(value) if isinstance(value, dict) else {name: value}
    return flat


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes out; the system frees the lock of one that was killed.

    Raises:
        AuditError: another process has it.
    """
    from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]

    with ExitStack() as stack:
        try:
            stack.enter_context(WeakFileLock(folder / LOCK, timeout=0.1))
        except TimeoutError as error:
            raise AuditError("another process is filling it", where=str(folder)) from error
        yield


def _storing(folder: Path) -> AbstractContextManager[None]:
    return storing(folder, "name another folder by -o")
