"""What takes a while and can be begun before it is needed: importing PyTorch."""

from __future__ import annotations

import threading
from contextlib import suppress


def import_torch_ahead() -> None:
    """Import PyTorch in a thread, while a network or a person is waited for.

    Whoever needs it imports it as ever, and waits for this thread where it has not ended. What an
    import fails on is raised there, too.
    """

    def work() -> None:
        with suppress(Exception):
            import torch  # noqa: F401

    threading.Thread(target=work, daemon=True, name="open torch").start()
