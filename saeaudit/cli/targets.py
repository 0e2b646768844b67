"""From the targets of a command line to SAEs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

    from saeaudit.sources.sae import Sae


def resolve_targets(
    targets: Sequence[str], globs: Sequence[str] | None, people: Console, *, offline: bool,
    assume: str | None = None,
) -> list[Sae]:  # fmt: skip
    """Resolve targets, in the order in which they were typed.

    Args:
        targets: as typed.
        globs: over SAE ids; all where None.
        people: is told what is waited for.
        offline: open no socket.
        assume: what the user says of plain files.

    Raises:
        AuditError: an assumption that is none; one of them names nothing, or cannot be asked for.
    """
    from saeaudit.cli.console import Watcher
    from saeaudit.sources.target import resolve

    note = Watcher(people).note
    return [
        sae
        for target in targets
        for sae in resolve(target, globs or (), offline=offline, note=note, assumptions=assume)
    ]
