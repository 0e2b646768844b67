"""Importing saeaudit changes nothing for whoever imports it."""

from __future__ import annotations

import subprocess
import sys


def test_importing_any_module_changes_no_environment_variable() -> None:
    code = (
        "import importlib, os, pkgutil, saeaudit\n"
        "before = dict(os.environ)\n"
        "for module in pkgutil.walk_packages(saeaudit.__path__, 'saeaudit.'):\n"
        "    if not module.name.endswith('__main__'):\n"
        "        importlib.import_module(module.name)\n"
        "    assert dict(os.environ) == before, module.name\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
