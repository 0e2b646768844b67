"""Decoder-only fetches: ranged reads that leave the encoder on the hub.

The decoder and the small vectors of an uncompressed .npz or a .safetensors file are brought over
as they are and kept as one safetensors file, with where they came from in its metadata. In
saeaudit's own cache, as in the hub's, a copy is a link to a file that is named by its sha256: no
hash of the hub covers a part of a file, but later damage is found.

    decoders/models--owner--repo/<commit>/<path>.decoder.safetensors -> ../blobs/<sha256>
    decoders/models--owner--repo/parts/   what has not arrived in full, with a record of it
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from saeaudit.errors import AuditError, WeightsError
from saeaudit.sources.cache import DECODER_SUFFIX, check_name, decoder_root, link
from saeaudit.sources.digests import sha256_of
from saeaudit.sources.download import Bytes, RangesUnsupported, get_range
from saeaudit.sources.durable import check_room, keep, locked, storing, write_whole
from saeaudit.sources.hub import Repo
from saeaudit.sources.hubapi import hub_errors
from saeaudit.sources.segments import Read, Segment, UnsuitableError, find_segments
from saeaudit.weights.find import Listed

ENCODER = re.compile(
    r"(?:[Ww]_enc(?:_\d+)?|^E|W_E|W_skip|affine_skip_connection|"
    r"encoder.*\.weight|attn_layers\..*)$"
)
"""Names of the tensors that are left behind."""
PIECE = 16 << 20
"""Bytes asked for at once; after each, a crash costs no more than the next."""
RECORD = re.compile(r"(\d{1,18}) ([0-9a-f]{64})\n", re.ASCII)
DIGEST = re.compile(r"[0-9a-f]{64}")

Opens = Callable[[Path], object]
"""Raises AuditError where a file is not a usable SAE."""


def decoder_path(repo: Repo, listed: Listed) -> Path:
    """Where a decoder-only copy is kept."""
    name = check_name(listed.file, repo.repo_id) + DECODER_SUFFIX
    return _folder(repo) / repo.commit / name


def fetch_decoder(repo: Repo, listed: Listed, opens: Opens, progress: Bytes | None = None) -> Path:
    """Bring one SAE's decoder and vectors; goes on where an earlier try broke off.

    Its configuration comes whole, into the hub's cache.

    Args:
        repo: where it is.
        listed: which it is.
        opens: tries a copy before it gets its name; what does not open is thrown away.
        progress: called with the number of bytes that have arrived.

    Returns:
        The copy, whole and opened. One process fetches it while others wait.

    Raises:
        UnsuitableError: the whole file is needed.
        AuditError: it cannot be fetched, or is not what it says it is.
    """
    place = decoder_path(repo, listed)
    if repo.offline and not place.is_file():
        raise AuditError(
            "the decoder is not in the cache",
            where=repo.uri(listed.name),
            hint="run the same command once without --offline",
        )
    repo.fetch(listed.configuration)
    if not repo.offline and not _whole(place):
        parts = _folder(repo) / "parts"
        name = hashlib.sha256(f"{repo.commit}/{listed.file}".encode()).hexdigest()
        part = parts / f"{name}.safetensors"
        with storing(parts), locked(part.with_suffix(".lock"), repo.uri(listed.name), repo.note):
            if not _whole(place):  # by another process meanwhile
                _discard(place)
                digest = _bring(repo, listed, part, progress)
                _try(part, opens, repo.uri(listed.name))
                _publish(part, digest, place)
                return place
    opens(place)
    return place


def _folder(repo: Repo) -> Path:
    return decoder_root() / repo.folder.name


def _whole(place: Path) -> bool:
    """Whether a copy is here and holds what it held when it was fetched."""
    blob = place.resolve()
    if not place.is_symlink() or not blob.is_file() or not DIGEST.fullmatch(blob.name):
        return False
    return sha256_of(blob) == blob.name


def _discard(place: Path) -> None:
    blob = place.resolve()
    if place.is_symlink() and DIGEST.fullmatch(blob.name):
        blob.unlink(missing_ok=True)
    place.unlink(missing_ok=True)


def _bring(repo: Repo, listed: Listed, part: Path, progress: Bytes | None) -> str:
    """Fill a part file; returns the sha256 of what it then holds."""
    uri = repo.uri(listed.file)
    parent = listed.file.rsplit("/", 1)[0] if "/" in listed.file else ""
    file = repo.files(parent).get(listed.file)
    if file is None:
        raise AuditError("the hub does not list it any more", where=uri, hint="run it again")
    read = _reader(repo, listed.file)
    try:
        segments = find_segments(
            listed.file, read, file.size, lambda name: not ENCODER.search(name)
        )
    except WeightsError as error:
        raise WeightsError(error.what, where=uri, hint="the file on the hub is damaged") from error
    if not any(len(s.shape) >= 2 for s in segments):
        raise UnsuitableError("no decoder that lies apart from the encoder")
    header = _header(segments, repo, listed)
    check_room(part.parent, len(header) + sum(s.size for s in segments), uri)
    record = part.with_suffix(".record")
    with part.open("r+b" if part.exists() else "w+b") as stream:
        digest = _resume(stream, record, header)
        for start, stop in _pieces(segments, stream.tell() - len(header)):
            piece = read(start, stop)
            stream.write(piece)
            digest.update(piece)
            stream.flush()
            os.fsync(stream.fileno())
            write_whole(record, f"{stream.tell()} {digest.hexdigest()}\n".encode())
            if progress:
                progress(len(piece))
    return digest.hexdigest()


def _reader(repo: Repo, path: str) -> Read:
    """Return a function that fetches a range of bytes of a remote file."""
    url, uri = repo.url(path), repo.uri(path)

    def read(start: int, stop: int) -> bytes:
        with repo.patient(), hub_errors(uri):
            try:
                return get_range(url, start, stop, where=uri, note=repo.note)
            except RangesUnsupported as error:
                raise UnsuitableError("the server does not send ranges of bytes") from error

    return read


def _resume(stream: BinaryIO, record: Path, header: bytes) -> hashlib._Hash:
    """Position a part file behind what an earlier try is recorded to have left in it.

    A part without a record, with other content than recorded or of another file begins anew.

    Returns:
        The digest of what the part holds: its header at least.
    """
    said = RECORD.fullmatch(record.read_text("ascii", "replace")) if record.is_file() else None
    if said and stream.read(len(header)) == header:
        digest = hashlib.sha256(header)
        missing = int(said[1]) - len(header)
        while missing > 0 and (piece := stream.read(min(missing, PIECE))):
            digest.update(piece)
            missing -= len(piece)
        if missing == 0 and digest.hexdigest() == said[2]:
            stream.seek(int(said[1]))
            stream.truncate()
            return digest
    stream.seek(0)
    stream.truncate()
    stream.write(header)
    return hashlib.sha256(header)


def _pieces(segments: Sequence[Segment], done: int) -> Iterator[tuple[int, int]]:
    """Ranges of the remote file that are still to be read, after `done` bytes of the segments."""
    for segment in segments:
        skipped = min(done, segment.size)
        done -= skipped
        stop = segment.start + segment.size
        for start in range(segment.start + skipped, stop, PIECE):
            yield start, min(start + PIECE, stop)


def _try(part: Path, opens: Opens, uri: str) -> None:
    """Open a copy that has arrived, before it has a name; what does not open is thrown away."""
    try:
        opens(part)
    except AuditError as error:
        _forget(part)
        raise WeightsError(
            f"what arrived cannot be used and was thrown away: {error.what}",
            where=uri,
            hint="fetch it without --decoder-only to see whether the whole file is better",
        ) from error


def _publish(part: Path, digest: str, place: Path) -> None:
    blob = part.parent.parent / "blobs" / digest
    blob.parent.mkdir(exist_ok=True)
    keep(part, blob)
    link(place, blob, decoder_root())
    _forget(part)


def _forget(part: Path) -> None:
    """Remove a part and its records, those included that a killed process was writing."""
    part.unlink(missing_ok=True)
    for record in part.parent.glob(f"{part.stem}.record*"):
        record.unlink(missing_ok=True)


def _header(segments: Sequence[Segment], repo: Repo, listed: Listed) -> bytes:
    entries: dict[str, object] = {
        "__metadata__": {
            "saeaudit.format": listed.format,
            "saeaudit.uri": repo.uri(listed.file, repo.commit),
            "saeaudit.part": "decoder and vectors, without the encoder",
        }
    }
    offset = 0
    for s in segments:
        span = [offset, offset + s.size]
        entries[s.name] = {"dtype": s.dtype, "shape": s.shape, "data_offsets": span}
        offset += s.size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text
