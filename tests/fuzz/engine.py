"""Runs one target's inputs in a child process, and finds out what became of each.

A child makes input after input from a seed, so that a hang, a crash of the interpreter or a flood
of memory takes the child only: the parent kills it, keeps the input and starts another one behind
it. What is a fault is said by `oracle`; here are the limits of time and memory.
"""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple, Protocol

from tests.fuzz.oracle import judge, where_it_stood

Case = Mapping[str, bytes]
"""One input: the files that the target is given, by their path in a folder."""

LIMIT_SECONDS = 5.0
"""No input may take longer, times left out in which the machine was busy with other work."""
LIMIT_BYTES = 1 << 30
"""No input may make the process grow by more."""
ADDRESS_BYTES = 6 << 30
"""Growth of the address space at which allocation fails: the machine lives on."""
GRACE_SECONDS = 1.5
"""Given to the child for everything around an input."""
LASTING = ("hang", "memory")
"""Faults after which a process is of no more use."""


class Target(Protocol):
    """One kind of input from outside, and the code that reads it."""

    name: str

    def make(self, rng: random.Random) -> Case:
        """An input, the same for the same state of `rng`."""

    def run(self, folder: Path) -> None:
        """Hand the input's files in a folder to the code."""


class Fault(NamedTuple):
    """What an input did that it must not do."""

    kind: str
    """What was raised, or "hang", "memory", "killed by SIGSEGV", ..."""
    place: str
    """Innermost line of saeaudit, or empty: one fault is reported once for each kind and place."""
    detail: str
    """The message or traceback."""


@dataclass
class Result:
    """What came of a run of one target."""

    inputs: int
    """How many were tried."""
    refused: int
    """How many ended with an AuditError; the others were read."""
    faults: dict[tuple[str, str], tuple[Fault, int, Case]]
    """By kind and place: the fault, the number of inputs that show it, and the smallest of them."""


class _Child:
    """A process that tries the inputs that it is told to."""

    def __init__(self, target: Target) -> None:
        target.make(random.Random(0))  # what all inputs are made of is there before the child is
        context = multiprocessing.get_context("fork" if sys.platform != "win32" else "spawn")
        self._pipe, other = context.Pipe()
        self._stack = tempfile.NamedTemporaryFile(prefix="saeaudit-fuzz-", suffix=".stack")
        arguments = (target, other, self._stack.name)
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        other.close()

    def attempt(self, what: str | Path, seconds: float) -> tuple[Fault | None, bool]:
        """Try the input of a seed, or the files in a folder.

        Returns:
            What is wrong, and whether the input was refused by an AuditError.
        """
        self._pipe.send(what)
        start = time.monotonic() - self._held_up()
        while not self._pipe.poll(0.5):
            if time.monotonic() - self._held_up() - start < seconds:
                continue
            stack = self._standing()
            detail = f"no answer within {seconds:g} s\n{stack}"
            return Fault("hang", where_it_stood(stack), detail), False
        try:
            fault, refused = self._pipe.recv()
        except (EOFError, OSError):
            self._process.join()
            code = self._process.exitcode or 0
            name = signal.Signals(-code).name if code < 0 else f"exit {code}"
            return Fault(f"killed by {name}", "", "the interpreter ended"), False
        return fault, refused

    def _standing(self) -> str:
        """What the child is at."""
        os.kill(self._process.pid, signal.SIGUSR1)
        time.sleep(0.5)
        return Path(self._stack.name).read_text(encoding="utf-8", errors="replace")

    def _held_up(self) -> float:
        """Seconds for which the child could have run, had there been a free core."""
        with contextlib.suppress(OSError, IndexError):
            return int(Path(f"/proc/{self._process.pid}/schedstat").read_text().split()[1]) / 1e9
        return 0.0

    def end(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._stack.close()


def _serve(target: Target, pipe: Connection, stack: str) -> None:
    """Try inputs until the parent goes away; each in an empty folder, all in one process.

    What the process is at is written into the file `stack` when the parent signals so.
    """
    _limit_address_space()
    peak = _peak_bytes()
    with (
        tempfile.TemporaryDirectory(prefix="saeaudit-fuzz-") as scratch,
        Path(stack).open("w", encoding="utf-8") as stream,
    ):
        faulthandler.register(signal.SIGUSR1, stream)
        while True:
            try:
                what = pipe.recv()
            except EOFError:
                return
            folder = Path(scratch) / "input"
            shutil.rmtree(folder, ignore_errors=True)
            kept = isinstance(what, Path)
            write_case(folder, read_case(what) if kept else target.make(random.Random(what)))
            fault, refused = judge(target.run, folder)
            grown = _peak_bytes() - peak
            if grown > LIMIT_BYTES and fault is None:
                fault = Fault("memory", "", f"the process grew by {grown >> 20:,} MiB")
            pipe.send((fault and Fault(*fault), refused))


def _limit_address_space() -> None:
    used = _status("VmSize")
    if used:
        resource.setrlimit(resource.RLIMIT_AS, (used + ADDRESS_BYTES, resource.RLIM_INFINITY))


def _peak_bytes() -> int:
    """Peak resident memory of this process."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale


def _status(name: str) -> int:
    """A size that the kernel tells of this process in bytes; 0 where it tells none."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def write_case(folder: Path, case: Case) -> None:
    """Write an input's files."""
    for name, content in case.items():
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)


