"""Who may import whom: the architecture, read from the source."""

from __future__ import annotations

import ast
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

import saeaudit

ROOT = Path(saeaudit.__file__).parent
EVERYWHERE = {"errors", "escape", "shown", "suggest", "untrusted", "vocabulary"}
"""Layers that all others may import; of these the core takes the vocabulary alone."""
ALLOWED = {
    "vocabulary": set(),
    "escape": set(),
    "errors": {"escape"},
    "shown": {"escape"},
    "suggest": set(),
    "untrusted": set(),
    "records": set(),
    "site": set(),
    "dictionary": {"core", "site"},  # core: the norms of rows in memory
    "core": set(),
    "sample": set(),
    "weights": {"dictionary", "site"},
    "sources": {"weights", "sample", "site", ""},
    "formats": {"records"},
    "report": {"records", "formats"},
    "policy": {"records"},
    "audit": {"core", "weights", "sources", "sample", "records", "dictionary", "site", ""},
    "cli": {"audit", "policy", "formats", "report", "sources", "records", ""},
}
"""Layer → the layers that it may import; "" is the package itself (its version)."""


WITHIN_CORE = {"": set(), "cosines": {""}, "codes": {""}}
"""Room of the core → the rooms of the core that it may import beside itself; "" is core/*.py."""
WITH_CIRCLES = set()
"""Folders whose files still import each other in circles: to be mended, never to be added to."""


MOST_PARAMETERS = 6
MOST_LINES = 400
WITH_MANY_PARAMETERS = {
    "core/cosines/kernels.py: sweep_tile": "Triton takes pointers, strides and sizes one by one",
    "weights/assemble.py: assemble": "six, and further fields of Weights as they are",
}


def layer(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def room(module: str) -> str:
    """Folder of a module of the core: "" for those beside the folders."""
    parts = module.split(".")[2:]
    return parts[0] if parts and (ROOT / "core" / parts[0]).is_dir() else ""


def name(path: Path) -> str:
    """Dotted name of a module of saeaudit."""
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_module(dotted: str) -> bool:
    path = ROOT.parent.joinpath(*dotted.split("."))
    return path.is_dir() or path.with_suffix(".py").is_file()


def imports(path: Path) -> set[str]:
    """Dotted names of the modules that a file imports, wherever in the file it does."""
    modules = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{path}: relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                modules.add(inner if is_module(inner) else node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return modules


def circle(arrows: dict[str, set[str]]) -> list[str]:
    """Modules that cannot be put in an order in which each imports only earlier ones."""
    while free := {module for module, targets in arrows.items() if not targets & arrows.keys()}:
        arrows = {module: targets for module, targets in arrows.items() if module not in free}
    return sorted(arrows)


def test_circles_are_noticed() -> None:
    assert circle({"a": {"b", "torch"}, "b": {"c"}, "c": set()}) == []
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}) == ["a", "b", "c"]


@pytest.mark.parametrize("folder", sorted(p.name for p in ROOT.iterdir() if list(p.glob("*.py"))))
def test_no_circles_inside_a_folder(folder: str) -> None:
    modules = circle({name(path): imports(path) for path in (ROOT / folder).rglob("*.py")})
    if folder in WITH_CIRCLES:
        assert modules, f"{folder} has no circle any more: take it off WITH_CIRCLES"
    else:
        assert not modules


def test_rooms_of_the_core() -> None:
    for path in (ROOT / "core").rglob("*.py"):
        inside = room(name(path))
        for module in imports(path):
            if module.startswith("saeaudit.core"):
                fine = room(module) in WITHIN_CORE[inside] | {inside}
                assert fine, f"{path.relative_to(ROOT)} imports {module}"


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
            fine |= other == "vocabulary" and own not in ("errors", "escape", "untrusted")
            fine |= other in EVERYWHERE and own not in ("core", "vocabulary")
            assert fine, f"{relative} imports {module}"
    assert seen > 50


def test_the_core_knows_only_torch_and_numpy() -> None:
    for path in (ROOT / "core").rglob("*.py"):
        for module in imports(path):
            top = module.split(".")[0]
            known = top in ("torch", "numpy", "triton") or module.startswith("saeaudit.core")
            known |= module == "saeaudit.vocabulary"
            assert known or top in sys.stdlib_module_names, f"{path.name} imports {module}"


