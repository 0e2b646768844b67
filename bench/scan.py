"""Time a scan by every kind of product, part by part, and against its peers; check that they agree.

    python bench/scan.py [--sizes 4096 16384 65536] [--peers-up-to 16384]    # every dictionary
    python bench/scan.py --quick                                             # two small sizes
    python bench/scan.py --device cuda [--sizes 16384 131072 1048576] [--dictionaries clustered]

For each dictionary (see bench/dictionaries.py) and size, for each kind of product and for what
`auto` takes: the time from the rows to the last figure, where it goes, what is counted, the share
of the floor (half of F^2 d multiply-adds at the peak of this kind measured in this run), and for
`auto` its regret, the time over the best kind's. Then how times grow with F. Peers find pairs only;
saeaudit's time includes the triples and the geometry. Lines are appended to
bench/results/KIND.jsonl, a file for each kind of machine; docs/generate_figures.py takes the
figures of docs/performance.md from there.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import machine
import torch
from dictionaries import DICTIONARIES, planted
from peers import ON_CPU, ON_CUDA, TAU, Pairs, agree
from stages import Stages

from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import choose_screen
from saeaudit.audit.scan.search import search
from saeaudit.core.cosines.costs import HOPELESS, costs_on
from saeaudit.core.rows import UnitRows, row_norms

RESULTS = Path(__file__).parent / "results"
KINDS = ("fp32", "bf16", "int8")
Clock = Callable[[], float]


def once(rows: torch.Tensor, screen: str, clock: Clock) -> dict[str, Any]:
    """One search: seconds, parts and counts; and under "pairs" and "triples" what came of it."""
    units = UnitRows(rows, torch.arange(len(rows), device=rows.device), row_norms(rows))
    options = ScanOptions(min_cosine=TAU, device=str(rows.device))
    stages, held = Stages(clock), []
    with stages.watching():
        name = choose_screen(replace(options, screen=screen), rows)
        seconds = machine.timed(lambda: held.append(search("bench", units, options, name)), clock)
    (result,) = held
    pairs = set(zip(result.pairs.i.tolist(), result.pairs.j.tolist(), strict=True))
    predicted = result.cost.predicted
    return {
        "seconds": round(seconds, 4),
        "parts": {part: round(spent, 4) for part, spent in sorted(stages.seconds.items())},
        "counts": dict(sorted(stages.counts.items())),
        "taken": result.cost.screen,
        "predicted": {kind: getattr(predicted, kind) for kind in KINDS} if predicted else None,
        "pairs": pairs,
        "triples": len(result.triples.features),
        "figures": (result.babel, result.row_max.tolist()),
    }


def compare(
    rows: torch.Tensor, screens: list[str], repeats: int, clock: Clock
) -> dict[str, dict[str, Any]]:
    """The fastest run of each screen, turn by turn; all must give the same."""
    best: dict[str, dict[str, Any]] = {}
    for _ in range(repeats):
        for screen in screens:
            run = once(rows, screen, clock)
            if screen not in best or run["seconds"] < best[screen]["seconds"]:
                best[screen] = run
    first = best[screens[0]]
    for screen, run in best.items():
        same = all(run[name] == first[name] for name in ("pairs", "triples", "figures"))
        assert same, f"{screen} and {screens[0]} disagree"
    return best


def against_peers(rows: torch.Tensor, ours: Pairs, seconds: float) -> dict[str, float]:
    """Seconds of each peer that is installed."""
    times = {}
    for name, peer in (ON_CUDA if rows.is_cuda else ON_CPU).items():
        held: list[Pairs] = []
        try:
            taken = machine.timed(lambda peer=peer, held=held: held.append(peer(rows, 0.25)))
        except ImportError as error:
            print(f"  {name}: not installed ({error.name})")
            continue
        agree(name, held[0], ours, rows)
        times[name] = round(taken, 3)
        print(f"  {name}: {taken:.2f} s, {taken / seconds:.1f} times as long")
    return times


def show(screen: str, run: dict[str, Any], floor: float) -> None:
    parts = ", ".join(f"{name} {spent:.3f}" for name, spent in run["parts"].items())
    counts = ", ".join(f"{number:,} {name}" for name, number in run["counts"].items())
    taken = f" ({run['taken']})" if screen == "auto" else ""
    print(f"  {screen}{taken}: {run['seconds']:.3f} s, {floor / run['seconds']:.0%} of the peak")
    print(f"    {parts}\n    {counts}")


def growth(lines: list[dict[str, Any]]) -> None:
    """How times grow from the smallest to the largest size, as a power of the rows."""
    for name in dict.fromkeys((line["dictionary"], line["screen"]) for line in lines):
        times = {
            line["features"]: line["seconds"]
            for line in lines
            if (line["dictionary"], line["screen"]) == name
        }
        low, high = min(times), max(times)
        if high > low:
            power = math.log(times[high] / times[low]) / math.log(high / low)
            print(f"{name[0]}, {name[1]}: rows^{power:.2f} from {low} to {high}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--width", type=int, default=2304)
    parser.add_argument("--peers-up-to", type=int, default=16384)
    parser.add_argument("--screens", nargs="+", choices=[*KINDS, "auto"])
    parser.add_argument("--dictionaries", nargs="+", choices=list(DICTIONARIES))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="1024 and 2048 rows, once, no peers")
    parser.add_argument(
        "--processor-time", action="store_true",
        help="count the processor's seconds, not the clock's: for a machine that others use",
    )  # fmt: skip
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    options.sizes = options.sizes or (
        [1024, 2048] if options.quick
        else [16384, 131072, 1048576] if cuda else [4096, 16384, 65536]
    )  # fmt: skip
    options.peers_up_to = 0 if options.quick else options.peers_up_to
    options.repeats = 1 if options.quick else options.repeats
    return options


def main() -> None:
    options = arguments()
    clock = time.process_time if options.processor_time else time.perf_counter
    device = torch.device(options.device)
    products = costs_on(options.width, device).product
    fast = [k for k in KINDS if products.get(k, math.inf) < HOPELESS * products["fp32"]]
    screens = options.screens or [*fast, "auto"]
    peaks = {kind: machine.peak(kind, clock, device.type) for kind in fast}
    steady = {kind: machine.sustained(kind, clock) for kind in fast if device.type == "cpu"}
    about = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine.name(),
        "kind": machine.kind(options.device), "torch": torch.__version__,
        "clock": "processor" if options.processor_time else "wall", "width": options.width,
        "peak_gops": {kind: round(value / 1e9, 1) for kind, value in peaks.items()},
        "sustained_gops": {kind: round(value / 1e9, 1) for kind, value in steady.items()},
    }  # fmt: skip
    print(json.dumps(about, indent=1))
    lines: list[dict[str, Any]] = []
    for name in options.dictionaries or DICTIONARIES:
        for count in options.sizes:
            lines += measure(name, count, screens, peaks, about, options)
    growth(lines)
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{about['kind']}.jsonl").open("a") as stream:
        stream.writelines(json.dumps(line) + "\n" for line in lines)


def measure(
    name: str, count: int, screens: list[str], peaks: dict[str, float], about: dict[str, Any],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:  # fmt: skip
    """One dictionary at one size, by every screen."""
    rows = DICTIONARIES[name](count, options.width, options.device)
    clock = time.process_time if options.processor_time else time.perf_counter
    print(f"\n{name}, {count} x {rows.shape[1]}")
    repeats = options.repeats if count <= 16384 else 1
    runs = compare(rows, screens, repeats, clock)
    named = [run["seconds"] for screen, run in runs.items() if screen != "auto"]
    lines = []
    for screen, run in runs.items():
        floor = count * count * rows.shape[1] / peaks.get(run["taken"], math.inf)
        show(screen, run, floor)
        line = {**about, "dictionary": name, "features": count, "width": rows.shape[1]}
        line |= {"screen": screen, "floor": round(floor, 6)}
        line |= {key: run[key] for key in run if key not in ("pairs", "figures")}
        line |= {"pairs": len(run["pairs"])}
        if screen == "auto" and named:
            line["regret"] = round(run["seconds"] / min(named) - 1, 3)
            print(f"    {line['regret']:+.0%} of the best; predicted {run['predicted']}")
        lines.append(line)
    if name == "clustered":
        found = runs[screens[0]]
        enough = min(len(found["pairs"]), found["triples"]) >= planted(count)
        assert enough, "planted findings were missed"
        if count <= options.peers_up_to:
            peers = against_peers(rows, found["pairs"], runs[screens[-1]]["seconds"])
            lines[-1]["peers"] = peers
    lines[-1]["resident_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
    return lines


if __name__ == "__main__":
    main()
