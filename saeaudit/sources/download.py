"""Bytes over HTTP, within limits of time and size: small answers, ranges, and files that resume."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, BinaryIO

from saeaudit.sources.hosts import HostError, Refused, host_of, unexpected
from saeaudit.sources.http import Answer, Broken, Note, Patience, ask

PROGRESS = 1024
"""Bytes of a file that count as progress: fewer in all the time that Patience has is a trickle."""
CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(?:\d{1,18}|\*)")

Bytes = Callable[[int], None]
"""Called with the number of bytes that have arrived since the last call."""


class RangesUnsupported(HostError):
    """A server that sends files only whole."""


@dataclass(frozen=True)
class Page:
    """A small answer."""

    content: bytes
    headers: Mapping[str, str]
    """With names in lower case."""


def get(url: str, *, limit: int, where: str, note: Note | None = None) -> bytes:
    """Return a small answer: an API's page, a listing.

    Args:
        url: http or https.
        limit: the most bytes to take.
        where: what is asked for, for messages.
        note: called with a line when the server asks to wait.

    Raises:
        HostError: no answer, an error status (Refused), or more than `limit` bytes.
    """
    return get_page(url, Patience(where, note), limit=limit).content


def get_json(url: str, *, limit: int, where: str, note: Note | None = None) -> Any:
    """Return a small answer as the JSON that it holds; arguments as for `get`.

    Raises:
        HostError: no answer, too much of it, or no JSON.
    """
    return as_json(get(url, limit=limit, where=where, note=note), url, where)


def as_json(content: bytes, url: str, where: str) -> Any:
    """Parse an answer.

    Raises:
        HostError: it is no JSON, as a network's login page is not.
    """
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise unexpected(url, "no JSON", where, between=True) from error


def get_page(url: str, patience: Patience, *, limit: int) -> Page:
    """Return a small answer with its headers; several answers can share one patience.

    Raises:
        HostError: as `get`.
    """
    while True:
        try:
            with ask(url, patience) as answer:
                if answer.status != 200:
                    raise Refused(url, answer.status, answer.code, where=patience.where)
                content = bytearray()
                for piece in answer.pieces():
                    content += piece
                    if len(content) > limit:
                        raise unexpected(url, f"more than {limit:,} bytes", patience.where)
                    if patience.exhausted:
                        raise Broken("takes too long to answer")
            patience.answered()
            return Page(bytes(content), answer.headers)
        except Broken as error:
            patience.broken(url, error)


def get_range(url: str, start: int, stop: int, *, where: str, note: Note | None = None) -> bytes:
    """Return bytes ``start:stop`` of a remote file, all of them.

    Raises:
        RangesUnsupported: the server sends the file whole.
        HostError: it cannot be fetched.
    """
    sink = io.BytesIO()
    _fill(url, sink, (start, stop), Patience(where, note, keeps=True), whole=False)
    return sink.getvalue()


def append(
    url: str, stream: BinaryIO, size: int, *,
    where: str, progress: Bytes | None = None, note: Note | None = None,
) -> None:  # fmt: skip
    """Append what is missing of a remote file; a cut connection is taken up where it broke.

    Args:
        url: http or https.
        stream: holds the file's beginning, perhaps nothing; never grows beyond `size`.
        size: the file's bytes, as announced.
        where: what is asked for, for messages.
        progress: called with the number of bytes that have arrived.
        note: called with a line when the server asks to wait.

    Raises:
        HostError: it cannot be fetched; what has arrived is in the stream.
        OSError: it cannot be written.
    """
    if stream.seek(0, io.SEEK_END) > size:
        stream.truncate(0)
    patience = Patience(where, note, keeps=True)
    _fill(url, stream, (0, size), patience, whole=True, progress=progress)


def _fill(
    url: str, sink: BinaryIO, span: tuple[int, int], patience: Patience, *,
    whole: bool, progress: Bytes | None = None,
) -> None:  # fmt: skip
    """Append to a sink until it holds a span of bytes of a remote file."""
    start, stop = span
    best = sink.seek(0, io.SEEK_END)
    while (have := sink.seek(0, io.SEEK_END)) < stop - start:
        asked = (start + have, stop)
        unproven = 0
        try:
            with ask(url, patience, {"Range": f"bytes={asked[0]}-{stop - 1}"}) as answer:
                if _begins_anew(answer, url, asked, patience.where, whole=whole):
                    have = sink.seek(0)
                    sink.truncate()
                for piece in answer.pieces():
                    kept = piece[: stop - start - have]
                    sink.write(kept)
                    have += len(kept)
                    fresh = max(have - best, 0)  # what comes again is neither progress nor news
                    best += fresh
                    unproven += fresh
                    if progress and fresh:
                        progress(fresh)
                    if len(kept) < len(piece):
                        raise unexpected(url, "more bytes than announced", patience.where)
                    if unproven >= PROGRESS:
                        unproven = 0
                        patience.progress()
                    elif patience.exhausted:
                        raise Broken("sends hardly anything")
                if have < stop - start:
                    raise Broken("sent less than announced")
        except Broken as error:
            patience.broken(url, error)


def _begins_anew(
    answer: Answer, url: str, asked: tuple[int, int], where: str, *, whole: bool
) -> bool:  # fmt: skip
    """Check that an answer holds the bytes asked for, or the whole file again (True).

    Raises:
        HostError: it is another part of the file, or the whole where a range is needed.
        Broken: it is something else, which may pass: a login page, a proxy's message.
    """
    start, stop = asked
    if answer.status == 206:
        match = CONTENT_RANGE.fullmatch(answer.headers.get("content-range", ""))
        if not match or int(match[1]) != start or not start <= int(match[2]) < stop:
            raise unexpected(url, "other bytes than those asked for", where)
        return False
    if answer.status != 200:
        raise Refused(url, answer.status, answer.code, where=where)
    if not whole:
        raise RangesUnsupported(f"{host_of(url)} does not send ranges of bytes", where=where)
    length = answer.headers.get("content-length")
    page = answer.headers.get("content-type", "").lower().startswith("text/html")
    if length != str(stop) and (length is not None or page):
        raise Broken("sends something else than the file")
    return True
