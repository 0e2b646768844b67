"""From the targets of a command line to SAEs, and whether they may be fetched."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

import typer

from saeaudit.errors import AuditError

if TYPE_CHECKING:
    from rich.console import Console

    from saeaudit.sources.sae import Sae

LARGE = 20 * 10**9
"""Bytes that are not fetched without a word."""


def check_targets(targets: Sequence[str]) -> bool:
    """Look at all targets before anything slow is imported and before any is asked for.

    Returns:
        Whether the hub has to be asked for one of them.

    Raises:
        TargetError: one of them names nothing.
    """
    from saeaudit.sources.grammar import parse_target

    remote = [parse_target(target).remote for target in targets]
    return any(remote)


def resolve_targets(
    targets: Sequence[str], globs: Sequence[str] | None, people: Console, *, offline: bool,
    assume: str | None = None, yes: bool = False,
) -> list[Sae]:  # fmt: skip
    """Resolve targets, in the order in which they were typed, once all of them can be meant.

    Args:
        targets: as typed.
        globs: over SAE ids; all where None.
        people: is told what is waited for.
        offline: open no socket.
        assume: what the user says of plain files.
        yes: whether much may be fetched without asking.

    Raises:
        AuditError: an assumption that is none; one of them names nothing, cannot be asked for, or
            is more than may be fetched.
    """
    from saeaudit.cli.console import Watcher
    from saeaudit.sources.digests import EarlyDigest
    from saeaudit.sources.parallel import aside
    from saeaudit.sources.target import resolve

    if check_targets(targets):
        aside(lambda: import_module("torch"))  # while the hub, or a person, is waited for
    note = Watcher(people).note
    saes = [
        sae
        for target in targets
        for sae in resolve(target, globs or (), offline=offline, note=note, assumptions=assume)
    ]
    confirm_fetch(saes, " ".join(targets), yes=yes)
    # Hashed while PyTorch is imported; the others are opened while their predecessors are audited.
    return [replace(saes[0], early=EarlyDigest.begin(saes[0].file)), *saes[1:]]


def confirm_fetch(saes: Sequence[Sae], where: str, *, yes: bool) -> None:
    """Say what is about to be fetched where that is much, and ask on a terminal.

    Args:
        saes: resolved targets.
        where: the targets, for messages.
        yes: whether the user has said so already.

    Raises:
        AuditError: it is more than `LARGE`, or than the disk has free, and nobody agrees.
    """
    from saeaudit.sources.cache import cache_root, free_bytes
    from saeaudit.sources.sae import missing_bytes

    needed, free = missing_bytes(saes), free_bytes(cache_root())
    if yes or needed <= min(LARGE, free):
        return
    several = "1 SAE" if len(saes) == 1 else f"{len(saes):,} SAEs"
    what = (
        f"{_bytes(needed)} would be fetched ({several}); {_bytes(free)} are free in {cache_root()}"
    )
    if sys.stdin.isatty() and sys.stderr.isatty():
        typer.echo(f"saeaudit: {what}", err=True)
        if typer.confirm("Go on?", err=True):
            return
        raise AuditError("not fetched", where=where)
    raise AuditError(what, where=where, hint="--yes to go on; --sae GLOB for fewer of them")


def _bytes(size: int) -> str:
    """A number of bytes for people.

    >>> _bytes(312_345_678_901), _bytes(1_400_000), _bytes(100)
    ('312.3 GB', '1.4 MB', '100 bytes')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB")):
        if size >= unit:
            return f"{size / unit:,.1f} {name}"
    return f"{size:,} bytes"
