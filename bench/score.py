"""Time the choice between all one-swap codes of a token: alternatives, prices, decision.

    python bench/score.py [--features 16384] [--width 2304] [--l0 80] [--tokens 16]

The floor is what `saeaudit mediators` has to do as well: to find which alternatives there are
(`one_swaps`, timed in the same run). What is above it ranks, solves and prices. Printed, and
appended to bench/results/score.jsonl.
"""

from __future__ import annotations

import argparse
import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from dictionaries import clustered
from machine import name as machine_name
from machine import timed

from saeaudit.core.codes.choose import Chooser, Group
from saeaudit.core.codes.codelength import Counts, Prices
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.quantise import Grid
from saeaudit.core.codes.swaps import one_swaps
from saeaudit.core.rows import UnitRows, row_norms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--features", type=int, default=16384)
    parser.add_argument("--width", type=int, default=2304)
    parser.add_argument("--l0", type=int, default=80)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    decoder = clustered(options.features, options.width, device=options.device)
    count, device = options.features, options.device
    units = UnitRows(decoder, torch.arange(count, device=device), row_norms(decoder))
    rows = np.stack([rng.choice(count, options.l0, False) for _ in range(options.tokens)])
    support = torch.from_numpy(rows).to(device)
    codes = torch.from_numpy(rng.exponential(size=rows.shape)).to(device)
    clean = (codes[:, None, :] @ decoder[support].double()).squeeze(1)
    noise = torch.from_numpy(rng.normal(size=clean.shape)).to(device)
    target = clean + 0.5 * noise * clean.norm(dim=1, keepdim=True) / noise.norm(dim=1, keepdim=True)
    counts = Counts(Grid(0.2, torch.zeros(count, dtype=torch.float64, device=device)))
    for half in (0, 1):
        index = torch.from_numpy(rng.integers(count, size=50 * count)).to(device)
        values = torch.from_numpy(rng.exponential(size=len(index))).to(device)
        counts.add(index, values, 10_000, half=half)
    chooser = Chooser(units, (Prices(counts, 4), Prices(counts, 2), Prices(counts, 1)), 1.0)
    enter = torch.ones(count, dtype=torch.bool, device=device)

    def fitted() -> tuple[Fit, Group]:
        fit = Fit(Supports(units, support), target)
        decoded = (0.9 * codes[:, None, :] @ fit.supports.vectors).squeeze(1)
        return fit, Group(support, 0.9 * codes, (target - decoded).square().sum(1))

    def floor() -> None:
        fit, group = fitted()
        one_swaps([fit], [group.error[:, None]], enter)

    def work() -> None:
        fit, group = fitted()
        candidates = chooser.alternatives(fit, group, enter, norms=False).candidates
        decided.append(len(list(chooser.decide(group, candidates, norms=False))))

    decided: list[int] = []
    work()
    seconds = min(timed(work) for _ in range(3)) / options.tokens
    least = min(timed(floor) for _ in range(3)) / options.tokens
    assert set(decided) == {options.tokens}
    result = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine_name(),
        "device": options.device,
        "torch": torch.__version__,
        "features": count,
        "width": options.width,
        "l0": options.l0,
        "ms_a_token": round(1000 * seconds, 1),
        "floor_ms": round(1000 * least, 1),
    }
    print(json.dumps(result))
    with (Path(__file__).parent / "results" / "score.jsonl").open("a") as file:
        file.write(json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
