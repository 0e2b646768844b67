"""``python -m tests.fuzz [TARGET ...]``: what `make fuzz` runs.

A target is one reader or command, or a kind of them, whose minutes its members share; without
a name all kinds are tried. Every fault is printed once with the input that shows it, which is kept
below tests/fuzz/crashes. Exit status 1 where there is any.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.engine import Case, Fault, Target, fuzz, replay_all, write_case
from tests.fuzz.targets import KINDS, TARGETS

HERE = Path(__file__).parent
CORPUS = HERE / "corpus"
CRASHES = HERE / "crashes"


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz, or try kept inputs again; returns the exit status."""
    given = _parse(arguments)
    seed = given.seed if given.seed is not None else random.SystemRandom().randrange(10**6)
    bad = 0
    for asked in given.targets or KINDS:
        members = KINDS.get(asked, (asked,))
        for name in members:
            if given.replay:
                bad += _report_folder(TARGETS[name], Path(given.replay))
                continue
            bad += _report_folder(TARGETS[name], CORPUS / name)
            seconds = 60 * given.minutes / len(members)
            bad += _report_random(TARGETS[name], seed, seconds, given.inputs)
    return 1 if bad else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", choices=[[], *KINDS, *TARGETS],
                        help=f"of {', '.join(KINDS)} (all where none is given), or a member: "
                        f"{', '.join(TARGETS)}")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=0.5, help="for each target [%(default)s]")
    parser.add_argument("--inputs", type=int, help="stop after so many inputs for each target")
    parser.add_argument("--seed", type=int, help="the same seed gives the same inputs")
    parser.add_argument("--replay", metavar="FOLDER", help="try the files in a folder instead")
    return parser.parse_args(arguments)


def _report_folder(target: Target, folder: Path) -> int:
    """Try kept inputs: a folder of files, or a folder of such folders."""
    inner = sorted(place for place in folder.glob("*") if place.is_dir())
    folders = inner if inner and folder.parent == CORPUS else [folder] * folder.is_dir()
    faults = list(replay_all(target, iter(folders)))
    for place, fault in faults:
        _tell(target, fault, f"kept input {place}")
    return len(faults)


def _report_random(target: Target, seed: int, seconds: float, inputs: int | None) -> int:
    start = time.monotonic()
    result = fuzz(target, seed, seconds=seconds, inputs=inputs)
    for fault, count, case in result.faults.values():
        place = keep(target, case)
        _tell(target, fault, f"{count} inputs, the smallest in {place}")
    print(
        f"{target.name}: seed {seed}, {result.inputs:,} inputs ({result.refused:,} refused), "
        f"{len(result.faults)} faults, {time.monotonic() - start:.1f} s",
        flush=True,
    )
    return len(result.faults)


def keep(target: Target, case: Case) -> Path:
    """Write an input below `CRASHES` and return its folder."""
    digest = hashlib.sha256(repr(sorted(case.items())).encode()).hexdigest()[:12]
    folder = CRASHES / target.name / digest
    write_case(folder, case)
    return folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder


def _tell(target: Target, fault: Fault, where: str) -> None:
    print(f"{target.name}: {fault.kind} at {fault.place or '?'}: {where}", flush=True)
    lines = fault.detail.strip().splitlines()[-3:]
    print("".join(f"    {ascii(line)[1:-1][:300]}\n" for line in lines), end="", flush=True)


if __name__ == "__main__":
    sys.exit(main())
