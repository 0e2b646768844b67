"""What a machine is, and how fast it multiplies."""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable
from pathlib import Path

import torch

FEATURES = (("amx_int8", "amx"), ("avx512_vnni", "vnni"), ("avx_vnni", "vnni"))
FEATURES += (("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("i8mm", "i8mm"), ("bf16", "bf16"))
"""Flags of a processor, and what they are called in the name of its results."""


def kind(device: str = "cpu") -> str:
    """Name of the machine's kind, by what its processor can multiply: "x86-vnni-bf16"."""
    if device.startswith("cuda"):
        return re.sub(r"\W+", "-", torch.cuda.get_device_name().lower()).strip("-")
    flags = re.search(r"^(?:flags|Features)\s*: (.*)$", _cpuinfo(), re.M)
    words = set(flags[1].split()) if flags else set()
    has = dict.fromkeys(name for flag, name in FEATURES if flag in words)
    width = "avx512" if "avx512f" in words else "avx2" if "avx2" in words else "plain"
    arch = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm"}.get(platform.machine(), "other")
    return "-".join([arch, *(has or [width])])


def name() -> str:
    """Architecture, threads and processor."""
    model = re.search(r"^model name\s*: (.*)$", _cpuinfo(), re.M)
    words = model[1] if model else platform.processor() or "unknown processor"
    return f"{platform.machine()}, {torch.get_num_threads()} threads, {words}"


def _cpuinfo() -> str:
    try:
        return Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""


def operands(screen: str, side: int, width: int = 2304, device: str = "cpu") -> torch.Tensor:
    """Rows of a kind of product."""
    a = torch.randn(side, width, device=device)
    if screen == "int8":
        return (a * 30).clamp(-127, 127).to(torch.int8)
    return a.to(torch.bfloat16) if screen == "bf16" else a


def multiply(screen: str) -> Callable[..., torch.Tensor]:
    return torch._int_mm if screen == "int8" else torch.mm


def peak(screen: str, clock: Callable[[], float], device: str = "cpu") -> float:
    """Best operations a second of a square product of rows, over sizes and repeats."""
    best = 0.0
    for side in (16384,) if device != "cpu" else (512, 1024, 2048):
        a = operands(screen, side, device=device)
        for _ in range(5):
            seconds = timed(lambda a=a: multiply(screen)(a, a.T), clock)
            best = max(best, 2 * side * side * a.shape[1] / seconds)
    return best


def sustained(screen: str, clock: Callable[[], float], seconds: float = 1.0) -> float:
    """Operations a second of products of 1024 rows, one after the other, on the CPU."""
    a = operands(screen, 1024)
    done, start = 0, clock()
    while clock() - start < seconds:
        multiply(screen)(a, a.T)
        done += 2 * 1024 * 1024 * a.shape[1]
    return done / (clock() - start)


def timed(work: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds, the device's included."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    start = clock()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return clock() - start
