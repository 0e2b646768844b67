"""``saeaudit --version``: of saeaudit, Python, PyTorch and CUDA, without importing PyTorch."""

from __future__ import annotations

import platform
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from saeaudit import __version__


def versions() -> str:
    """Two lines: saeaudit's own version, and what it runs on."""
    python = f"Python {platform.python_version()}"
    return f"saeaudit {__version__}\n{python}, torch {_torch()}, CUDA {_cuda()}"


def _torch() -> str:
    try:
        return version("torch")
    except PackageNotFoundError:
        return "is not installed"


def _cuda() -> str:
    """The version that PyTorch is built for, which its version.py states; "none" for other builds.

    Whether a device is there only the driver knows; `--device cuda` says it.
    """
    spec = find_spec("torch")
    file = Path(spec.origin).with_name("version.py") if spec and spec.origin else None
    text = file.read_text(encoding="utf-8") if file and file.is_file() else ""
    stated = re.search(r"^cuda\b[^=\n]*= *['\"]([\d.]+)['\"]", text, re.MULTILINE)
    return stated[1] if stated else "none"
