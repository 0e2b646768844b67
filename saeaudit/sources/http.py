"""One request and its answer over HTTP, within limits of time; every error names the host.

The session is huggingface_hub's, with the user's proxies and certificates. It sets no time limit,
follows redirects anywhere and reads errors whole, so these three are done here. Each answer is read
by a thread of its own: whoever waits is held up neither by a name server nor by headers that
trickle in, and Ctrl-C ends the wait at once.
"""

from __future__ import annotations

import os
import queue
import re
import socket
import sys
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from saeaudit.errors import AuditError
from saeaudit.sources.hosts import (
    WORTH_RETRYING,
    HostError,
    Refused,
    endpoint,
    host_of,
    is_web_address,
    origin,
    unexpected,
    what_to_check,
)

TRIES = 5
"""Failures in a row that are put up with."""
UNKNOWN_TRIES = 2
"""The same where no name server knows a host that has not answered before: a machine without a
network, mostly."""
SILENCES = 4
"""Times `silence` without progress that are put up with, tries and pauses together."""
MAX_PAUSE = 8.0
"""Seconds between two tries, where the server does not ask for more."""
MAX_WAIT = 300.0
"""Seconds that a server may ask to wait, all its requests for one answer together."""
MAX_REDIRECTS = 5
REDIRECTS = (301, 302, 303, 307, 308)
Note = Callable[[str], None]
"""Called with lines that a user should read."""


class Broken(Exception):
    """A connection that cannot be made, broke off or fell silent; the message says which.

    It is worth another try, so `Patience` decides whether it becomes an error.
    """


class Patience:
    """How long a server is put up with before its failure is the user's error.

    Args:
        where: what is asked for, for messages.
        note: called with a line when the server asks to wait.
        keeps: whether what has arrived is there for another run.
    """

    def __init__(self, where: str, note: Note | None = None, *, keeps: bool = False) -> None:
        self.where = where
        self._note = note
        self._kept = "; what has arrived is kept, run it again" if keeps else ""
        self._seconds = SILENCES * silence()
        self._since = time.monotonic()
        self._failures = 0
        self._answered = False
        self._waited = 0.0

    def progress(self) -> None:
        """Begin to count anew."""
        self._since = time.monotonic()
        self.answered()

    def answered(self) -> None:
        """Forgive failures, but not the time they took: an answer alone is no progress."""
        self._failures = 0
        self._answered = True

    @property
    def exhausted(self) -> bool:
        """Whether the time without progress is over."""
        return self._left() < 0

    def _left(self) -> float:
        """Seconds without progress that are still put up with."""
        return self._seconds - (time.monotonic() - self._since)

    def broken(self, url: str, error: Broken) -> None:
        """Pause before another try.

        Raises:
            HostError: there have been enough.
        """
        hint = what_to_check(url) + self._kept
        failure = HostError(f"{host_of(url)} {error}", where=self.where, hint=hint)
        failure.__cause__ = error
        unknown = not self._answered and _is_unknown_host(error)
        self._again(failure, None, host_of(url), UNKNOWN_TRIES if unknown else TRIES)

    def refused(self, url: str, answer: Answer) -> None:
        """Pause before another try, for as long as the server asks.

        Raises:
            HostError: there have been enough, or it asks for too long a wait.
        """
        failure = Refused(url, answer.status, answer.code, where=self.where)
        self._again(failure, _asked_wait(answer.headers), host_of(url))

    def _again(
        self, failure: HostError, asked: float | None, host: str, tries: int = TRIES
    ) -> None:
        self._failures += 1
        pause = min(2.0 ** (self._failures - 1), MAX_PAUSE)
        waits = asked is not None and asked > pause
        if asked is not None and waits and self._waited + asked > MAX_WAIT:
            raise HostError(
                f"{host} is limiting requests and asks for too long a wait",
                where=self.where, hint="run it again later, or set HF_TOKEN",
            ) from failure  # fmt: skip
        needed = silence() + (0 if waits else pause)  # a wait that is asked for is no lost time
        if self._failures >= tries or self._left() < needed:
            raise failure
        if asked is not None and waits:
            if self._note:
                self._note(f"{self.where}: {host} is limiting requests; waiting {asked:.0f} s")
            pause = asked
            self._waited += asked
            self._since += asked
        time.sleep(pause)


def _is_unknown_host(error: BaseException | None) -> bool:
    """Whether a name server's answer is behind an error of the HTTP library."""
    while error and not isinstance(error, socket.gaierror):
        error = error.__cause__ or error.__context__
    return error is not None


