"""`saeaudit report` and `saeaudit card`: files in, one page or section out, mistakes in a line."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from saeaudit import AuditError
from saeaudit.report.draw import check_libraries
from tests.conftest import Cli
from tests.support.reports import GOLDEN

STITCHED, SAMPLE = GOLDEN / "stitched.jsonl", GOLDEN / "sample.jsonl"


def test_report_writes_a_page_and_its_figures(cli: Cli, tmp_path: Path) -> None:
    done = cli("report", STITCHED, SAMPLE, "-o", "report.html", "--figures", "new/figures")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    page = (tmp_path / "report.html").read_text()
    assert page.startswith("<!doctype html>") and page.endswith("</html>\n")
    files = {path.name for path in (tmp_path / "new/figures").iterdir()}
    assert {"nearest-neighbours.svg", "triples.svg"} <= files
    assert {name.replace(".svg", ".png") for name in files} == {n for n in files if "png" in n}
    for path in (tmp_path / "new/figures").iterdir():
        data = path.read_bytes()
        assert data.startswith(b"\x89PNG" if path.suffix == ".png" else b"<svg")
        assert b"var(--" not in data


def test_mistakes_are_one_line(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "scan.jsonl").write_bytes(STITCHED.read_bytes())
    (tmp_path / "bad.jsonl").write_text("{}\n")
    for arguments, said in (
        (["report", "scan.jsonl", "-o", "scan.jsonl"], b"would be written over scan.jsonl"),
        (["card", "bad.jsonl"], b"bad.jsonl: line 1 is not a record"),
    ):
        done = cli(*arguments)
        assert done.returncode == 2 and said in done.stderr, done.stderr
        assert done.stderr.count(b"\n") == 1
    assert not (tmp_path / "x.html").exists()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "altair" else 1)
    with pytest.raises(AuditError, match=r"needs altair \(pip install 'saeaudit\[report\]'\)"):
        check_libraries()
