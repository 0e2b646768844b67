"""Several things at once, in threads that end with the program whatever they are waiting for."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def aside(work: Callable[[], Result]) -> Future[Result]:
    """Begin to work in a thread of its own; what is returned holds the result, or what was raised.

    >>> aside(lambda: 6 * 7).result()
    42
    """
    future: Future[Result] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


def in_parallel(
    work: Callable[[Item], Result], items: Iterable[Item], workers: int
) -> list[Result]:
    """Return ``[work(item) for item in items]``, computed in up to `workers` threads.

    Like an executor's map, but Ctrl-C does not wait for the threads, neither here nor when the
    interpreter ends; an executor joins them, and one that waits for a server holds up the exit.

    Raises:
        Exception: the first that `work` raised, once the items that were begun have ended.
    """
    waiting: queue.SimpleQueue[tuple[int, Item]] = queue.SimpleQueue()
    ended: queue.SimpleQueue[BaseException | None] = queue.SimpleQueue()
    results: dict[int, Result] = {}
    for pair in enumerate(items):
        waiting.put(pair)
    count = min(workers, waiting.qsize())
    failed = threading.Event()

    def run() -> None:
        try:
            while not failed.is_set():
                number, item = waiting.get_nowait()
                results[number] = work(item)
            ended.put(None)
        except queue.Empty:
            ended.put(None)
        except BaseException as error:
            failed.set()
            ended.put(error)

    for _ in range(count):
        threading.Thread(target=run, daemon=True).start()
    errors = [error for error in [ended.get() for _ in range(count)] if error]
    if errors:
        raise errors[0]
    return [results[number] for number in sorted(results)]
