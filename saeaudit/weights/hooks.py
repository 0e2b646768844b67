"""What configurations say of the place that an SAE reads; nobody else checks them, so what is no
such text or number is not said."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from saeaudit.untrusted import whole

LONGEST = 200
"""Characters of a name."""
RESIDUAL = "blocks.{}.hook_resid_post"
"""The residual stream as a layer leaves it, as TransformerLens calls it."""


def named(config: Mapping[str, Any], *keys: str) -> str | None:
    """The first text in a configuration that may be a name; None where none is.

    >>> named({"hook_point": "blocks.3.hook_resid_pre"}, "hook_name", "hook_point")
    'blocks.3.hook_resid_pre'
    """
    for key in keys:
        value = config.get(key)
        if isinstance(value, str) and 0 < len(value) <= LONGEST and value.isprintable():
            return value
    return None


def counted(config: Mapping[str, Any], key: str) -> int | None:
    """A positive whole number in a configuration; None where none is."""
    number = whole(config.get(key))
    return number if number is not None and number > 0 else None


def residual_of(file: PurePath, pattern: str) -> str | None:
    """The hook of the residual stream, where a file's name says the layer.

    >>> residual_of(PurePath("layer7.sae.pt"), r"layer([0-9]+)")
    'blocks.7.hook_resid_post'
    """
    match = re.search(pattern, file.name)
    return RESIDUAL.format(int(match[1])) if match else None
