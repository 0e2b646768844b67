"""Pickles as PyTorch writes them, built and changed operation by operation."""

from __future__ import annotations

import contextlib
import itertools
import pickletools
import random
import struct
from collections.abc import Sequence
from typing import Any, NamedTuple

from tests.fuzz.mutate import SIZES, TEXTS, chance, nearby

PROTOCOL = b"\x80\x02"
GLOBALS = (
    "collections OrderedDict", "collections Counter", "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_tensor_v3", "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_parameter", "torch._utils _rebuild_parameter_with_state",
    "torch._utils _rebuild_qtensor", "torch._utils _rebuild_sparse_tensor",
    "torch._utils _rebuild_meta_tensor_no_storage", "torch._utils _rebuild_nested_tensor",
    "torch._utils _rebuild_wrapper_subclass",
    "torch._utils _rebuild_device_tensor_from_numpy",
    "torch._utils _rebuild_device_tensor_from_cpu_tensor", "torch.serialization _get_layout",
    "torch Size", "torch Tensor", "torch device", "torch FloatStorage", "torch HalfStorage",
    "torch BFloat16Storage", "torch LongStorage", "torch QInt8Storage", "torch float32",
    "torch.nn.parameter Parameter", "torch per_tensor_affine", "torch.storage UntypedStorage",
    "_codecs encode", "builtins bytearray", "builtins set", "builtins complex", "torch int8",
    "os system", "numpy._core.multiarray _reconstruct", "torch FloatTensor", "torch Generator",
)  # fmt: skip
"""Names that a pickle may ask for: those that PyTorch allows, and some that it must refuse."""
SHORT = (b"h\x00", b"h\x01", b"q\x00", b"0", b"R", b"b", b"Q", b"N", b"s", b"u", b"(", b"t")
"""Operations on the stack and the memo, with their arguments."""


class Call(NamedTuple):
    """A global called with arguments."""

    name: str
    arguments: tuple[Any, ...]


class Stored(NamedTuple):
    """A storage of the file, by its key."""

    kind: str
    key: str
    count: int
    device: str = "cpu"


class Shared(NamedTuple):
    """The value that `Keep` put into the memo under a number."""

    number: int


class Keep(NamedTuple):
    """A value that goes into the memo under a number, for `Shared`."""

    number: int
    value: Any


class Nested(NamedTuple):
    """A value in a dictionary in a dictionary ..., so many levels deep."""

    levels: int
    value: Any


def dump(value: Any) -> bytes:
    """A pickle of protocol 2 of plain values and of the classes above."""
    return PROTOCOL + _ops(value) + b"."


def _ops(value: Any) -> bytes:
    if isinstance(value, Call):
        return _global(value.name) + _ops(value.arguments) + b"R"
    if isinstance(value, Stored):
        kind = _global(f"torch {value.kind}")
        parts = [_text("storage"), kind, _text(value.key), _text(value.device), _int(value.count)]
        return b"(" + b"".join(parts) + b"tQ"
    if isinstance(value, Shared):
        return b"j" + struct.pack("<I", value.number)
    if isinstance(value, Nested):
        return (b"}(" + _text("a")) * value.levels + _ops(value.value) + b"u" * value.levels
    if isinstance(value, Keep):
        return _ops(value.value) + b"r" + struct.pack("<I", value.number)
    if isinstance(value, dict):
        return b"}(" + b"".join(_ops(k) + _ops(v) for k, v in value.items()) + b"u"
    if isinstance(value, (list, tuple)):
        inner = b"".join(map(_ops, value))
        return b"](" + inner + b"e" if isinstance(value, list) else b"(" + inner + b"t"
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, int):
        return _int(value)
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    return b"N" if value is None else _text(str(value))


