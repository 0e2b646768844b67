"""What opening something hostile may take."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bounded(seconds: float = 2, megabytes: float = 300) -> Iterator[None]:
    """Fail where the block takes more of the processor, or this process grows by more.

    Not the clock's time: other tests run beside. One that waits for ever meets pytest's timeout.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.process_time()
    yield
    assert time.process_time() - start < seconds
    scale = 1024 if sys.platform != "darwin" else 1
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * scale
    assert grown < megabytes * 1e6
