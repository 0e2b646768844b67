"""Hubs of files that a test is served, on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from saeaudit.sources import hubapi
from tests.support.hostile_hub import HostileHandler, World
from tests.support.hub import GEMMA, Hub, Running, large
from tests.weights import layouts


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    served = tmp_path / "served"
    for name in ("layer_16/width_16k/average_l0_78", "layer_16/width_16k/average_l0_154",
                 "layer_2/width_16k/average_l0_141"):  # fmt: skip
        large(served / GEMMA / name)
    (served / GEMMA / "README.md").write_text("a release\n")
    (served / "someone/mixed").mkdir(parents=True)
    layouts.saelens(served / "someone/mixed")
    layouts.qwen_scope(served / "someone/qwen")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SAEAUDIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    with Running(served) as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits between retries take no time, and are counted."""
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    return waited


@pytest.fixture
def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[World]:
    large(tmp_path / "served/o/r/a", features=60, width=16)
    (tmp_path / "served/o/r/a/cfg.txt").write_text("no LFS file\n")
    decoy = tmp_path / "decoy"
    decoy.mkdir()
    (decoy / "start.py").write_text("the user's own\n")
    monkeypatch.setenv("HOME", str(decoy))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("SAEAUDIT_CACHE", str(tmp_path / "cache/saeaudit"))
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "HF_TOKEN", "HF_HUB_DOWNLOAD_TIMEOUT"):
        monkeypatch.delenv(name, raising=False)
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)
    monkeypatch.setattr(hubapi, "MAX_ENTRIES", 3_000)
    handler = type("Playing", (HostileHandler,), {})
    with Running(tmp_path / "served", handler) as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield World(hub, tmp_path / "cache", decoy, handler, waits, capsys)
