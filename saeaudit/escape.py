"""Text from outside, made safe for terminals, logs and CI systems.

File names, labels, keys and messages of other programs may hold what a terminal obeys (escape
sequences, reversed writing), what deceives a reader (invisible characters) or what a CI system
takes for a command of its own:

- GitHub's runner obeys lines that begin with two colons, and ``##[`` anywhere in a line;
- Azure's agent obeys ``##vso[`` anywhere, TeamCity ``##teamcity[``.

`escape` is for what people read, `visible` for what they read in HTML, which is escaped as such
beside, `json_line` for JSON, whose parsed values stay as they are.
"""

from __future__ import annotations

import json
import re
from typing import Any

NAME = 200
"""Characters of a name or label that are shown."""
MESSAGE = 500
"""Characters of a message that are shown."""
LINE = 2000
"""Characters of a whole line: where, what, and a hint that may list what is allowed."""

REPLACED = "\ufffd"
"""What stands for each thing taken out: names that differ stay different from those that do not."""

_BREAK = re.compile(r"[ ]*[\t-\r\x1c-\x1f\x85\u2028\u2029][\s\x1c-\x1f]*")
_SEQUENCE = (
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|(?:\x1b[\]PX^_]|[\x9d\x90\x98\x9e\x9f])[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)"  # OSC, DCS …
)
_INVISIBLE = (
    r"\x7f-\x9f\u00ad\u034f\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ufffe\uffff\U00013430-\U00013455\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    r"\U000e0000-\U000e007f"
)
"""DEL, C1, soft and zero-width characters, overrides of direction, layout controls, tags."""
_SURROGATES = r"\ud800-\udfff"
_HIDDEN = re.compile(f"{_SEQUENCE}|[\x00-\x1f{_INVISIBLE}{_SURROGATES}]")
_IN_JSON = re.compile(f"[{_INVISIBLE}]")
_LONE = re.compile(f"[{_SURROGATES}]")
_HASHES = re.compile("#(?=#)")
_COLONS = re.compile(":(?=:)")


def escape(text: str, limit: int = MESSAGE) -> str:
    r"""Return text from outside as people may read it: on one line, visible, and no command.

    >>> escape("a\nb \x1b[31mred\u202e ::error::x ##[group]")
    'a b \ufffdred\ufffd : :error: :x # #[group]'

    Args:
        text: anything; lone surrogates are allowed.
        limit: characters that are kept; the middle of a longer text becomes an ellipsis.
    """
    text = _COLONS.sub(": ", _HASHES.sub("# ", _shown(text, limit)))
    if text.endswith((":", "#")):
        text += " "  # what follows may begin with another
    return _cut(text, limit)


def visible(text: str, limit: int = MESSAGE) -> str:
    r"""The same where lines are obeyed by nobody, as in a page of HTML: commands stay as they are.

    >>> visible("a\nb \x1b[31mred\u202e ##ev")
    'a b \ufffdred\ufffd ##ev'
    """
    return _cut(_shown(text, limit), limit)


def _shown(text: str, limit: int) -> str:
    """On one line, with nothing that is not seen."""
    if len(text) > 4 * limit:  # before the expressions see it
        text = text[: 2 * limit] + text[-2 * limit :]
    return _HIDDEN.sub(REPLACED, _BREAK.sub(" ", text))


def _cut(text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    return text[: limit - limit // 2 - 1] + "…" + text[len(text) - limit // 2 :]


def json_line(value: Any, *, indent: int | None = None) -> str:
    r"""Return a JSON value as text that parses to the same and holds nothing to obey.

    >>> json_line({"a": "##[b]\x7f"})
    '{"a":"\\u0023#[b]\\u007f"}'

    Args:
        value: dictionaries, lists, text, finite numbers; a lone surrogate, which is no text,
            becomes U+FFFD.
        indent: as for `json.dumps`; on one line where None.

    Raises:
        ValueError: a number is not finite.
    """
    separators = (",", ":") if indent is None else (",", ": ")
    text = json.dumps(
        value, ensure_ascii=False, allow_nan=False, indent=indent, separators=separators
    )
    if text.isascii() and "##" not in text and "\x7f" not in text:
        return text  # nearly every record
    text = _LONE.sub(REPLACED, text)
    text = _IN_JSON.sub(lambda match: json.dumps(match[0])[1:-1], text)
    return _HASHES.sub(r"\\u0023", text)
