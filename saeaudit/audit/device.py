"""Where to compute."""

from __future__ import annotations

import torch

from saeaudit.errors import AuditError


def pick_device(name: str) -> str:
    """Resolve ``auto``, and refuse a device that is not there.

    Raises:
        AuditError: no such kind of device, or none present.
    """
    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise AuditError(
            f"unknown device {name!r}", where="--device", hint="auto, cpu, cuda, cuda:1"
        ) from error
    if device.type == "mps" and torch.backends.mps.is_available():
        return name
    if device.type not in ("cpu", "cuda"):
        raise AuditError(
            f"{name!r} is not supported here", where="--device", hint="auto, cpu, cuda"
        )
    if device.type == "cuda" and not torch.cuda.is_available():
        raise AuditError(
            "this machine has no CUDA device that PyTorch can use",
            where="--device",
            hint="--device cpu",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise AuditError(f"there is no {name}", where="--device")
    return name
