"""What a release file's section `collect` says of the activations that its SAEs read.

    collect:
      hooks: {"layer_{layer}/": "blocks.{layer}.hook_resid_post", "embedding/": hook_embed}
      context: 1024
      bos: drop

`hooks` has a pattern of the beginning of an SAE's path in the repository, in which * stands for
anything within a name, and the hook of the SAEs that it fits; the first that fits counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, get_args

from saeaudit.errors import AuditError
from saeaudit.site import UNKNOWN, Site
from saeaudit.untrusted import whole
from saeaudit.vocabulary import Bos

KEYS = ("hooks", "context", "bos")
LAYER = "{layer}"
LONGEST = 200
"""Characters of a pattern, which becomes a regular expression."""


@dataclass(frozen=True)
class Reads:
    """What is said of a release's SAEs."""

    hooks: tuple[tuple[str, str], ...] = ()
    """Patterns of paths and the hooks of the SAEs that they fit."""
    rest: Site = UNKNOWN
    """What is the same for all."""

    def site(self, path: str) -> Site:
        """What the SAE of a path reads.

        >>> Reads((("layer_{layer}/", "blocks.{layer}.hook_z"),)).site("layer_7/width_1m").hook
        'blocks.7.hook_z'
        """
        for pattern, hook in self.hooks:
            match = _compiled(pattern).match(path)
            if match:
                layer = match.groupdict().get("layer")
                return Site(hook=hook if layer is None else hook.replace(LAYER, layer)).over(
                    self.rest
                )
        return self.rest


UNTOLD = Reads()
"""A release that does not say."""


def _compiled(pattern: str) -> re.Pattern[str]:
    literal = re.escape(pattern).replace(re.escape("*"), "[^/]*")
    return re.compile(literal.replace(re.escape(LAYER), "(?P<layer>[0-9]{1,4})", 1))


def parse_reads(section: Any, where: str) -> Reads:
    """Read the section; absent, it says nothing.

    Raises:
        AuditError: unknown keys, or wrong types; names the file and the key.
    """
    if section is None:
        return UNTOLD
    if not isinstance(section, dict):
        raise _wrong("", section, "a mapping", where)
    for key in section:
        if key not in KEYS:
            hint = f"known: {', '.join(KEYS)}"
            raise AuditError(f"unknown key collect.{key}", where=where, hint=hint)
    context, bos = section.get("context"), section.get("bos")
    if context is not None and (whole(context) or 0) < 1:
        raise _wrong(".context", context, "a number of tokens", where)
    if bos is not None and bos not in get_args(Bos):
        raise _wrong(".bos", bos, ", ".join(get_args(Bos)), where)
    return Reads(_hooks(section.get("hooks") or {}, where), Site(context=whole(context), bos=bos))


def _hooks(hooks: Any, where: str) -> tuple[tuple[str, str], ...]:
    if not isinstance(hooks, dict):
        raise _wrong(".hooks", hooks, "a mapping of patterns to hooks", where)
    for pattern, hook in hooks.items():
        named = isinstance(pattern, str) and isinstance(hook, str) and hook
        if not named or len(pattern) > LONGEST or pattern.count(LAYER) > 1:
            raise _wrong(f".hooks.{pattern}", hook, "a hook for the SAEs of a path", where)
        if LAYER in hook and LAYER not in pattern:
            raise _wrong(f".hooks.{pattern}", hook, "a path that has {layer}, too,", where)
    return tuple(hooks.items())


def _wrong(key: str, value: Any, allowed: str, where: str) -> AuditError:
    return AuditError(f"collect{key} is {value!r}; {allowed} was expected", where=where)
