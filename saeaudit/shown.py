"""How values look where a name is typed: in one line, and as a table in notebooks."""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, ClassVar

from saeaudit.escape import NAME, escape, visible

LONGEST = 60
"""Characters of a field's value in one line."""


class OneLine:
    """A dataclass whose repr is one line: fields that are not their defaults, tensors by shape.

    Takes the place of the generated one where the class has ``repr=False``.
    """

    __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    def __repr__(self) -> str:
        """Example: ``MediatorInputs(activations=<float32 [1500, 384]>)``."""
        shown = [
            f"{field.name}={_brief(getattr(self, field.name))}"
            for field in fields(self)
            if not _is_default(field, getattr(self, field.name))
        ]
        return f"{type(self).__name__}({', '.join(shown)})"


def html_table(heads: Sequence[str], rows: Iterable[Sequence[object]], *, more: str = "") -> str:
    """A table for notebooks; every text in it is escaped, and none starts a tag.

    Args:
        heads: of its columns.
        rows: a cell for each head.
        more: a line below it.
    """
    head = "".join(f"<th>{_cell(name)}</th>" for name in heads)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(value)}</td>' for value in row)}</tr>" for row in rows
    )
    below = f"<p>{_cell(more)}</p>" if more else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def _cell(value: object) -> str:
    return html.escape(visible(str(value), NAME))


def _is_default(field: Field[Any], value: object) -> bool:
    """Whether a field is as it is where nobody says: None, an empty collection, its default."""
    if value is None or (isinstance(value, (tuple, list, dict)) and not value):
        return True
    plain = isinstance(value, (bool, int, float, str))
    return plain and field.default is not MISSING and bool(field.default == value)


def _brief(value: object) -> str:
    """A value in a few words: tensors by dtype and shape, collections by their length."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        dtype = str(getattr(value, "dtype", "")).removeprefix("torch.")
        return f"<{dtype} {list(shape)}>"
    if isinstance(value, (list, tuple, dict)):
        return f"<{type(value).__name__} of {len(value):,}>"
    if callable(value):
        return "<function>"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return escape(repr(value), LONGEST)
