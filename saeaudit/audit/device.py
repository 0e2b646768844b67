"""Where to compute."""

from __future__ import annotations

import re

from saeaudit.errors import AuditError

NAME = re.compile(r"auto|(?:cpu|cuda|mps)(?::\d{1,3})?", re.ASCII)


def check_device(name: str) -> str:
    """Refuse what names no kind of device; whether it is there only PyTorch knows.

    Raises:
        AuditError: another name.
    """
    if not NAME.fullmatch(name):
        raise AuditError(
            f"{name[:40]!r} is no device", where="--device", hint="auto, cpu, cuda, cuda:1"
        )
    return name


def pick_device(name: str) -> str:
    """Resolve ``auto``, and refuse a device that is not there; imports PyTorch.

    Raises:
        AuditError: no such kind of device, or none present.
    """
    check_device(name)
    import torch

    if name == "auto":
        return "cuda:0" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise AuditError("this machine has no MPS device", where="--device", hint="--device cpu")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise AuditError(
            "this machine has no CUDA device that PyTorch can use",
            where="--device",
            hint="--device cpu",
        )
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise AuditError(f"there is no {name}", where="--device")
    return name
