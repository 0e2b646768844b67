from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest

from saeaudit.errors import AuditError
from tests.fuzz import engine
from tests.fuzz.__main__ import CORPUS
from tests.fuzz.engine import Case
from tests.fuzz.targets import KINDS, TARGETS


def test_no_fault() -> None:
    """Every kept input, and some random ones of each target."""
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "0", "--inputs", "25"]
    done = subprocess.run(
        [*command, "--minutes", "0.002"], cwd=Path(__file__).parents[2], capture_output=True,
        text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for name in TARGETS:
        assert f"\n{name}: seed 0, " in f"\n{done.stdout}"


def test_every_target_is_of_one_kind() -> None:
    assert sorted(name for names in KINDS.values() for name in names) == sorted(TARGETS)


def test_every_corpus_has_its_target() -> None:
    assert {place.name for place in CORPUS.iterdir()} <= set(TARGETS)
    assert sum(place.stat().st_size for place in CORPUS.rglob("*") if place.is_file()) < 300_000


@pytest.mark.parametrize("name", TARGETS)
def test_inputs_follow_from_the_seed(name: str) -> None:
    first, second = (TARGETS[name].make(random.Random("one seed")) for _ in range(2))
    assert first == second


class Bad(NamedTuple):
    """A target whose every input is bad in one way."""

    name: str

    def make(self, rng: random.Random) -> Case:
        return {"input": rng.randbytes(4)}

    def run(self, folder: Path) -> None:
        (folder / "input").read_bytes()
        getattr(self, self.name)()

    def error(self) -> None:
        raise KeyError("k")

    def refused(self) -> None:
        raise AuditError("no such thing")

    def unclean(self) -> None:
        raise type("Raw", (AuditError,), {"line": lambda error: "\x1b[31m"})("")

    def hang(self) -> None:
        time.sleep(60)

    def memory(self) -> None:
        bytearray(1 << 20).join([b"x" * 100] * 200)

    def allocation(self) -> None:
        try:
            bytearray(1 << 50)
        except MemoryError as error:
            raise AuditError("too large") from error

    def crash(self) -> None:
        import faulthandler

        faulthandler.disable()
        faulthandler._sigsegv()  # type: ignore[attr-defined]


FAULTS = {
    "error": "KeyError", "refused": None, "unclean": "unclean line", "hang": "hang",
    "memory": "memory", "allocation": "allocation", "crash": "killed by SIGSEGV",
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_the_engine_sees(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each kind of fault is noticed, and its input kept."""
    monkeypatch.setattr(engine, "LIMIT_SECONDS", 0.2)
    monkeypatch.setattr(engine, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(engine, "LIMIT_BYTES", 100 << 20)
    result = engine.fuzz(Bad(name), 0, seconds=60, inputs=1)
    kinds = [fault.kind for fault, _, _ in result.faults.values()]
    assert kinds == ([FAULTS[name]] if FAULTS[name] else [])
    assert result.inputs == 1
    assert all(len(case["input"]) == 4 for _, _, case in result.faults.values())
