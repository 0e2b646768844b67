"""bench/scan.py runs, and its parts and dictionaries are what it says."""

from __future__ import annotations

import importlib
import time
from pathlib import Path
from typing import Any

import pytest

import saeaudit

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(BENCH))
    return importlib.import_module


@pytest.mark.parametrize("name", ["sample", "clustered", "random", "separated", "copies"])
def test_every_dictionary_by_every_screen(bench: Any, name: str) -> None:
    scan, dictionaries = bench("scan"), bench("dictionaries")
    assert name in dictionaries.DICTIONARIES
    rows = dictionaries.DICTIONARIES[name](1024, 192)
    assert len(rows) == 1024
    runs = scan.compare(rows, ["fp32", "bf16", "int8", "auto"], 1, time.perf_counter)
    assert runs["auto"]["taken"] == "fp32"  # too small for a choice
    for run in runs.values():
        spent = run["parts"]
        assert {"packing", "pass", "lists", "maxima", "exact", "rest"} <= set(spent)
        assert sum(spent.values()) == pytest.approx(run["seconds"], rel=0.05, abs=0.02)
        assert run["counts"]["edges"] and run["counts"]["exact"]
    if name == "copies":
        assert len(runs["fp32"]["pairs"]) == 102
    if name == "clustered":
        assert runs["fp32"]["triples"] >= 1 and runs["fp32"]["pairs"]


def test_machines_are_named_after_what_they_multiply(
    bench: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine = bench("machine")
    monkeypatch.setattr(machine.platform, "machine", lambda: "x86_64")
    for flags, name in (
        ("fpu avx2 avx512f avx512_vnni avx512_bf16", "x86-vnni-bf16"),
        ("fpu avx2 avx512f", "x86-avx512"),
        ("fpu avx2", "x86-avx2"),
        ("fpu amx_int8 amx_bf16 avx512_vnni", "x86-amx-vnni-bf16"),
    ):
        monkeypatch.setattr(machine, "_cpuinfo", lambda flags=flags: f"flags\t\t: {flags}\n")
        assert machine.kind() == name


def test_the_command_is_timed_on_an_sae_as_gemma_scope_writes_it(
    bench: Any, tmp_path: Path
) -> None:
    command = bench("command")
    command.write(tmp_path / "params.npz", 2048, 16)
    dictionary = saeaudit.open(tmp_path / "params.npz")
    assert dictionary.weights.decoder.shape == (2048, 16)
    assert not dictionary.weights.notes


@pytest.mark.parametrize("name", sorted(path.stem for path in BENCH.glob("*.py")))
def test_every_script_finds_what_it_uses(bench: Any, name: str) -> None:
    assert bench(name).__doc__
