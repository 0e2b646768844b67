from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import saeaudit
from saeaudit import AuditError
from tests.conftest import Cli
from tests.hostile.bounds import bounded
from tests.hostile.makers import MAKERS, npz_bomb, pt_code


@pytest.mark.parametrize("maker", MAKERS, ids=lambda maker: maker.__name__)
def test_refused(maker: Callable[[Path], Path], tmp_path: Path) -> None:
    file = maker(tmp_path)
    with bounded(), pytest.raises(AuditError, match=MAKERS[maker]) as caught:
        saeaudit.open(file)
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
