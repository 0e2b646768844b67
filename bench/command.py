"""Time the whole command on a Gemma-shaped file, turn by turn with faiss's search alone.

    python bench/command.py [--features 16384] [--width 2304] [--turns 7] [--folder /tmp]

A ``params.npz`` of a clustered decoder (bench/dictionaries.py) and an encoder is written once. Each
turn runs `saeaudit scan` as a user would, imports and all, then the imports that no scan can do
without, and faiss's range_search at a cosine of 0.25 in a process of its own, of which the search
alone is timed: not Python's start, nor reading the file, nor pairs and triples, which faiss does
not decide. The result is printed and appended to bench/results/command.jsonl.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import machine
import numpy as np
import torch
from dictionaries import DICTIONARIES

FAISS = """
import sys, numpy, torch
from machine import timed
from peers import with_faiss
rows = torch.from_numpy(numpy.load(sys.argv[1])["W_dec"])
print(timed(lambda: with_faiss(rows, 0.25)))
"""
IMPORT = "import numpy, torch"


def write(path: Path, count: int, width: int) -> None:
    """Write an SAE as Gemma Scope does."""
    rows = DICTIONARIES["clustered"](count, width).numpy()
    biases = {"b_enc": np.zeros(count), "b_dec": np.zeros(width), "threshold": np.ones(count)}
    np.savez(
        path,
        W_enc=np.ascontiguousarray(rows.T),
        W_dec=rows,
        **{name: values.astype(np.float32) for name, values in biases.items()},
    )


def scan(path: Path) -> tuple[float, float, str]:
    """Seconds of one scan, its peak resident size in MB, and the kind of product it took."""
    out = path.with_suffix(".jsonl")
    start = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "saeaudit", "scan", path, "-o", out, "-q"])
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"the scan failed with status {status}")
    *_, run = (line for text in out.open() if (line := json.loads(text))["type"] == "run")
    return seconds, usage.ru_maxrss / 1024, run["screens"][0]["screen"]


def of_python(code: str, *arguments: object) -> tuple[float, str]:
    """Seconds of a Python process in this folder, and what it wrote."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(
        command, cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - start, done.stdout


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=16384)
    parser.add_argument("--width", type=int, default=2304)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()))
    return parser.parse_args()


def main() -> None:
    options = arguments()
    shape = (options.features, options.width)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder, "params.npz")
        # Apart: a process starts with the peak of the one that made it.
        writer = get_context("spawn").Process(target=write, args=(path, *shape))
        writer.start()
        writer.join()
        turns: list[dict[str, Any]] = []
        for _ in range(options.turns):
            seconds, peak_mb, taken = scan(path)
            imports, _ = of_python(IMPORT)
            faiss = float(of_python(FAISS, path)[1])
            turns.append({"seconds": seconds, "mb": peak_mb, "import": imports, "faiss": faiss})
            print(f"scan {seconds:.2f} s, import {imports:.2f} s, faiss {faiss:.2f} s")
        size = path.stat().st_size
    ratios = [turn["faiss"] / turn["seconds"] for turn in turns]
    print(f"faiss takes {min(ratios):.2f} to {max(ratios):.2f} times as long", end=", ")
    print(f"median {statistics.median(ratios):.2f}")
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine.name(),
        "kind": machine.kind(), "torch": torch.__version__, "features": options.features,
        "width": options.width, "file_mb": round(size / 1e6), "taken": taken,
        "turns": [{name: round(value, 3) for name, value in turn.items()} for turn in turns],
    }  # fmt: skip
    with (Path(__file__).parent / "results" / "command.jsonl").open("a") as stream:
        stream.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
