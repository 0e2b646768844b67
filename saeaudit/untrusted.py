"""Text from outside: JSON, YAML, lines and numbers, read within limits.

What a file, a hub or a user hands over may be anything. Each function here takes time and memory
in proportion to the bytes it is given, and says what is wrong in one `AuditError`:

- text is UTF-8, whatever the machine's locale says, and lines end at ``\\n`` alone;
- nesting and the number of values are counted before a parser sees the text, because parsers
  recurse, and because ``[[],[],…`` grows to forty times its size in memory;
- a key that stands twice is an error, because the second would silently undo the first.
"""

from __future__ import annotations

import codecs
import itertools
import json
import math
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from saeaudit.errors import AuditError

if TYPE_CHECKING:
    from yaml import Event

DEPTH = 64
"""Nested values in JSON, YAML and state dictionaries; no real file comes near."""
TEXT = 16 << 20
"""Bytes of a configuration or a header."""
VALUES = 1_000_000
"""Values in one JSON text: about 100 MB once parsed."""
YAML_VALUES = 200_000
"""Values in one YAML text: about a second."""
LINE = 64 << 20
"""Bytes of one line: the record of a decoder with millions of dead features fits."""
LINES = 16 << 30
"""Bytes of a file of lines, or of a stream."""
NUMBER = 400
"""Characters of a YAML number: longer ones are no number that a message could repeat."""
SCALAR = 4096
"""Characters of one YAML scalar: PyYAML's base-60 numbers grow with the square of theirs."""

