"""The worked examples in docstrings, run."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path

import pytest

import saeaudit

ROOT = Path(saeaudit.__file__).parent
EXAMPLES = [path for path in ROOT.rglob("*.py") if ">>> " in path.read_text()]


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_examples_give_what_they_say(path: Path) -> None:
    name = ".".join(("saeaudit", *path.relative_to(ROOT).with_suffix("").parts))
    ran = doctest.testmod(import_module(name.removesuffix(".__init__")))
    assert ran.attempted > 0 and not ran.failed
