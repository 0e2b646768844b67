from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # one thread for each of several workers
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

if not torch.cuda.is_available():  # before saeaudit.core.cosines.kernels is imported
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
FORKS = Path(__file__).parent / "support" / "forks.py"


@pytest.fixture(scope="session")
def saeaudit(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What to put before arguments to run saeaudit as ``python -m saeaudit`` would."""
    if not hasattr(socket, "send_fds") or sys.platform == "darwin":
        yield [sys.executable, "-m", "saeaudit"]
        return
    path = str(tmp_path_factory.mktemp("forks") / "s")
    environment = {**os.environ, "PYTHONWARNINGS": "default"}
    command = [sys.executable, str(FORKS), "serve", path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as server:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        yield [sys.executable, "-S", "-E", str(FORKS), "run", path]
        server.terminate()


@pytest.fixture
def cli(tmp_path: Path, saeaudit: list[str]) -> Cli:
    """Run saeaudit in an empty folder, as a user's shell would."""

    def run(*arguments: object, **extra: object) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            [*saeaudit, *map(str, arguments)],
            cwd=extra.pop("cwd", tmp_path),
            env={**os.environ, "NO_COLOR": "1", "PYTHONWARNINGS": "default"},
            capture_output=True,
            timeout=120,
            check=False,
            **extra,
        )

    return run
