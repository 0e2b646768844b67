"""Changes to valid inputs: to bytes anywhere, to texts, and to JSON value by value."""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Iterator, Sequence
from typing import Any

SIZES = (0, 1, 2, 7, 127, 128, 255, 256, 32767, 65535, 65536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1,
         1 << 32, 1 << 40, (1 << 62), (1 << 63) - 1, 1 << 63, (1 << 64) - 1)  # fmt: skip
"""Numbers at which lengths go wrong."""
TEXTS = (
    "", " ", "\n", "a\nb", "\r", "\x00", "\x1b[31mred", "\x9b31m", "\x1b]0;title\x07", "\x85",
    "\u2028", "\u202e", "\x0c", "##[error]x", "##vso[task.x]", "::error::x", "\n::stop-commands::x",
    "../../x", "/etc/x", "..", ".", "a/../b", "x" * 10_000, "\ud800", "\ufffe", "[red]", "[/]",
    "[link=http://x]", "%0A::error::", "<x>&amp;]]>", "nan", "-1", "1e999", "{0}", "%s", "{layer}",
    "\ufeff", "W_dec", "decoder.weight", "..\\x", "a" * 300,
)  # fmt: skip
"""Texts that somebody may take for something else."""
RAW = (
    "null", "true", "false", "0", "-0", "-1", "1", "2", "0.5", "1e999", "-1e999", "1e308", "NaN",
    "Infinity", "9223372036854775807", "9223372036854775808", "1" + "0" * 400, "1" + "0" * 5000,
    "2147483648", "4294967296", "1e16", "[]", "{}", '""', "[null]", "[[]]", '{"":{}}', '[0,0,0,0]',
    "[" * 3000 + "]" * 3000, "[" * 100_000, '{"a":' * 2000 + "1" + "}" * 2000, "[0" + ",0" * 20_000
    + "]", '"\\ud800"', '"\\u0000"', "'x'", "", "0x10", "1_000", "-", '"',
)  # fmt: skip
"""JSON, and what is nearly JSON, to stand in a value's place."""
MEGABYTE = 1 << 20
BIG = "[" + "[]," * 4_500_000 + "0]"
"""13 MB that may become a gigabyte."""


def chance(rng: random.Random, share: float) -> bool:
    """True for this share of the calls."""
    return rng.random() < share


def mutate_bytes(
    rng: random.Random, data: bytes, others: Sequence[bytes] = (), *, most: int = 4
) -> bytes:
    """Change one to `most` places: bits, bytes, numbers, lengths, pieces of this or other data."""
    out = bytearray(data)
    for _ in range(rng.randint(1, most)):
        _change(rng, out, others or (data,))
    return bytes(out)


def _change(rng: random.Random, out: bytearray, others: Sequence[bytes]) -> None:
    place = rng.randrange(len(out) + 1)
    kind = rng.randrange(9)
    if kind == 0 and out:
        out[place - 1] ^= 1 << rng.randrange(8)
    elif kind == 1 and out:
        out[place - 1] = rng.choice((0, 1, 9, 10, 32, 47, 92, 127, 128, 255, rng.randrange(256)))
    elif kind == 2:
        width = rng.choice((2, 4, 8))
        number = rng.choice(SIZES) & ((1 << 8 * width) - 1)
        out[place : place + width] = number.to_bytes(width, rng.choice(("little", "big")))
    elif kind == 3:
        del out[place:]
    elif kind == 4:
        del out[place : place + rng.choice((1, 2, 4, 16, 256))]
    elif kind == 5:
        end = place + rng.choice((1, 4, 16, 64, 1024))
        out[place:place] = bytes(out[place:end]) * rng.choice((1, 2, 50))
    elif kind == 6:
        other = rng.choice(others)
        start = rng.randrange(len(other) + 1)
        out[place:place] = other[start : start + rng.choice((1, 8, 64, 1024))]
    elif kind == 7:
        out[place:place] = rng.randbytes(rng.choice((1, 3, 8)))
    else:
        out[place:place] = rng.choice(TEXTS).encode("utf-8", "surrogatepass")


