"""Addresses that people paste from a browser: pages of the hub and of Neuronpedia.

No such address is ever asked for: what it names is read off it and becomes a target. Addresses that
name anything else, or hide it, are refused, and what may be secret in them is not repeated.
"""

from __future__ import annotations

import re
import urllib.parse
from contextlib import suppress
from typing import NamedTuple

from saeaudit.errors import AuditError, TargetError
from saeaudit.sources.cache import check_name
from saeaudit.sources.hosts import endpoint

HUBS = ("huggingface.co", "www.huggingface.co", "hf.co")
NEURONPEDIA = ("neuronpedia.org", "www.neuronpedia.org")
BARE = re.compile(rf"(?:{'|'.join(map(re.escape, (*HUBS, *NEURONPEDIA)))})/", re.IGNORECASE)
"""An address whose scheme was left out."""
KNOWN = "known: https://huggingface.co/OWNER/REPO and https://www.neuronpedia.org/MODEL/SOURCE"
VIEWS = ("tree", "blob", "resolve", "raw", "commit")
"""What follows a repository's name in the address of one of its pages, before the revision."""
OTHERS = ("datasets", "spaces", "collections", "papers", "docs", "api")
"""First parts of the hub's addresses that are of no model's repository."""
LATEST = "main"


class Page(NamedTuple):
    """What a pasted address names: one of the two."""

    uri: str = ""
    """``hf://owner/repo[@revision][/path]``."""
    source: str = ""
    """Neuronpedia's ``model/source``."""
    feature: int | None = None
    """The feature that Neuronpedia's page is about."""


def read_page(target: str) -> Page | None:
    """What an address names; None where the target is no address.

    Raises:
        TargetError: an address of another site or thing, or one that hides what it names.
    """
    if target.startswith("hf://") or not ("://" in target or BARE.match(target)):
        return None
    address = target if "://" in target else f"https://{target}"
    shown, parts, host = _split(address)
    path = _path(parts.path, shown)
    if host in NEURONPEDIA:
        return _neuronpedia(path, shown)
    if host not in HUBS:
        path = _below_endpoint(parts, path, shown)
    return _hub(path, shown)


def _split(address: str) -> tuple[str, urllib.parse.SplitResult, str]:
    """An address as it can be shown, its parts, and its host.

    Raises:
        TargetError: it is none, or has a name, a password, a port or a fragment in it.
    """
    try:
        parts = urllib.parse.urlsplit(address)
        host = (parts.hostname or "").lower()
        port = parts.port
    except ValueError as error:
        raise TargetError("no web address", where=_scheme(address), hint=KNOWN) from error
    shown = f"{parts.scheme}://{host}{parts.path}"[:200]
    if parts.scheme not in ("http", "https") or not host:
        raise TargetError("no address of an SAE", where=_scheme(address), hint=KNOWN)
    if parts.username is not None or parts.password is not None:
        raise TargetError(
            "an address with a name or a password in it; refused", where=f"{parts.scheme}://{host}",
            hint="HF_TOKEN is for private repositories",
        )  # fmt: skip
    if parts.fragment:
        raise TargetError("an address with a fragment (#…); refused", where=shown)
    if port is not None and host in (*HUBS, *NEURONPEDIA):
        raise TargetError("an address with a port; refused", where=shown)
    return shown, parts, host


def _scheme(address: str) -> str:
    """As much of an address that cannot be read as holds no secret."""
    return address.partition("://")[0][:20] + "://…"


def _path(path: str, shown: str) -> tuple[str, ...]:
    """The parts of an address's path.

    Raises:
        TargetError: percent-encodings, or a name that leads elsewhere.
    """
    if "%" in path:
        raise TargetError(
            "an address with percent-encodings; refused", where=shown,
            hint="write what they stand for as hf://owner/repo[@revision][/path]",
        )  # fmt: skip
    names = path.strip("/")
    if names:
        try:
            check_name(names, shown)
        except AuditError as error:
            raise TargetError(error.what, where=shown) from error
    return tuple(names.split("/")) if names else ()


def _below_endpoint(
    parts: urllib.parse.SplitResult, path: tuple[str, ...], shown: str
) -> tuple[str, ...]:
    """The path below HF_ENDPOINT's, where the address is of that mirror.

    Raises:
        TargetError: of any other host.
    """
    with suppress(ValueError, AuditError):
        mirror = urllib.parse.urlsplit(endpoint())
        below = tuple(filter(None, mirror.path.split("/")))
        same = (parts.scheme, parts.netloc) == (mirror.scheme, mirror.netloc)
        if same and path[: len(below)] == below:
            return path[len(below) :]
    raise TargetError("an address of another site", where=shown, hint=KNOWN)


def _hub(path: tuple[str, ...], shown: str) -> Page:
    if path and path[0] in OTHERS:
        raise TargetError(f"an address of the hub's {path[0]}, not of a model", where=shown)
    if len(path) < 2:
        raise TargetError("an address that names no repository", where=shown, hint=KNOWN)
    owner, repo, *view = path
    if not view:
        return Page(uri=f"hf://{owner}/{repo}")
    if view[0] not in VIEWS or len(view) < 2:
        raise TargetError(
            "a page of the hub that is no folder or file", where=shown,
            hint=f"hf://{owner}/{repo}",
        )  # fmt: skip
    _, revision, *inside = view
    at = "" if revision == LATEST else f"@{revision}"
    return Page(uri="/".join((f"hf://{owner}/{repo}{at}", *inside)))


def _neuronpedia(path: tuple[str, ...], shown: str) -> Page:
    number = path[2] if len(path) == 3 else "0"
    if len(path) not in (2, 3) or not re.fullmatch(r"[0-9]{1,9}", number):
        raise TargetError(
            "a page of Neuronpedia that is of no SAE", where=shown,
            hint="https://www.neuronpedia.org/MODEL/SOURCE[/FEATURE]",
        )  # fmt: skip
    return Page(source="/".join(path[:2]), feature=int(number) if len(path) == 3 else None)
