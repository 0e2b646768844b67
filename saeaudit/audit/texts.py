"""What records say of an activation's token: its text, and what stands around it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from saeaudit.records import Context
from saeaudit.sources.collected.reader import CollectedTexts


class TokenText(NamedTuple):
    """A token in its document, as far as it is known."""

    text: str | None
    context: Context | None


def token_text(tokens: Sequence[str] | None, number: int) -> TokenText:
    """The text of an activation's token, by the texts of all.

    >>> token_text(["a", "b"], 1)
    TokenText(text='b', context=None)

    Raises:
        AuditError: a folder that was collected has no text of it.
    """
    if not tokens:
        return TokenText(None, None)
    around = Context(*tokens.around(number)) if isinstance(tokens, CollectedTexts) else None
    return TokenText(tokens[number], around)