class Answer:
    """Status and headers of an answer, and its body as it arrives.

    Args:
        url: http or https.
        headers: of the request.

    Raises:
        Broken: no answer within twice `silence`.
    """

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._arrived: queue.Queue[Any] = queue.Queue(maxsize=8)
        self._done = threading.Event()
        threading.Thread(
            target=self._read, args=(url, dict(headers)), daemon=True, name=f"read {host_of(url)}"
        ).start()
        self.status: int
        self.headers: Mapping[str, str]
        """With names in lower case."""
        try:
            self.status, self.headers = self._next(2 * silence())
        except BaseException:
            self.close()
            raise

    @property
    def code(self) -> str:
        """What the Hugging Face hub says about an error status."""
        return self.headers.get("x-error-code", "")

    def pieces(self) -> Iterator[bytes]:
        """The body as it was sent, without any decoding.

        Raises:
            Broken: the connection broke off, or nothing came for `silence` seconds.
        """
        while piece := self._next(silence()):
            yield piece

    def close(self) -> None:
        """Let the thread end, and its connection with it."""
        self._done.set()

    def _next(self, seconds: float) -> Any:
        try:
            item = self._arrived.get(timeout=seconds)
        except queue.Empty:
            raise Broken(f"sent nothing for {seconds:g} seconds") from None
        if isinstance(item, Exception):
            text = " ".join(str(item).split())[:200] or type(item).__name__
            raise Broken(f"cannot be reached, or the connection broke off: {text}") from item
        return item

    def _read(self, url: str, headers: dict[str, str]) -> None:
        wanted = {"headers": headers, "timeout": silence(), "follow_redirects": False}
        try:
            with library().get_session().stream("GET", url, **wanted) as answer:
                named = {key.lower(): value for key, value in answer.headers.items()}
                self._put((answer.status_code, named))
                for piece in answer.iter_raw():  # as they arrive: none is lost where it breaks off
                    if piece:
                        self._put(piece)
                    if self._done.is_set():
                        return
            self._put(b"")
        except Exception as error:  # only the HTTP library runs here: whatever it finds wrong
            self._put(error)

    def _put(self, item: object) -> None:
        while not self._done.is_set():
            with suppress(queue.Full):
                return self._arrived.put(item, timeout=1)


@contextmanager
def ask(url: str, patience: Patience, headers: Mapping[str, str] | None = None) -> Iterator[Answer]:
    """Ask, follow redirects, and wait where the server says so.

    HF_TOKEN goes to the hub's own origin and nowhere else.

    Args:
        url: http or https.
        patience: with this server.
        headers: of the request.

    Raises:
        HostError: too many redirects or refusals, or content in an encoding.
        Broken: a connection that failed.
    """
    from saeaudit import __version__

    library()  # before a time limit is read
    plain = {"Accept-Encoding": "identity", "User-Agent": f"saeaudit/{__version__}"}
    asked, hops = url, 0
    while True:
        answer = Answer(asked, {**plain, **_authorization(asked), **(headers or {})})
        try:
            if answer.status in REDIRECTS:
                hops += 1
                if hops > MAX_REDIRECTS:
                    raise unexpected(url, "too many redirects", patience.where, between=True)
                asked = _following(asked, answer.headers.get("location", ""), patience.where)
            elif answer.status in WORTH_RETRYING:
                patience.refused(asked, answer)
                asked, hops = url, 0
            else:
                if answer.headers.get("content-encoding", "identity").lower() != "identity":
                    raise unexpected(asked, "encoded content", patience.where, between=True)
                yield answer
                return
        finally:
            answer.close()


def library() -> Any:
    """huggingface_hub.utils; its import fails on a time limit that is no whole number of seconds.

    Raises:
        AuditError: the library refuses the environment's settings.
    """
    name = "HF_HUB_DOWNLOAD_TIMEOUT"
    setting = os.environ.pop(name, None) if "huggingface_hub.constants" not in sys.modules else None
    try:
        import huggingface_hub.constants
        import huggingface_hub.utils
    except ValueError as error:
        raise AuditError(f"a bad value in an HF_ variable: {error}", where="environment") from error
    finally:
        if setting is not None:
            os.environ[name] = setting
    return huggingface_hub.utils


@contextmanager
def untracked() -> Iterator[None]:
    """Keep huggingface_hub from telling the hub of the user's software, in what runs inside."""
    library()
    from huggingface_hub import constants

    before = constants.HF_HUB_DISABLE_TELEMETRY
    constants.HF_HUB_DISABLE_TELEMETRY = True
    try:
        yield
    finally:
        constants.HF_HUB_DISABLE_TELEMETRY = before


def silence() -> float:
    """Seconds without a byte that end a read: HF_HUB_DOWNLOAD_TIMEOUT, 10 by default."""
    try:
        seconds = float(os.environ.get("HF_HUB_DOWNLOAD_TIMEOUT", ""))
    except ValueError:
        return 10.0
    return seconds if 0 < seconds <= 3600 else 10.0


def _authorization(url: str) -> dict[str, str]:
    if origin(url) != origin(endpoint()):
        return {}
    token = library().get_token_to_send(None)
    if token and not re.fullmatch(r"[!-~]+", token):  # never quoted by the HTTP library's error
        raise AuditError("holds characters that no token has", where="HF_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _following(url: str, location: str, where: str) -> str:
    """Where a redirect leads.

    Raises:
        HostError: not to a web address.
    """
    following = ""
    with suppress(ValueError):
        following = urllib.parse.urljoin(url, location)
    if not location or not is_web_address(following):
        raise unexpected(url, "a redirect to no web address", where, between=True)
    return following


def _asked_wait(headers: Mapping[str, str]) -> float | None:
    """Seconds that a server asks to wait: Retry-After, as a number or a date, or RateLimit.

    The hub says ``RateLimit: "api";r=0;t=55``: nothing remains of this window of 55 seconds.
    """
    text = headers.get("retry-after", "").strip()
    window = re.search(r"r\s*=\s*0\s*;\s*t\s*=\s*(\d+)", headers.get("ratelimit", ""))
    if not text and window:
        text = window[1]
    if re.fullmatch(r"\d+", text, re.ASCII):
        return float(text[:12])
    with suppress(ValueError, TypeError, OverflowError):
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        return max((date - datetime.now(UTC)).total_seconds(), 0.0)
    return None
