"""Draw the house in CONTRIBUTING.md from its imports: ``python docs/generate_house.py``."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "CONTRIBUTING.md"
PACKAGE = ROOT / "saeaudit"
BEGIN, END = "<!-- the house, made by docs/generate_house.py -->\n```\n", "```\n<!-- end -->"
LEDGE = 28
"""Column at which what a file is for begins."""


def modules() -> dict[str, Path]:
    """Module names, without the package's own, to their files."""
    names: dict[str, Path] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        if name:
            names[name] = path
    return names


def imported(path: Path, known: dict[str, Path]) -> set[str]:
    """Modules of the package that a file imports, wherever in the file it does."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("saeaudit"):
            module = (node.module or "").removeprefix("saeaudit").lstrip(".")
            inner = {f"{module}.{alias.name}".lstrip(".") for alias in node.names} & known.keys()
            names |= inner or ({module} if module else set())
        elif isinstance(node, ast.Import):
            names |= {
                alias.name.removeprefix("saeaudit.")
                for alias in node.names
                if alias.name.startswith("saeaudit.")
            }
    return names


def room(module: str) -> str:
    """The top-level folder or file that a module is in."""
    return module.split(".")[0]


def arrows() -> dict[str, set[str]]:
    """Room → the rooms that it imports."""
    known = modules()
    drawn: dict[str, set[str]] = {room(name): set() for name in known}
    for name, path in known.items():
        drawn[room(name)] |= {room(other) for other in imported(path, known)} - {room(name)}
    return drawn


def from_the_top(drawn: dict[str, set[str]]) -> list[str]:
    """Rooms so that every arrow points down: those that most others stand on come last."""
    depth: dict[str, int] = {}

    def below(name: str) -> int:
        if name not in depth:
            depth[name] = 1 + max((below(other) for other in drawn[name]), default=-1)
        return depth[name]

    return sorted(drawn, key=lambda name: (-below(name), name))


def purpose(path: Path) -> str:
    """The first sentence of a file's docstring."""
    text = ast.get_docstring(ast.parse(path.read_text())) or ""
    first = " ".join(text.split("\n\n")[0].split()).replace("``", "")
    return first.split(". ")[0].rstrip(".")


def drawing() -> str:
    """The whole drawing, a line for each file."""
    drawn = arrows()
    lines = []
    for name in from_the_top(drawn):
        folder = PACKAGE / name
        if folder.is_dir():
            lines += [f"{name + '/':<{LEDGE}}{purpose(folder / '__init__.py')}"]
        else:
            lines += [f"{name + '.py':<{LEDGE}}{purpose(folder.with_suffix('.py'))}"]
        if drawn[name]:
            lines += [f"{'':<{LEDGE}}↓ {' '.join(sorted(drawn[name]))}"]
        if folder.is_dir():
            lines += _inside(folder, 1)
    return "\n".join(lines) + "\n"


def _inside(folder: Path, depth: int) -> list[str]:
    lines = []
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_dir(), path.name)):
        margin = "  " * depth
        if path.is_dir() and (path / "__init__.py").exists():
            lines += [f"{margin + path.name + '/':<{LEDGE}}{purpose(path / '__init__.py')}"]
            lines += _inside(path, depth + 1)
        elif path.suffix == ".py" and path.name != "__init__.py":
            lines += [f"{margin + path.name:<{LEDGE}}{purpose(path)}"]
    return lines


def page() -> str:
    """CONTRIBUTING.md with the drawing as it is now."""
    before, rest = PAGE.read_text().split(BEGIN)
    return before + BEGIN + drawing() + END + rest.split(END)[1]


if __name__ == "__main__":
    PAGE.write_text(page())
