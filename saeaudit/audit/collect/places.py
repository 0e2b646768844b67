"""From a hook, as users, release files and SAEs' configurations write it, to a place in a model."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from saeaudit.audit.collect.names import GAIN, WRITTEN, Family, family_of_model, translate
from saeaudit.errors import AuditError
from saeaudit.suggest import did_you_mean

Side = Literal["in", "out"]
ENDS = re.compile(r"(?P<path>.+?)(?:[:.](?P<side>in|out|input|output))?")
"""A module's path and a side: ``layers.3.mlp:in``, or as Gemma Scope 2 has it, ``….mlp.input``."""
WRAPPERS = ("model", "language_model", "transformer", "gpt_neox", "bert", "roberta", "base_model")
"""Modules that stand around the decoder in other classes, such as those with a head: a path may
begin with their names."""
SHOWN = 12
"""Most kinds of modules that an error lists."""


@dataclass(frozen=True)
class Place:
    """What is to be collected of a model's forward pass."""

    module: str
    """Path of a module of the decoder, such as ``layers.3.mlp``."""
    side: Side
    """What goes in, or what comes out."""
    divide_gain: bool = False
    """Whether the module is a norm, whose gain is divided out of what comes out."""
    subtract_mean: bool = False
    """Whether each activation's mean over its width is taken off (`Site.centred`)."""

    def __str__(self) -> str:
        """As a user can type it.

        >>> str(Place("layers.3.mlp", "in"))
        'layers.3.mlp:in'
        """
        return f"{self.module}:{self.side}"


def find_place(decoder: nn.Module, hook: str, *, centred: bool = False) -> Place:
    """Find the place that a hook means.

    Args:
        decoder: the model without its head, with a ``config``.
        hook: a module's path, ``PATH[:in|:out]``, where no side means what comes out; or a name of
            TransformerLens's.
        centred: whether TransformerLens had taken the mean off what is written to the residual
            stream; of other places it changes nothing.

    Raises:
        AuditError: there is no such place; lists the hooks or the modules that there are.
    """
    config: Any = decoder.config
    family = family_of_model(config)
    typed = hook.strip()
    path, subtract_mean = typed, False
    if "hook_" in typed:
        translated = translate(typed, family) if family else None
        if family is None or translated is None:
            raise _unknown_hook(typed, family, str(config.model_type))
        path = translated
        subtract_mean = centred and family.centred and WRITTEN.fullmatch(typed) is not None
    match = ENDS.fullmatch(path.removesuffix(GAIN))
    modules = dict(decoder.named_modules())
    module = _resolve(match["path"], modules) if match else None
    if match is None or module is None:
        raise _unknown_module(path.removesuffix(GAIN), typed, modules)
    side: Side = "in" if (match["side"] or "out").startswith("in") else "out"
    return Place(module, side, path.endswith(GAIN), subtract_mean)


def _resolve(path: str, modules: dict[str, nn.Module]) -> str | None:
    """A path in the decoder, without the wrappers that it may begin with; None where it has none.

    >>> _resolve("model.layers.0", {"layers.0": nn.Identity()})
    'layers.0'
    """
    while path not in modules:
        wrapper, dot, path = path.partition(".")
        if wrapper not in WRAPPERS or not dot:
            return None
    return path or None


def _unknown_hook(hook: str, family: Family | None, model_type: str) -> AuditError:
    what = f"no place is known for {hook[:100]!r} in a model of type {model_type}"
    names = [*family.outside, *(f"blocks.N.{name}" for name in family.inside)] if family else []
    known = f"known: {', '.join(names)}; or " if names else ""
    return AuditError(what, where="--hook", hint=f"{known}a module's path, such as layers.3:out")


def _unknown_module(path: str, typed: str, modules: dict[str, nn.Module]) -> AuditError:
    near = did_you_mean(path, modules) if path == typed else ""
    meant = "" if path == typed else f", which {typed!r} means"
    kinds = Counter(re.sub(r"\b\d+\b", "N", path) for path in modules if path)
    listed = [kind for kind, _ in kinds.most_common()]
    listed.sort(key=lambda kind: kind.count("."))
    more = f" and {len(listed) - SHOWN} more kinds" if len(listed) > SHOWN else ""
    numbers = [re.search(r"\b\d+\b", path) for path in modules]
    layers = max((int(number[0]) for number in numbers if number), default=0)
    return AuditError(
        f"the model has no module {path[:100]!r}{meant}",
        where="--hook",
        hint=f"{near + '; ' if near else ''}it has {', '.join(listed[:SHOWN])}{more}, N from 0 to "
        f"{layers}",
    )
