"""Time all one-swap alternatives of a token against the products they cannot avoid, and peers.

    python bench/mediators.py [--features 16384] [--width 2304] [--l0 80] [--tokens 16]

What is timed is what `saeaudit mediators` does for a token: three limits in each of three modes,
and the farthest swaps. The floor is the two products that any method needs, in float64 and in
float32: the token's k rows, and the token itself, with all F rows. Times are wall clock, and the
processor's, which says more on a machine that others use: `processor_ms` parts one run into the
products, all that is made of these in float32 (which includes what is settled in float64 from the
estimates, without another row), and what is decided in float64 (`float64_rows` a token of twice F,
for two targets). The peers solve swaps one at a time on a sample of them:
numpy.linalg.lstsq (codes of either sign) and scipy.optimize.nnls. Errors are compared on that
sample. Printed, and appended to bench/results/mediators.jsonl.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from dictionaries import clustered
from machine import name as machine_name
from machine import timed

from saeaudit.core.codes import swaps
from saeaudit.core.codes.algebra import marked_rows
from saeaudit.core.codes.estimates import Estimator
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.full import Farthest
from saeaudit.core.codes.swaps import one_swaps
from saeaudit.core.rows import UnitRows, row_norms


def parted(work: Callable[[], None], tokens: int) -> dict:
    """Processor time of one run in ms a token, and of its parts; rows decided in float64."""
    spent: dict[str, float] = {}
    rows = 0

    def measured(name: str, function: Callable) -> Callable:
        def call(*arguments):
            start = time.process_time()
            out = function(*arguments)
            spent[name] = spent.get(name, 0.0) + time.process_time() - start
            return out

        return call

    def marked(supports: Supports, rows_marked: torch.Tensor):
        nonlocal rows
        rows += int(rows_marked.sum())
        return marked_rows(supports, rows_marked)

    with (
        patch.object(Estimator, "_products", measured("products", Estimator._products)),
        patch.object(swaps, "_screen", measured("float32", swaps._screen)),
        patch.object(swaps, "marked_rows", marked),
    ):
        whole = measured("all", work)
        whole()
    spent["float32"] -= spent["products"]
    spent["float64"] = spent["all"] - spent["float32"] - spent["products"]
    return {
        "processor_ms": {name: round(1e3 * taken / tokens, 1) for name, taken in spent.items()},
        "float64_rows": round(rows / tokens),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=16384)
    parser.add_argument("--width", type=int, default=2304)
    parser.add_argument("--l0", type=int, default=80)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--swaps", type=int, default=40, help="swaps that the peers solve")
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    decoder = clustered(options.features, options.width, device=options.device)
    units = UnitRows(
        decoder, torch.arange(options.features, device=options.device), row_norms(decoder)
    )
    rows = torch.from_numpy(
        np.stack([rng.choice(options.features, options.l0, False) for _ in range(options.tokens)])
    ).to(options.device)
    codes = torch.from_numpy(rng.exponential(size=rows.shape)).to(options.device)
    clean = (codes[:, None, :] @ decoder[rows].double()).squeeze(1)
    noise = torch.from_numpy(rng.normal(size=clean.shape)).to(options.device)
    noise *= 0.5 * clean.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
    target = clean + noise
    shrunk = 0.9 * codes
    enter = torch.ones(options.features, dtype=torch.bool, device=options.device)

    def work() -> None:
        supports = Supports(units, rows)
        decoded = (shrunk[:, None, :] @ supports.vectors).squeeze(1)
        fit, mirror = Fit(supports, target), Fit(supports, decoded)
        error = (target - decoded).square().sum(1)
        limits = [
            torch.stack([r * e**2 for r in (error, fit.error) for e in (1, 1.01, 1.05)], 1),
            torch.stack([mirror.size * e**2 for e in (0, 0.01, 0.05)], 1),
        ]
        far = [Farthest(*pair, None) for pair in zip((fit, mirror), limits, strict=True)]
        found.append((fit, one_swaps([fit, mirror], limits, enter, far)[0]))

    found: list = []
    work()
    seconds = min(timed(work) for _ in range(3)) / options.tokens
    where = parted(work, options.tokens)
    floors = {}
    for name, dtype in (("float64", torch.float64), ("float32", torch.float32)):
        wide, tall = decoder.to(dtype), decoder[rows.flatten()].to(dtype)
        x = target.to(dtype)

        def products(wide=wide, tall=tall, x=x) -> None:
            for start in range(0, len(tall), 1024):
                tall[start : start + 1024] @ wide.T
            x @ wide.T

        products()
        floors[name] = min(timed(products) for _ in range(3)) / options.tokens
    fit, counted = found[-1]
    unit = (decoder / decoder.norm(dim=1, keepdim=True)).double().cpu().numpy()
    peers = {"numpy lstsq": 0.0, "scipy nnls": 0.0}
    from scipy.optimize import nnls

    for n in range(options.swaps):
        b, i = n % options.tokens, int(rng.integers(options.l0))
        j = int(counted.feature[b, i])
        support = rows[b].tolist()
        support[i] = j if j >= 0 else int(rng.integers(options.features))
        matrix, x = unit[support].T, target[b].cpu().numpy()
        start = time.perf_counter()
        np.linalg.lstsq(matrix, x, rcond=None)
        peers["numpy lstsq"] += time.perf_counter() - start
        start = time.perf_counter()
        _, rest = nnls(matrix, x)
        peers["scipy nnls"] += time.perf_counter() - start
        if j >= 0:
            assert abs(float(counted.error[b, i]) - rest**2) < 1e-8 * float(fit.size[b]), (b, i, j)
    all_swaps = options.l0 * (options.features - options.l0)
    record = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine_name(),
        "device": options.device, "torch": torch.__version__, "features": options.features,
        "width": options.width, "l0": options.l0, "ms_a_token": round(1e3 * seconds, 2),
        "swaps_a_token": all_swaps, **where,
        "floor_ms": {name: round(1e3 * s, 2) for name, s in floors.items()},
        "times_the_floor": {name: round(seconds / s, 2) for name, s in floors.items()},
        "peers_times_as_long": {
            name: round(taken / options.swaps * all_swaps / seconds)
            for name, taken in peers.items()
        },
    }  # fmt: skip
    print(json.dumps(record, indent=2))
    results = Path(__file__).parent / "results" / "mediators.jsonl"
    with results.open("a") as stream:
        stream.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
