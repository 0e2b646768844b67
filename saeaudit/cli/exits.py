"""Exit statuses, each written once.

A signal's status is 128 and its number, as shells have it.
"""

from __future__ import annotations

import signal

BROKEN = 1
"""It ran, and the policy is broken. Nothing else ends with 1."""
FAILED = 2
"""It could not answer: something cannot be audited, read or written, or there is a bug."""
INTERRUPTED = 128 + signal.SIGINT
CLOSED_PIPE = 128 + signal.SIGPIPE
"""The reader went away."""


def of_signal(number: int) -> int:
    """The status of a run that a signal ended: 143 for SIGTERM, 129 for SIGHUP."""
    return 128 + number