def read_case(folder: Path) -> Case:
    """Read an input's files."""
    places = sorted(place for place in folder.rglob("*") if place.is_file())
    return {place.relative_to(folder).as_posix(): place.read_bytes() for place in places}


def fuzz(target: Target, seed: int, *, seconds: float, inputs: int | None = None) -> Result:
    """Try random inputs for a time, or a number of them.

    Args:
        target: what to try.
        seed: together with an input's number, all that an input depends on.
        seconds: how long.
        inputs: stop after so many.
    """
    result = Result(0, 0, {})
    end = time.monotonic() + seconds
    child = _Child(target)
    try:
        while time.monotonic() < end and result.inputs != inputs:
            name = f"{target.name} {seed} {result.inputs}"
            result.inputs += 1
            fault, refused = child.attempt(name, LIMIT_SECONDS + GRACE_SECONDS)
            result.refused += refused
            if fault is None:
                continue
            if fault.kind in LASTING or fault.kind.startswith("killed"):
                child.end()
                child = _Child(target)
            case = target.make(random.Random(name))
            confirmed = _confirmed(target, case, fault)
            if confirmed:
                _note(result, confirmed, case)
    finally:
        child.end()
    return result


def _confirmed(target: Target, case: Case, fault: Fault) -> Fault | None:
    """A fault of time or memory counts when the input shows it alone and again."""
    if fault.kind not in LASTING:
        return fault
    with tempfile.TemporaryDirectory(prefix="saeaudit-fuzz-") as scratch:
        write_case(Path(scratch), case)
        return replay(target, Path(scratch))


def replay(target: Target, folder: Path) -> Fault | None:
    """Try the files in a folder in a process of their own."""
    child = _Child(target)
    try:
        return child.attempt(folder, LIMIT_SECONDS + GRACE_SECONDS)[0]
    finally:
        child.end()


def _note(result: Result, fault: Fault, case: Case) -> None:
    key = (fault.kind, fault.place)
    known = result.faults.get(key)
    smaller = known is None or _size(case) < _size(known[2])
    count = known[1] + 1 if known else 1
    result.faults[key] = (fault, count, case) if smaller or known is None else (
        known[0], count, known[2]
    )  # fmt: skip


def _size(case: Case) -> int:
    return sum(map(len, case.values()))


def replay_all(target: Target, folders: Iterator[Path]) -> Iterator[tuple[Path, Fault]]:
    """Try kept inputs one after the other in one process; a new one after each fault."""
    child = _Child(target)
    try:
        for folder in folders:
            fault, _ = child.attempt(folder, LIMIT_SECONDS + GRACE_SECONDS)
            if fault is not None:
                child.end()
                child = _Child(target)
                yield folder, fault
    finally:
        child.end()