def _global(name: str) -> bytes:
    module, _, attribute = name.partition(" ")
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _int(number: int) -> bytes:
    if -(1 << 31) <= number < 1 << 31:
        return b"J" + struct.pack("<i", number)
    data = number.to_bytes(number.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([min(len(data), 255)]) + data[:255]


def tensor(
    key: str, shape: Sequence[int], *, kind: str = "FloatStorage", count: int | None = None,
    offset: int = 0, strides: Sequence[int] | None = None,
) -> Call:  # fmt: skip
    """A tensor over a storage of the file, as torch.save writes it."""
    steps, size = [], 1
    for length in reversed(shape):
        steps.insert(0, size)
        size *= length
    storage = Stored(kind, key, size if count is None else count)
    chosen = tuple(steps if strides is None else strides)
    hooks = Call("collections OrderedDict", ())
    return Call(
        "torch._utils _rebuild_tensor_v2", (storage, offset, tuple(shape), chosen, False, hooks)
    )


def random_state(rng: random.Random, depth: int = 0) -> Any:
    """A state dictionary, or what somebody may have put in its place."""
    kind = rng.randrange(12 if depth < 4 else 6)
    if kind < 4:
        return _random_tensor(rng)
    if kind == 4:
        return rng.choice((None, True, 3, 2.5, "text", -1, *TEXTS, *SIZES))
    if kind == 5:
        return Shared(rng.randrange(6))
    names = ("W_dec", "W_enc", "b_dec", "b_enc", "k", "decoder.weight", "threshold", "", 7, None)
    inner = [random_state(rng, depth + 1) for _ in range(rng.randint(0, 5))]
    if kind < 9:
        made: Any = {rng.choice((*names, *TEXTS)): value for value in inner}
    elif kind == 9:
        made = rng.choice((inner, tuple(inner)))
    else:
        made = Call(rng.choice(GLOBALS), tuple(inner))
    return Keep(rng.randrange(6), made) if chance(rng, 0.3) else made


def bomb(rng: random.Random) -> Any:
    """A small pickle that stands for something large: shared, deep, expanded, claimed."""
    kind = rng.randrange(5)
    state: Any = tensor("0", (12, 5))
    if kind == 0:  # each level holds the one below twice
        for level in range(rng.choice((10, 25, 60))):
            state = {"a": Keep(level, state), "b": Shared(level)}
    elif kind == 1:
        state = Nested(rng.choice((50, 900, 20_000)), state)
    elif kind == 2:
        shape = rng.choice(((1 << 40, 5), (1 << 20, 1 << 20), (1 << 62, 4), (12, 1 << 33)))
        state = {"W_dec": tensor("0", shape, count=60, strides=(0, 0))}
    elif kind == 3:
        inner = [{f"{n}.{m}": tensor("0", (12, 5)) for m in range(100)} for n in range(100)]
        state = {str(n): one for n, one in enumerate(inner)}
    else:
        state = {"W_dec": state, "x": Call("builtins bytearray", (rng.choice((1 << 31, 1 << 36)),))}
    return state


def _random_tensor(rng: random.Random) -> Call:
    shape = [rng.choice((0, 1, 5, 12, 12, 5, 3)) for _ in range(rng.choice((0, 1, 2, 2, 2, 3)))]
    if chance(rng, 0.2) and shape:
        shape[0] = nearby(rng, shape[0])
    strides = None
    if chance(rng, 0.3):
        strides = [rng.choice((0, 1, 5, -1, *SIZES)) for _ in range(rng.choice((len(shape), 2)))]
    kind = rng.choice(("FloatStorage", "HalfStorage", "BFloat16Storage", "DoubleStorage",
                       "LongStorage", "BoolStorage", "QInt8Storage", "ComplexFloatStorage",
                       "UntypedStorage"))  # fmt: skip
    count = nearby(rng, 60) if chance(rng, 0.2) else 60
    offset = nearby(rng, 0) if chance(rng, 0.1) else 0
    key = rng.choice(("0", "0", "1", "2", "9", "../0"))
    return tensor(key, shape, kind=kind, count=count, offset=offset, strides=strides)


def mutate_pickle(rng: random.Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """Change one to four operations: take away, double, exchange, or replace by another's."""
    ops = operations(data)
    foreign = operations(rng.choice(others)) if others else ops
    for _ in range(rng.randint(1, 4)):
        n = rng.randrange(len(ops))
        kind = rng.randrange(6)
        if kind == 0:
            del ops[n]
        elif kind == 1:
            ops.insert(n, ops[n])
        elif kind == 2:
            other = rng.randrange(len(ops))
            ops[n], ops[other] = ops[other], ops[n]
        elif kind == 3:
            ops.insert(n, rng.choice(foreign))
        elif kind == 4:
            made = _int(rng.choice(SIZES)), _global(rng.choice(GLOBALS))
            ops.insert(n, rng.choice((*SHORT, *made)))
        else:
            ops[n] = rng.choice((_int(nearby(rng, 60)), _text(rng.choice(TEXTS)), b"}", b"]", b")"))
        if not ops:
            return b"."
    return b"".join(ops)


def operations(data: bytes) -> list[bytes]:
    """A pickle's operations with their arguments."""
    places: list[int] = []
    with contextlib.suppress(ValueError, UnicodeError):  # what was changed already may be damaged
        places += [place or 0 for _, _, place in pickletools.genops(data)]
    return [data[a:b] for a, b in itertools.pairwise([*places, len(data)])] or [data]
