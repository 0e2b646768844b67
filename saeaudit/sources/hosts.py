"""Hosts: their addresses, and the errors that say what one of them did wrong."""

from __future__ import annotations

import os
import urllib.parse
from contextlib import suppress

from saeaudit.errors import AuditError

WORTH_RETRYING = (408, 429, 500, 502, 503, 504)
HUB = "https://huggingface.co"
REFUSED = {
    404: "nothing of this name is there", 410: "it is not there any more",
    416: "the file there is shorter than was listed; run it again",
}  # fmt: skip
"""What a status means for the user."""
PROXY = "is there a login page or a proxy between? "
"""What an answer makes one ask that is rather of another's, on the way to the host."""


class HostError(AuditError):
    """A host that cannot be reached, stalls, or does not answer as it should."""


class Refused(HostError):
    """An answer with an error status.

    Args:
        url: what was asked for.
        status: HTTP's status.
        code: what the Hugging Face hub adds in X-Error-Code, e.g. "GatedRepo"; else empty.
        where: the same, for messages.
    """

    def __init__(self, url: str, status: int, code: str, *, where: str) -> None:
        self.status = status
        self.code = code
        hint = what_to_check(url)
        if status in WORTH_RETRYING:
            hint = "try again later"
        elif status in REFUSED:
            hint = f"{REFUSED[status]}; {hint}"
        elif status < 400:  # success without content, say
            hint = PROXY + hint
        super().__init__(f"{host_of(url)} answered {status}", where=where, hint=hint)


def endpoint() -> str:
    """The hub's address, which may have a path: HF_ENDPOINT, or the public hub.

    Raises:
        AuditError: HF_ENDPOINT is no web address.
    """
    setting = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    if not is_web_address(setting):
        raise AuditError(f"{setting!r} is no web address", where="HF_ENDPOINT", hint="https://host")
    return setting


def unexpected(url: str, what: str, where: str, *, between: bool = False) -> HostError:
    """An error for an answer that is not what the host's interface promises.

    Args:
        url: what was asked for.
        what: what came.
        where: what was asked for, for messages.
        between: whether it rather is another's answer, on the way there.
    """
    begin = PROXY if between else "run it again; if that repeats, "
    return HostError(
        f"{host_of(url)} answered with {what}", where=where, hint=begin + what_to_check(url)
    )


def what_to_check(url: str) -> str:
    """What a user can check where a host fails."""
    hub = host_of(url) == host_of(endpoint())
    return "check the network and HF_ENDPOINT" if hub else "check the network"


def origin(url: str) -> tuple[str, str, int]:
    """Scheme, host and port of an address.

    Raises:
        ValueError: malformed.
    """
    parts = urllib.parse.urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme, 0)
    return parts.scheme, parts.hostname or "", port


def is_web_address(url: str) -> bool:
    """Whether an address has a host and a scheme that can be asked."""
    try:
        scheme, host, _ = origin(url)
    except ValueError:
        return False
    return scheme in ("http", "https") and bool(host)


def host_of(url: str) -> str:
    """The host of an address, for messages."""
    with suppress(ValueError):
        return urllib.parse.urlsplit(url).netloc.rpartition("@")[2] or url
    return url
