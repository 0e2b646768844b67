"""The listing of a public bucket: S3's XML, page by page, each entry of it checked."""

from __future__ import annotations

import re
import urllib.parse
from xml.etree import ElementTree

from saeaudit.errors import AuditError
from saeaudit.sources.download import get_page
from saeaudit.sources.hosts import HostError, host_of, unexpected
from saeaudit.sources.http import Note, Patience

MAX_PAGE = 2 << 20
"""Bytes; a page of a thousand keys takes a quarter of that."""
MAX_PAGES = 200
MAX_KEY = 1024
"""Characters; S3's own limit, in bytes."""
SIZE = re.compile(r"[0-9]{1,15}")


def list_bucket(base: str, prefix: str, *, where: str, note: Note | None = None) -> dict[str, int]:
    """List what lies below a prefix.

    Args:
        base: address of the bucket.
        prefix: of the keys, with the slash that ends it.
        where: what is listed, for messages.
        note: called with lines that a user should read.

    Returns:
        Sizes in bytes by key, without the prefix. Keys can be any text: they are not paths yet.

    Raises:
        AuditError: the host cannot be reached, or does not answer with such a listing.
    """
    sizes: dict[str, int] = {}
    token, tokens = "", {""}
    patience = Patience(where, note)  # with all pages together: an endless listing ends
    for _ in range(MAX_PAGES):
        query = {"list-type": "2", "prefix": prefix}
        if token:
            query["continuation-token"] = token
        url = f"{base}/?{urllib.parse.urlencode(query)}"
        root = _parse(get_page(url, patience, limit=MAX_PAGE).content, url, where)
        before = len(sizes)
        for item in root.iterfind("{*}Contents"):
            name, size = _entry(item, prefix, url, where)
            if name in sizes:
                raise unexpected(url, "the same key twice", where)
            sizes[name] = size
        token = root.findtext("{*}NextContinuationToken") or ""
        if root.findtext("{*}IsTruncated") != "true" or not token:
            return sizes
        if token in tokens or len(sizes) == before:
            raise unexpected(url, "a listing that goes in circles", where)
        tokens.add(token)
        if patience.exhausted:
            break
    raise HostError(
        f"{host_of(base)} answered with a listing without end", where=where,
        hint="does SAEAUDIT_NEURONPEDIA_URL name such a bucket?",
    )  # fmt: skip


def _parse(page: bytes, url: str, where: str) -> ElementTree.Element:
    try:
        root = ElementTree.fromstring(page)
    except (ElementTree.ParseError, LookupError, ValueError) as error:
        raise unexpected(url, "no listing of a bucket", where, between=True) from error
    if root.tag.rpartition("}")[2] != "ListBucketResult":
        raise unexpected(url, "no listing of a bucket", where, between=True)
    return root


def _entry(item: ElementTree.Element, prefix: str, url: str, where: str) -> tuple[str, int]:
    key, size = item.findtext("{*}Key") or "", item.findtext("{*}Size") or ""
    if len(key) > MAX_KEY or not SIZE.fullmatch(size):
        raise unexpected(url, "an entry without a key or a size", where)
    if not key.startswith(prefix):
        raise AuditError(
            f"{host_of(url)} lists {key[:80]!r}, which was not asked for; refused", where=where
        )
    return key.removeprefix(prefix), int(size)
