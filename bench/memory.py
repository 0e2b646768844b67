"""Scan a decoder that is larger than what may be resident, and watch what is.

    python bench/memory.py [--features 262144] [--width 2304] [--folder /tmp] [--screen auto]

A structured dictionary is written to disk a block at a time; `saeaudit scan` then runs as a user
would run it, while its anonymous memory (what is not the page cache) is sampled. The planted twins
and triples are counted in its output. The result is printed and appended to
bench/results/memory.jsonl.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from machine import name as machine_name


def write(path: Path, count: int, width: int, seed: int = 0) -> int:
    """Write ``[count, width]`` float32 rows; the number of planted twins and of triples."""
    rng = np.random.default_rng(seed)
    rows = np.lib.format.open_memmap(path, mode="w+", dtype=np.float32, shape=(count, width))
    centres = rng.standard_normal((max(count // 64, 1), width), dtype=np.float32)
    common = 0.15 * rng.standard_normal((1, width), dtype=np.float32)
    for start in range(0, count, 8192):
        block = rng.standard_normal((min(8192, count - start), width), dtype=np.float32)
        share = 1.2 * rng.random((len(block), 1), dtype=np.float32)
        block += share * centres[rng.integers(len(centres), size=len(block))] + common
        block /= np.linalg.norm(block, axis=1, keepdims=True)
        rows[start : start + len(block)] = block
    planted = max(count // 4096, 1)
    noise = rng.standard_normal((2 * planted, width), dtype=np.float32) / np.sqrt(width)
    first, second, third = (rows[k * planted : (k + 1) * planted] for k in range(3))
    rows[-planted:] = first + 0.2 * noise[:planted]
    rows[-2 * planted : -planted] = second - 0.7 * third + 0.1 * noise[planted:]
    rows.flush()
    return planted


def anonymous_mb(pid: int) -> float:
    """Resident memory of a process that no file stands behind, in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=262144)
    parser.add_argument("--width", type=int, default=2304)
    parser.add_argument("--folder", type=Path, default=Path("/tmp"))
    parser.add_argument("--screen", default="auto")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    path = options.folder / f"saeaudit-bench-{options.features}-{options.width}.npy"
    records = path.with_suffix(".jsonl")
    planted = write(path, options.features, options.width)
    start, samples = time.perf_counter(), []
    command = [sys.executable, "-m", "saeaudit", "scan", path, "-o", records, "--no-progress"]
    process = subprocess.Popen([*command, "--screen", options.screen, "--device", options.device])
    while process.poll() is None:
        try:
            samples.append((time.perf_counter() - start, anonymous_mb(process.pid)))
        except OSError:
            break
        time.sleep(0.5)
    seconds = time.perf_counter() - start
    if process.wait():
        raise SystemExit(f"the scan failed with exit code {process.returncode}")
    lines = [json.loads(line) for line in records.open()]
    (summary,) = (line for line in lines if line["type"] == "summary")
    *_, run = (line for line in lines if line["type"] == "run")
    assert summary["pairs"] >= planted and summary["triples"] >= planted, "findings were missed"
    quarter = [mb for at, mb in samples if at < seconds / 2]
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine_name(),
        "torch": torch.__version__, "device": run["device"],
        "screen": run["screens"][0]["screen"],
        "features": options.features, "width": options.width,
        "file_mb": round(path.stat().st_size / 1e6), "seconds": round(seconds, 1),
        "anonymous_mb_first_half": round(max(quarter)),
        "anonymous_mb": round(max(mb for _, mb in samples)),
        "pairs": summary["pairs"], "triples": summary["triples"],
    }  # fmt: skip
    print(json.dumps(result, indent=2))
    results = Path(__file__).parent / "results" / "memory.jsonl"
    with results.open("a") as stream:
        stream.write(json.dumps(result) + "\n")
    path.unlink()
    records.unlink()


if __name__ == "__main__":
    main()
