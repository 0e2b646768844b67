"""Who may import whom: the architecture, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import saeaudit

ROOT = Path(saeaudit.__file__).parent
EVERYWHERE = {"errors"}
ALLOWED = {
    "errors": set(),
    "records": set(),
    "dictionary": set(),
    "core": set(),
    "sample": set(),
    "weights": {"dictionary"},
    "sources": {"weights", "sample"},
    "formats": {"records"},
    "policy": {"records"},
    "audit": {"core", "weights", "sources", "records", "dictionary"},
    "cli": {"audit", "policy", "formats", "sources", "records", ""},
}
"""Layer → the layers that it may import; "" is the package itself (its version)."""


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "saeaudit":
                names = {f"saeaudit.{alias.name}" for alias in node.names}
                inside = {n for n in names if (ROOT / n.split(".")[1]).exists()}
                found |= inside or {"saeaudit"}
            else:
                found.add(node.module or "")
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


def test_arrows() -> None:
    seen = 0
    for path in ROOT.rglob("*.py"):
        relative = path.relative_to(ROOT)
        if len(relative.parts) == 1 and relative.stem in ("__init__", "__main__"):
            continue
        own = relative.parts[0].removesuffix(".py")
        for module in imports(path):
            if module.split(".")[0] != "saeaudit":
                continue
            other = layer(module)
            seen += 1
            fine = other == own or other in ALLOWED[own]
            fine |= other in EVERYWHERE and own != "core"
            assert fine, f"{relative} imports {module}"
    assert seen > 50


def test_the_core_knows_only_torch_and_numpy() -> None:
    for path in (ROOT / "core").rglob("*.py"):
        for module in imports(path):
            top = module.split(".")[0]
            known = top in ("torch", "numpy", "triton") or module.startswith("saeaudit.core")
            assert known or top in sys.stdlib_module_names, f"{path.name} imports {module}"


def test_only_the_command_line_knows_typer_and_rich() -> None:
    for path in ROOT.rglob("*.py"):
        tops = {module.split(".")[0] for module in imports(path)}
        where = path.relative_to(ROOT)
        if where.parts[0] not in ("cli",):
            assert "typer" not in tops, where
        if where.parts[0] not in ("cli", "formats"):
            assert "rich" not in tops, where


def test_the_command_line_starts_without_torch_and_pydantic() -> None:
    code = (
        "import sys, saeaudit.cli.app;assert not {'torch', 'pydantic', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_are_one_idea_long() -> None:
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 450, path
