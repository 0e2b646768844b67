"""Time a scan against its peers, in one run, and check that they agree.

    python bench/scan.py [--device cpu] [--sizes 4096 16384 65536] [--peers-up-to 16384]
    python bench/scan.py --device cuda [--sizes 16384 131072 1048576] [--peers-up-to 131072]

For each size: the floor (half of F^2 d multiply-adds at the matmul peak measured in this run; on
CUDA also the bytes of one read of the decoder at the copy bandwidth measured in this run), the core
time of saeaudit with the decoder already on the device, and the peers on the same rows: faiss
IndexFlatIP.range_search at the edge floor and scikit-learn's brute radius_neighbors (CPU only), and
plain torch loops in float32 (on CUDA also TF32 and bfloat16) that threshold |cosine| and refine in
float64. The peers find pairs only; saeaudit's time includes the triples and the geometry figures.
Results are printed and appended to bench/results/scan.jsonl.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch

from saeaudit.audit.scan import search as audit
from saeaudit.core.cosines.screen import calibrate, make_screen
from saeaudit.core.cosines.sweep import sweep
from saeaudit.core.rows import UnitRows, row_norms

TAU = 0.9


def dictionary(count: int, width: int, seed: int = 0, device: str = "cpu") -> torch.Tensor:
    """A structured dictionary: features share directions, some are planted twins and triples."""
    generator = torch.Generator(device).manual_seed(seed)
    options = {"generator": generator, "device": device}
    rows = torch.randn(count, width, **options)
    centres = torch.randn(count // 16, width, **options)
    shared = torch.randint(0, len(centres), (count,), **options)
    rows += 1.2 * torch.rand(count, 1, **options) * centres[shared]
    rows += 0.15 * torch.randn(1, width, **options)
    rows /= rows.norm(dim=1, keepdim=True)
    n = count // 1000
    noise = torch.randn(2 * n, width, **options) / width**0.5
    rows[-n:] = rows[:n] + 0.2 * noise[:n]
    rows[-2 * n : -n] = rows[n : 2 * n] - 0.7 * rows[2 * n : 3 * n] + 0.1 * noise[n:]
    return rows.contiguous()


def matmul_peak(kind: str) -> float:
    """Best operations a second of a square product of rows, over sizes and repeats."""
    best = 0.0
    for side in (512, 1024, 2048):
        a = torch.randn(side, 2304)
        if kind == "int8":
            a = (a * 30).clamp(-127, 127).to(torch.int8)
        elif kind == "bf16":
            a = a.to(torch.bfloat16)
        multiply = torch._int_mm if kind == "int8" else torch.mm
        for _ in range(3 if kind == "int8" and side > 512 else 7):
            start = time.perf_counter()
            multiply(a, a.T)
            best = max(best, 2 * side * side * 2304 / (time.perf_counter() - start))
    return best


def sustained(kind: str, seconds: float = 2.0) -> float:
    """Operations a second of products of rows, one after the other, on the CPU."""
    a = torch.randn(1024, 2304)
    if kind == "int8":
        a = (a * 30).clamp(-127, 127).to(torch.int8)
    elif kind == "bf16":
        a = a.to(torch.bfloat16)
    multiply = torch._int_mm if kind == "int8" else torch.mm
    done, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        multiply(a, a.T)
        done += 2 * 1024 * 1024 * 2304
    return done / (time.perf_counter() - start)


def sweep_alone(rows: torch.Tensor, screen: str) -> float:
    """Seconds of the pass over all pairs, without packing before it and refinement after."""
    units = UnitRows(rows, torch.arange(len(rows), device=rows.device), row_norms(rows))
    packed = make_screen(units, screen, rows.device)
    best = torch.zeros(len(rows), device=rows.device)
    return timed(lambda: sum(len(hits.i) for hits in sweep(packed, 0.25, best)))


def cuda_peak(kind: str) -> float:
    """Operations a second of a large square product on CUDA, over ten of them."""
    side = 16384
    a = torch.randn(side, side, device="cuda")
    if kind == "int8":
        a = (a * 30).clamp(-127, 127).to(torch.int8)
    elif kind == "bf16":
        a = a.to(torch.bfloat16)
    multiply = torch._int_mm if kind == "int8" else torch.mm
    for _ in range(3):
        multiply(a, a.T)
    seconds = timed(lambda: [multiply(a, a.T) for _ in range(10)])
    return 10 * 2 * side**3 / seconds


def copy_bandwidth() -> float:
    """Bytes a second of a large copy on CUDA, read and written."""
    a = torch.empty(1 << 30, dtype=torch.int32, device="cuda")
    b = torch.empty_like(a)
    b.copy_(a)
    return 10 * 2 * a.nbytes / timed(lambda: [b.copy_(a) for _ in range(10)])


def timed(work: Callable[[], object]) -> float:
    """Seconds, the device's included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def ours(rows: torch.Tensor, screen: str) -> tuple[float, set[tuple[int, int]], int]:
    """Core seconds, the pairs, and the number of triples."""
    norms = row_norms(rows)
    units = UnitRows(rows, torch.arange(len(rows), device=rows.device), norms)
    options = audit.ScanOptions(min_cosine=TAU, device=str(rows.device))
    held = []
    seconds = timed(lambda: held.append(audit.search("bench", units, options, screen)))
    (found,) = held
    pairs = set(zip(found.pairs.i.tolist(), found.pairs.j.tolist(), strict=True))
    return seconds, pairs, len(found.triples.features)


