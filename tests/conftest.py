from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

if not torch.cuda.is_available():  # before saeaudit.core.kernels is imported
    os.environ.setdefault("TRITON_INTERPRET", "1")

SCREENS = ("fp32", "bf16", "int8")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--device", default="cpu", help="run the suite's products on this device")
    parser.addoption("--seeds", default=18, type=int, help="dictionaries to compare by brute force")
    parser.addoption("--screen", default=None, choices=SCREENS, help="rerun with one screen only")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if metafunc.function.__name__ == "test_equals_brute_force":
        metafunc.parametrize("seed", range(metafunc.config.getoption("--seeds")))
    if "screen" in metafunc.fixturenames:
        only = metafunc.config.getoption("--screen")
        metafunc.parametrize("screen", [only] if only else SCREENS)


@pytest.fixture
def device(request: pytest.FixtureRequest) -> str:
    name = request.config.getoption("--device")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return name


Cli = Callable[..., subprocess.CompletedProcess[bytes]]


@pytest.fixture
def cli(tmp_path: Path) -> Cli:
    """Run ``python -m saeaudit`` in an empty folder, as a user's shell would."""

    def run(*arguments: object, **extra: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [sys.executable, "-m", "saeaudit", *map(str, arguments)],
            cwd=extra.pop("cwd", tmp_path),
            env={**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "default"},
            capture_output=True,
            timeout=120,
            check=False,
            **extra,
        )

    return run