_STRING = re.compile(r'"(?:[^"\\]++|\\.)*+"?', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
_NO_BRACKET = re.compile(r"[^][{}]+")
_STEP = {"[": 1, "{": 1, "]": -1, "}": -1}


def read_text(path: Path, limit: int = TEXT) -> str:
    """The whole of a UTF-8 file, without a byte order mark.

    Args:
        path: a file.
        limit: most bytes that it may have.

    Raises:
        AuditError: it cannot be read, is larger, or is not UTF-8.
    """
    return decode(read_bytes(path, limit), str(path), limit)


def read_bytes(path: Path, limit: int = TEXT) -> bytes:
    """The whole of a file.

    Raises:
        AuditError: it cannot be read, or has more than `limit` bytes.
    """
    where = str(path)
    try:
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        raise AuditError(f"cannot be read: {error.strerror or error}", where=where) from error
    if len(data) > limit:
        raise AuditError(f"more than {limit:,} bytes of text", where=where)
    return data


def decode(data: bytes, where: str, limit: int = TEXT) -> str:
    """Bytes as text.

    Raises:
        AuditError: more than `limit` bytes, or not UTF-8.
    """
    if len(data) > limit:
        raise AuditError(f"more than {limit:,} bytes of text", where=where)
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise AuditError(f"line {line} is not UTF-8", where=where) from error


def parse_json(text: str | bytes, where: str, *, limit: int = TEXT, values: int = VALUES) -> Any:
    """Parse one JSON value.

    Args:
        text: the JSON; bytes are UTF-8.
        where: what errors call it.
        limit: most bytes (or characters) of it.
        values: most numbers, strings, lists and objects in it.

    Raises:
        AuditError: not JSON, too large, too deep, or an object with the same key twice.
    """
    if isinstance(text, bytes):
        text = decode(text, where, limit)
    elif len(text) > limit:
        raise AuditError(f"more than {limit:,} characters of JSON", where=where)
    check_json(text, where, values=values)
    try:
        value = json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        raise AuditError(f"bad JSON: {error}", where=where) from error
    return _mended(value) if _SURROGATE.search(text) else value


def check_json(text: str, where: str, *, values: int = VALUES) -> None:
    """Refuse JSON that a parser could not take in its stride, without parsing it.

    Raises:
        AuditError: more than `values` values or `DEPTH` levels.
    """
    brackets = text.count("[") + text.count("{")
    if brackets + text.count(",") > values:
        raise AuditError(f"bad JSON: more than {values:,} values", where=where)
    if brackets > DEPTH:
        shape = _NO_BRACKET.sub("", _STRING.sub("", text))
        if max(itertools.accumulate(map(_STEP.__getitem__, shape)), default=0) > DEPTH:
            raise AuditError(f"bad JSON: nested more than {DEPTH} deep", where=where)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        ((twice, _),) = Counter(key for key, _ in pairs).most_common(1)
        raise ValueError(f"the same key twice: {twice[:100]!r}")
    return result


def _mended(value: Any) -> Any:
    """Half a surrogate pair, which no encoding can write, becomes U+FFFD."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_mended(inner) for inner in value]
    if isinstance(value, dict):
        return {_mended(key): _mended(inner) for key, inner in value.items()}
    return value


def parse_yaml(text: str, where: str, *, values: int = YAML_VALUES) -> Any:
    """Parse one YAML document of plain mappings, lists and scalars.

    Aliases and tags are refused: they let few bytes stand for much, or for another type.

    Args:
        text: the YAML.
        where: what errors call it.
        values: most keys, scalars, lists and mappings in it.

    Raises:
        AuditError: not YAML, too large, too deep, an alias, a tag, or a key that stands twice
            (names the key and the line).
    """
    import yaml

    if len(text) > TEXT:
        raise AuditError(f"more than {TEXT:,} characters of YAML", where=where)
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(yaml.parse(text, Loader=loader), where, values)
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, ValueError, OverflowError) as error:  # the latter two: odd numbers
        raise AuditError(f"bad YAML: {error}", where=where) from error


def _check_events(events: Iterator[Event], where: str, values: int) -> None:
    """Walk a document before it is composed.

    Composing recurses in C: 50,000 open brackets end the process.
    """
    import yaml

    around: list[_Keys | None] = []  # the mappings and lists (None) that an event lies in
    for number, event in enumerate(events):
        if number > values:
            raise AuditError(f"bad YAML: more than {values:,} values", where=where)
        if len(around) > DEPTH:
            raise AuditError(f"bad YAML: nested more than {DEPTH} deep", where=where)
        if isinstance(event, yaml.CollectionEndEvent):
            around.pop()
        elif isinstance(event, (yaml.AliasEvent, yaml.ScalarEvent, yaml.CollectionStartEvent)):
            line = event.start_mark.line + 1 if event.start_mark else 0
            wrong = _wrong(event) or (around[-1].take(event) if around and around[-1] else "")
            if wrong:
                raise AuditError(f"{wrong} on line {line}", where=where)
            if isinstance(event, yaml.CollectionStartEvent):
                around.append(_Keys() if isinstance(event, yaml.MappingStartEvent) else None)


def _wrong(event: Event) -> str:
    """What is wrong with a value, or nothing."""
    import yaml

    if isinstance(event, yaml.AliasEvent):
        return f"bad YAML: an alias (*{event.anchor})"
    if getattr(event, "tag", None) is not None:
        return f"bad YAML: a tag ({getattr(event, 'tag', '')})"
    if isinstance(event, yaml.ScalarEvent) and len(event.value) > SCALAR:
        return f"bad YAML: a text of {len(event.value):,} characters"
    if isinstance(event, yaml.ScalarEvent) and event.implicit[0] and len(event.value) > NUMBER:
        if event.value[0] in "+-.0123456789":
            return f"bad YAML: a number of {len(event.value):,} characters"
    return ""


class _Keys:
    """The keys of one mapping, as its keys and values come in turn."""

    def __init__(self) -> None:
        self.seen: set[str] = set()
        self.expected = True

    def take(self, event: Event) -> str:
        """Take a key or a value; what is wrong with it, or nothing."""
        key = getattr(event, "value", None) if self.expected else None
        self.expected = not self.expected
        if key is None:
            return ""
        if key in self.seen:
            return f"the key {key!r} stands twice, again"
        self.seen.add(key)
        return ""


def text_lines(
    stream: IO[bytes], where: str, *, line: int = LINE, total: int = LINES
) -> Iterator[str]:
    """Lines of a UTF-8 stream, without their ends.

    Only ``\\n`` ends a line, and takes a ``\\r`` before it along. ``str.splitlines`` knows nine
    more ends, so that one label with a form feed in it would shift all that follow.

    Args:
        stream: bytes, read as the lines are asked for.
        where: what errors call it.
        line: most bytes of a line.
        total: most bytes in all.

    Raises:
        AuditError: not UTF-8, or larger; names the line.
    """
    done = 0
    for number in itertools.count(1):
        data = stream.readline(line + 1)
        done += len(data)
        if not data:
            return
        if len(data) > line:
            raise AuditError(f"line {number} has more than {line:,} bytes", where=where)
        if done > total:
            raise AuditError(f"more than {total:,} bytes", where=where)
        if number == 1:
            data = data.removeprefix(codecs.BOM_UTF8)
        try:
            yield data.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8")
        except UnicodeDecodeError as error:
            raise AuditError(f"line {number} is not UTF-8", where=where) from error


def finite(value: Any) -> float | None:
    """A number from a parsed text, or None where it is none or not finite (``10**400``)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def whole(value: Any) -> int | None:
    """A whole number from a parsed text (4096 or 4096.0), or None where it is none."""
    number = finite(value)
    return int(value) if number is not None and number == int(number) else None