def with_faiss(rows: torch.Tensor, floor: float) -> set[tuple[int, int]]:
    """Positive cosines only: half of what saeaudit looks at."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    units = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    index = faiss.IndexFlatIP(units.shape[1])
    index.add(units)
    limits, cosines, labels = index.range_search(units, floor)
    row = np.repeat(np.arange(len(units)), np.diff(limits).astype(int))
    keep = (cosines >= TAU) & (row < labels)
    return set(zip(row[keep].tolist(), labels[keep].tolist(), strict=True))


def with_sklearn(rows: torch.Tensor, floor: float) -> set[tuple[int, int]]:
    from sklearn.neighbors import NearestNeighbors

    units = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    model = NearestNeighbors(algorithm="brute", metric="cosine", n_jobs=-1).fit(units)
    found = set()
    for start in range(0, len(units), 2048):
        near = model.radius_neighbors(units[start : start + 2048], 1 - TAU, return_distance=False)
        for row, partners in enumerate(near, start):
            found |= {(row, int(j)) for j in partners if j > row}
    return found


def with_torch(
    rows: torch.Tensor, floor: float, dtype: torch.dtype = torch.float32, slack: float = 1e-3
) -> set[tuple[int, int]]:
    units = (rows / rows.norm(dim=1, keepdim=True)).to(dtype)
    found = set()
    for start in range(0, len(units), 1024):
        cosines = units[start : start + 1024] @ units.T
        near = (cosines.abs() >= TAU - slack).nonzero()
        i, j = near[:, 0] + start, near[:, 1]
        i, j = i[i < j], j[i < j]
        exact = torch.nn.functional.cosine_similarity(rows[i].double(), rows[j].double())
        hit = exact.abs() >= TAU
        found |= set(zip(i[hit].tolist(), j[hit].tolist(), strict=True))
    return found


def with_tf32(rows: torch.Tensor, floor: float) -> set[tuple[int, int]]:
    torch.set_float32_matmul_precision("high")
    try:
        return with_torch(rows, floor, slack=5e-3)
    finally:
        torch.set_float32_matmul_precision("highest")


def with_bf16(rows: torch.Tensor, floor: float) -> set[tuple[int, int]]:
    return with_torch(rows, floor, torch.bfloat16, slack=2e-2)


CUDA_PEERS = {
    "torch float32 loop": with_torch,
    "torch TF32 loop": with_tf32,
    "torch bfloat16 loop": with_bf16,
    "faiss range_search on the CPU": lambda rows, floor: with_faiss(rows.cpu(), floor),
}
PEERS: dict[str, Callable[[torch.Tensor, float], set[tuple[int, int]]]] = {
    "faiss range_search": with_faiss,
    "scikit-learn radius_neighbors": with_sklearn,
    "torch float32 loop": with_torch,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--width", type=int, default=2304)
    parser.add_argument("--peers-up-to", type=int, default=16384)
    parser.add_argument("--screen", default=None, choices=["fp32", "bf16", "int8"])
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    cuda = options.device.startswith("cuda")
    sizes = options.sizes or ([16384, 131072, 1048576] if cuda else [4096, 16384, 65536])
    screen = options.screen or calibrate(options.width, torch.device(options.device))
    peak = cuda_peak(screen) if cuda else matmul_peak(screen)
    bandwidth = copy_bandwidth() if cuda else None
    peers = CUDA_PEERS if cuda else PEERS
    machine = machine_name()
    print(f"{machine}, {torch.backends.cpu.get_cpu_capability()}; torch {torch.__version__}")
    print(f"screen {screen}: matmul peak in this run {peak / 1e9:.0f} Gop/s")
    if bandwidth:
        print(f"copy bandwidth {bandwidth / 1e9:.0f} GB/s, read and written")
    lines = []
    for count in sizes:
        rows = dictionary(count, options.width, device=options.device)
        floor = count * count * options.width / peak
        if bandwidth:
            floor += rows.nbytes / bandwidth
        if cuda:
            ours(rows, screen)  # compiles, and fills the allocator
        repeats = options.repeats if count <= 16384 or cuda else 1
        runs = [ours(rows, screen) for _ in range(repeats)]
        seconds = statistics.median(run[0] for run in runs)
        pairs, triples = runs[0][1], runs[0][2]
        planted = count // 1000
        assert len(pairs) >= planted and triples >= planted, "planted findings were missed"
        print(f"\n{count} x {options.width}: {len(pairs)} pairs, {triples} triples")
        swept = sweep_alone(rows, screen)
        steady = peak if cuda else sustained(screen)
        print(f"  floor {floor:.4f} s; saeaudit {seconds:.4f} s, {floor / seconds:.0%} of the peak")
        print(f"  sweep alone {swept:.4f} s, {floor / swept:.0%} of the peak", end="")
        print("" if cuda else f", {floor * peak / steady / swept:.0%} of sustained products")
        record = {
            "date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine,
            "cpu_capability": torch.backends.cpu.get_cpu_capability(),
            "device": torch.cuda.get_device_name() if cuda else "cpu",
            "torch": torch.__version__, "screen": screen, "peak_gops": round(peak / 1e9, 1),
            "features": count, "width": options.width, "floor_s": round(floor, 6),
            "sustained_gops": round(steady / 1e9, 1), "sweep_s": round(swept, 6),
            "saeaudit_s": round(seconds, 6), "share_of_peak": round(floor / seconds, 3),
            "peers_s": {},
        }  # fmt: skip
        for name, peer in peers.items() if count <= options.peers_up_to else ():
            held: list[set[tuple[int, int]]] = []
            try:
                taken = timed(lambda peer=peer, held=held, rows=rows: held.append(peer(rows, 0.25)))
            except ImportError as error:
                print(f"  {name}: not installed ({error.name})")
                continue
            (found,) = held
            cosine = {p: float(rows[p[0]] @ rows[p[1]]) for p in pairs | found}
            same = {p for p in pairs if cosine[p] > 0}  # all but the torch loops see one sign
            wanted = pairs if name.startswith("torch") else same
            assert found == wanted, f"{name} disagrees: {found ^ wanted}"
            record["peers_s"][name] = round(taken, 3)
            print(f"  {name}: {taken:.2f} s, {taken / seconds:.1f} times as long")
        record["resident_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        print(f"  peak resident {record['resident_mb']} MB (the peers' included)")
        lines.append(json.dumps(record))
    results = Path(__file__).parent / "results" / "scan.jsonl"
    results.parent.mkdir(exist_ok=True)
    with results.open("a") as stream:
        stream.write("\n".join(lines) + "\n")


def machine_name() -> str:
    """Architecture, threads and processor."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {_cpu()}"


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


if __name__ == "__main__":
    main()