def test_only_the_command_line_knows_typer_and_rich() -> None:
    for path in ROOT.rglob("*.py"):
        tops = {module.split(".")[0] for module in imports(path)}
        where = path.relative_to(ROOT)
        if where.parts[0] not in ("cli",):
            assert "typer" not in tops, where
        if where.parts[0] not in ("cli", "formats"):
            assert "rich" not in tops, where


def test_the_command_line_starts_without_slow_imports() -> None:
    code = (
        "import sys, saeaudit.cli.app;"
        "slow = {'torch', 'pydantic', 'numpy', 'rich', 'yaml', 'huggingface_hub'};"
        "assert not slow & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def parameters(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    """Names that a caller can give; `*` and `**` count as one each."""
    given = node.args
    names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
    names += [a.arg for a in (given.vararg, given.kwarg) if a]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


def test_functions_have_at_most_six_parameters() -> None:
    many = set()
    for path in ROOT.rglob("*.py"):
        relative = path.relative_to(ROOT)
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                continue
            # A command's parameters are its options: Typer wants them one by one.
            is_command = relative.parts[0] == "cli" and node.name == relative.stem
            if len(parameters(node)) > MOST_PARAMETERS and not is_command:
                many.add(f"{relative}: {node.name}")
    assert many == set(WITH_MANY_PARAMETERS), "the list must not grow, nor name what is mended"


def test_files_are_one_idea_long() -> None:
    for path in ROOT.rglob("*.py"):
        assert len(path.read_text().splitlines()) <= MOST_LINES, path


def test_no_test_imports_a_test() -> None:
    """What several tests share is in tests/support, or in a conftest where it is a fixture."""
    tests = Path(__file__).parent
    seen = 0
    for path in tests.rglob("*.py"):
        for module in imports(path):
            if module.startswith("tests."):
                seen += 1
                assert not module.split(".")[-1].startswith("test_"), f"{path} imports {module}"
    assert seen > 50


def test_tests_share_what_is_in_support() -> None:
    """Modules beside the tests of one room are that room's; what is for all is in support."""
    tests = Path(__file__).parent
    beside = {path.stem for path in tests.glob("*.py")} - {"__init__", "conftest"}
    assert all(stem.startswith("test_") for stem in beside), beside


def test_the_drawing_of_the_house_is_up_to_date() -> None:
    made = runpy.run_path(str(ROOT.parent / "docs" / "generate_house.py"))
    assert made["page"]() == (ROOT.parent / "CONTRIBUTING.md").read_text(), (
        "python docs/generate_house.py"
    )


def test_every_file_that_contributing_names_is_there() -> None:
    page = (ROOT.parent / "CONTRIBUTING.md").read_text()
    names = set(re.findall(r"`((?:saeaudit|tests|docs|configs)/[^`\s]*)`", page))
    assert len(names) > 25
    missing = {name for name in names if not (ROOT.parent / name).exists()}
    assert not missing


PRONOUNS = {
    "found",
    "own",
    "some",
    "nothing",
    "hold",
    "drops",
    "narrow",
    "elsewhere",
    "given",
    "it",
}
"""Names that say which, not what."""


def test_names_say_what_a_thing_is() -> None:
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = {node.id} if isinstance(node, ast.Name) else set()
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                names = {
                    argument.arg for argument in ast.walk(node.args) if hasattr(argument, "arg")
                }
            assert not names & PRONOUNS, f"{path.relative_to(ROOT)}: {names & PRONOUNS}"


def test_no_two_files_differ_by_an_ending() -> None:
    """Not score, scores and scoring: which of them holds what could not be remembered."""
    endings = ("s", "es", "er", "ing", "ed", "d")
    for folder in {path.parent for path in ROOT.rglob("*.py")}:
        stems = {path.stem for path in folder.iterdir() if path.suffix == ".py" or path.is_dir()}
        for stem in stems:
            for base in (stem, stem.removesuffix("e")):
                close = {base + ending for ending in endings} & (stems - {stem})
                assert not close, f"{folder.relative_to(ROOT)}: {stem} and {close}"


def test_modules_are_imported_by_their_names() -> None:
    """An import by a name that is put together hides who imports whom."""
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "import_module":
                assert not isinstance(node.args[0], (ast.JoinedStr, ast.BinOp)), path
