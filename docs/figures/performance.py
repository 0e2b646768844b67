"""What docs/performance.md says of measured scans: the newest line of each in bench/results."""

from __future__ import annotations

import json
import math
from pathlib import Path
from statistics import median
from typing import Any

from findings.markdown import prose

RESULTS = Path(__file__).parents[2] / "bench" / "results"
OTHERS = {"command", "memory", "mediators", "score"}
"""Results of other benchmarks than bench/scan.py."""
SCREENS = ("int8", "bf16", "fp32", "auto")
PARTS = {
    "packing": ("packing",),
    "choice": ("choice",),
    "pass": ("pass",),
    "second look": ("second look",),
    "pairs": ("pairs",),
    "exact": ("exact",),
    "rest": ("babel", "lists", "maxima", "rest", "triples"),
}
"""Columns of the table of parts, and what bench/stages.py calls them."""
TIMES = "\N{MULTIPLICATION SIGN}"
CLOCKS = {"wall": "seconds", "processor": "seconds of processor time (others used the machine)"}

Line = dict[str, Any]


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    machines = [
        machine(_newest(path))
        for path in sorted(RESULTS.glob("*.jsonl"))
        if path.stem not in OTHERS
    ]
    return {"scans": "\n".join(machines), "command": command(RESULTS / "command.jsonl")}


def _newest(path: Path) -> list[Line]:
    """The last line of each dictionary, size and screen, in a file's order."""
    newest: dict[tuple[str, int, str], Line] = {}
    for text in path.read_text().splitlines():
        line = json.loads(text)
        newest[line["dictionary"], line["features"], line["screen"]] = line
    return list(newest.values())


def machine(lines: list[Line]) -> str:
    """The section of one kind of machine."""
    last = lines[-1]
    peaks = ", ".join(
        f"{kind} {value:,.0f}" + (f" ({steady[kind]:,.0f} sustained)" if kind in steady else "")
        for steady in [last["sustained_gops"]]
        for kind, value in last["peak_gops"].items()
    )
    parts = [
        f"\n### {last['kind']}\n",
        prose(
            f"{last['machine']}; torch {last['torch']}, {last['date'][:10]}; "
            f"{CLOCKS[last['clock']]}.",
            f"Peak of products in the last run, Gop/s: {peaks}.",
        )
        + "\n",
        totals(lines),
    ]
    if any(line["parts"] for line in lines):
        parts.append(spent(lines))
    growing = growth(lines)
    peers = against_peers(lines)
    return "\n".join([*parts, *([growing] if growing else []), *([peers] if peers else [])])


def command(path: Path) -> str:
    """The whole command beside faiss, in the last run of each kind of machine."""
    runs = {line["kind"]: line for line in map(json.loads, path.read_text().splitlines())}
    return "\n".join(map(whole, runs.values()))


def whole(run: Line) -> str:
    """What one machine's turns say."""
    ratios = [turn["faiss"] / turn["seconds"] for turn in run["turns"]]
    of = {name: [turn[name] for turn in run["turns"]] for name in run["turns"][0]}
    return prose(
        f"{run['kind']} ({run['machine']}; torch {run['torch']}, {run['date'][:10]}), "
        f"{len(ratios)} turns: the command {_span(of['seconds'])} s ({run['taken']}, at most "
        f"{max(of['mb']):.0f} MB resident), where a process that only imports NumPy and "
        f"PyTorch takes {_span(of['import'])} s; faiss range_search {_span(of['faiss'])} s. faiss "
        f"takes {min(ratios):.2f} to {max(ratios):.2f} times as long, median {median(ratios):.2f}."
    )


def _span(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


def totals(lines: list[Line]) -> str:
    """Time of each screen, what auto takes, and its regret."""
    head = ("dictionary", f"F {TIMES} d", *SCREENS, "takes", "over the best", "of the products")
    rows = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for name, count in dict.fromkeys((line["dictionary"], line["features"]) for line in lines):
        of = {
            line["screen"]: line
            for line in lines
            if (line["dictionary"], line["features"]) == (name, count)
        }
        times = [_seconds(of[screen]["seconds"]) if screen in of else "" for screen in SCREENS]
        auto = of.get("auto")
        told = auto or min(of.values(), key=lambda line: line["seconds"])
        regret = f"{100 * auto['regret']:.0f} %" if auto else ""
        share = f"{told['seconds'] / _products(told):.2f} {TIMES}"
        width, taken = told["width"], auto["taken"] if auto else ""
        cells = [name, f"{count} {TIMES} {width}", *times, taken, regret, share]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows) + "\n"


def _products(line: Line) -> float:
    """Seconds of half of all products at the peak of the run, in bfloat16 where that is fast."""
    peaks = line["peak_gops"]
    operations: int = line["features"] ** 2 * line["width"]
    return operations / (1e9 * peaks.get("bf16", peaks["fp32"]))


def spent(lines: list[Line]) -> str:
    """Where the time of the largest clustered dictionary goes."""
    clustered = [line for line in lines if line["dictionary"] == "clustered"]
    largest = max(line["features"] for line in clustered)
    rows = [f"Where it goes, clustered, {largest} rows:\n"]
    rows.append("| screen | " + " | ".join(PARTS) + " | whole rows | pairs | exact |")
    rows.append("|---" * (len(PARTS) + 4) + "|")
    for line in clustered:
        if line["features"] == largest:
            times = [
                _seconds(sum(line["parts"].get(part, 0.0) for part in names))
                for names in PARTS.values()
            ]
            counts = [f"{line['counts'].get(n, 0):,}" for n in ("whole rows", "pairs", "exact")]
            rows.append("| " + " | ".join([line["screen"], *times, *counts]) + " |")
    return "\n".join(rows) + "\n"


def growth(lines: list[Line]) -> str:
    """How the time of auto grows with the rows, as a power."""
    powers = []
    for name in dict.fromkeys(line["dictionary"] for line in lines):
        times = {
            line["features"]: line["seconds"]
            for line in lines
            if line["dictionary"] == name and line["screen"] == "auto"
        }
        if len(times) > 1:
            low, high = min(times), max(times)
            power = math.log(times[high] / times[low]) / math.log(high / low)
            powers.append(f"{name} {power:.2f} ({low} to {high})")
    return prose(f"Times grow as a power of F: {', '.join(powers)}.") if powers else ""


def against_peers(lines: list[Line]) -> str:
    """Peers' times, as multiples of the time of the same run."""
    told = [
        f"at {line['features']} rows "
        + ", ".join(f"{peer} {taken / line['seconds']:.1f}" for peer, taken in times.items())
        for line in lines
        if (times := line.get("peers"))
    ]
    return prose(f"Peers, as multiples of saeaudit's time: {'; '.join(told)}.") if told else ""


def _seconds(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"
