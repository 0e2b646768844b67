from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import saeaudit
from saeaudit import AuditError
from tests.conftest import Cli
from tests.hostile.makers import MAKERS, npz_bomb, pt_code


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_refused(maker: Callable[[Path], Path], tmp_path: Path) -> None:
    file = maker(tmp_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with pytest.raises(AuditError, match=MAKERS[maker]) as caught:
        saeaudit.open(file)
    assert time.perf_counter() - start < 2
    scale = 1024 if sys.platform != "darwin" else 1
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * scale < 300e6
    assert "\n" not in caught.value.line()
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("maker", (pt_code, npz_bomb), ids=lambda maker: maker.__name__)
def test_refused_on_the_command_line(
    maker: Callable[[Path], Path], tmp_path: Path, cli: Cli
) -> None:
    done = cli("scan", maker(tmp_path), "-o", "out.jsonl")
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "out.jsonl").exists()