def nearby(rng: random.Random, number: int) -> int:
    """A number like a given one: itself, one beside it, a multiple, or one of `SIZES`."""
    return rng.choice(
        (number, number + 1, max(number - 1, 0), number * 2, -number, number << 32,
         rng.choice(SIZES), -rng.choice(SIZES))
    )  # fmt: skip


def mutate_json(rng: random.Random, value: Any, *, most: int = 3) -> str:
    """The JSON text of a value in which one to `most` things are changed.

    Values and keys are replaced, taken away, doubled or wrapped; what stands in their place need
    not be JSON. In one text of eight, characters are changed instead.
    """
    if chance(rng, 0.125):
        data = mutate_bytes(rng, dumped(value).encode("utf-8", "surrogatepass"))
        return data.decode("utf-8", "replace")
    raw: dict[str, str] = {}
    for _ in range(rng.randint(1, most)):
        value = _changed(rng, value, raw)
    text = dumped(value)
    for mark, replacement in raw.items():
        once = len(replacement) > MEGABYTE  # a list of a hundred would be the fuzzer's own flood
        text = text.replace(f'"{mark}"', replacement, 1 if once else -1)
    return text


def dumped(value: Any) -> str:
    """JSON as saeaudit writes it, whatever the value."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _changed(rng: random.Random, value: Any, raw: dict[str, str]) -> Any:
    paths = list(_paths(value))
    return _replaced(rng, value, rng.choice(paths), raw)


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _paths(inner, (*path, key))
    elif isinstance(value, list):
        for n, inner in enumerate(value[:50]):
            yield from _paths(inner, (*path, n))


def _replaced(rng: random.Random, value: Any, path: tuple[Any, ...], raw: dict[str, str]) -> Any:
    if not path:
        return _odd(rng, value, raw)
    first, *rest = path
    if not rest and chance(rng, 0.3):
        return _restructured(rng, value, first)
    if isinstance(value, dict):
        return value | {first: _replaced(rng, value[first], tuple(rest), raw)}
    return [
        _replaced(rng, inner, tuple(rest), raw) if n == first else inner
        for n, inner in enumerate(value)
    ]


def _restructured(rng: random.Random, value: Any, member: Any) -> Any:
    """A dictionary or list without one member, with it twice, or under another name."""
    if isinstance(value, list):
        where = rng.choice((value[:member], value[: member + 1]))
        return [*where, *value[member + 1 :]] if chance(rng, 0.5) else [*value, value[member]]
    rest = {key: inner for key, inner in value.items() if key != member}
    if chance(rng, 0.5):
        return rest
    other = rng.choice((*value, *TEXTS))
    return rest | {other: value[member]}


def _odd(rng: random.Random, value: Any, raw: dict[str, str]) -> Any:
    kind = rng.randrange(5)
    if kind == 0:
        return rng.choice(TEXTS)
    if kind == 1 and isinstance(value, int):
        return nearby(rng, value)
    if kind == 2:
        return [value] * rng.choice((1, 2, 100))
    if kind == 3:
        return {rng.choice(TEXTS): value}
    mark = f"@raw {len(raw)}@"
    raw[mark] = BIG if chance(rng, 0.003) else rng.choice(RAW)
    return mark


def mutate_lines(rng: random.Random, rows: Sequence[Any], *, changed: int = 2) -> bytes:
    """JSON Lines of rows of which some are changed, left out, doubled or moved."""
    texts = [dumped(row) for row in rows]
    for _ in range(rng.randint(0, changed)):
        n = rng.randrange(len(rows))
        texts[n] = mutate_json(rng, rows[n])
    if chance(rng, 0.3):
        del texts[rng.randrange(len(texts))]
    if chance(rng, 0.2) and texts:
        texts.insert(rng.randrange(len(texts)), rng.choice(texts))
    if chance(rng, 0.1):
        rng.shuffle(texts)
    end = rng.choice(("\n", "\n", "\n", "\n\n", "\r\n", "\u2028", ""))
    data = "".join(text + end for text in texts).encode("utf-8", "surrogatepass")
    return mutate_bytes(rng, data) if chance(rng, 0.1) else data


def packed(number: int, width: int) -> bytes:
    """A number as `width` little-endian bytes, whatever does not fit cut off."""
    return struct.pack("<Q", number & ((1 << 64) - 1))[:width]
