"""The pickle inside a PyTorch file, read as a description: nothing that it names is called.

``torch.load(weights_only=True)`` runs no code either, but what it does call (`OrderedDict`,
`bytearray`, ``Tensor.set_``) takes memory and time without bound, and before PyTorch 2.6 it did run
code (CVE-2025-32434). Here every instruction does a constant amount of work, or work in proportion
to the stack that earlier instructions have built, and a tensor is a note of where its elements lie.

    run(BytesIO(b"\\x80\\x02}."), "a.pt", Limits()).content    # {}
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import IO, Any, NamedTuple

from saeaudit.errors import WeightsError
from saeaudit.weights.dtypes import ALIASES, DTYPES, Dtype
from saeaudit.weights.limits import Limits

STORAGES = {
    "Double": "float64", "Float": "float32", "Half": "float16", "BFloat16": "bfloat16",
    "Long": "int64", "Int": "int32", "Short": "int16", "Char": "int8", "Byte": "uint8",
    "Bool": "bool", "Untyped": "uint8", "ComplexFloat": "complex64",
    "ComplexDouble": "complex128", "QInt8": "qint8", "QUInt8": "quint8", "QInt32": "qint32",
}  # fmt: skip
"""Element types by the names of storage classes."""


class StorageType(NamedTuple):
    """A storage class."""

    dtype: Dtype


class Storage(NamedTuple):
    """A block of elements that lies elsewhere in the file."""

    key: str
    dtype: Dtype
    first: int
    """Its first element, for views of another storage."""


class Sketch(NamedTuple):
    """A tensor as the pickle describes it; nothing has been checked yet."""

    storage: Storage
    offset: Any
    shape: Any
    stride: Any
    dtype: Dtype


@dataclass
class Described:
    """What a pickle holds."""

    content: Any = None
    """Dictionaries with text as keys, lists, tuples, numbers, text and sketches."""
    storages: dict[str, Storage] = field(default_factory=dict)
    """Every storage that it names, by key."""


def run(stream: IO[bytes], where: str, limits: Limits) -> Described:
    """Read one pickle; the stream then stands behind it.

    Args:
        stream: bounded and in memory: the lengths in a pickle are not to be believed.
        where: the file, for messages.
        limits: how many instructions to follow.

    Raises:
        WeightsError: it names Python objects, or has too many instructions.
        ValueError, IndexError, KeyError, TypeError: it is damaged.
    """
    machine = _Machine(where)
    for step, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        if step > limits.steps:
            raise WeightsError(
                f"more than {limits.steps:,} instructions in its pickle", where=where
            )
        machine.step(opcode.name, argument)
    return Described(machine.stack.pop(), machine.storages)


class _Machine:
    """The pickle machine, for the instructions that torch.save writes."""

    def __init__(self, where: str) -> None:
        self.where = where
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}
        self.storages: dict[str, Storage] = {}

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in LITERALS:
            stack.append(argument)
        elif name in ("BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "MARK":
            self.marks.append(len(stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            stack.append(tuple(self._pop(int(name[-1]))))
        elif name == "TUPLE":
            stack.append(tuple(self._pop_mark()))
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("APPEND", "APPENDS"):
            items = self._pop(1) if name == "APPEND" else self._pop_mark()
            self._top(list).extend(items)
        elif name in ("SETITEM", "SETITEMS"):
            items = self._pop(2) if name == "SETITEM" else self._pop_mark()
            _set_items(self._top(dict), items)
        elif name == "GLOBAL":
            stack.append(self._named(argument))
        elif name in ("REDUCE", "NEWOBJ"):
            made, arguments = self._pop(2)
            stack.append(_call(made, arguments))
        elif name == "BUILD":  # versions of modules, attributes of parameters: not needed
            stack.pop()
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        elif name not in ("PROTO", "STOP"):
            raise WeightsError(f"a pickle that torch.save does not write ({name})",
                               where=self.where)  # fmt: skip

    def _pop(self, count: int) -> list[Any]:
        items = self.stack[-count:]
        if len(items) < count:
            raise IndexError("the stack is empty")
        del self.stack[-count:]
        return items

    def _pop_mark(self) -> list[Any]:
        mark = self.marks.pop()
        items = self.stack[mark:]
        del self.stack[mark:]
        return items

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"a {kind.__name__} was expected")
        return self.stack[-1]

    def _named(self, argument: str) -> Any:
        module, _, name = argument.partition(" ")
        storage = name.removesuffix("Storage")
        if module in ("torch", "torch.cuda", "torch.storage") and storage in STORAGES:
            return StorageType(DTYPES[STORAGES[storage]])
        name_of_type = ALIASES.get(name, name)
        if module == "torch" and name_of_type in DTYPES:
            return DTYPES[name_of_type]
        if argument not in CALLS:
            raise WeightsError(
                f"holds Python objects ({module}.{name}), which could run code; refused",
                where=self.where,
                hint="save tensors only: torch.save(sae.state_dict(), path)",
            )
        return CALLS[argument]

    def _storage(self, identity: Any) -> Storage:
        _, kind, key, _, _, *view = identity
        if type(kind) is not StorageType or type(key) is not str:
            raise TypeError("no storage")
        first = 0
        if view and view[0] is not None:
            _, first, _ = view[0]
            if type(first) is not int or first < 0:
                raise TypeError("no view of a storage")
        storage = Storage(key, kind.dtype, first)
        if self.storages.setdefault(key, storage).dtype != storage.dtype:
            raise TypeError("a storage of two types")
        return storage


def _set_items(target: dict[str, Any], items: list[Any]) -> None:
    """Set entries; keys become text, because other keys can be made to collide, and to recurse."""
    for key, value in zip(items[::2], items[1::2], strict=True):
        if isinstance(key, (str, int, float)):
            target[str(key)] = value


def _call(made: Any, arguments: Any) -> Any:
    if not callable(made) or type(arguments) is not tuple:
        raise TypeError("nothing to call")
    return made(arguments)


def _tensor(arguments: tuple[Any, ...]) -> Sketch:
    storage, offset, shape, stride, *_ = arguments[:4]
    if type(storage) is not Storage:
        raise TypeError("a tensor without a storage")
    return Sketch(storage, offset, shape, stride, storage.dtype)


def _typed_tensor(arguments: tuple[Any, ...]) -> Sketch:
    dtype = arguments[6]
    if not isinstance(dtype, Dtype):
        raise TypeError("no element type")
    return _tensor(arguments)._replace(dtype=dtype)


def _first(arguments: tuple[Any, ...]) -> Any:
    return arguments[0]


def _absent(arguments: tuple[Any, ...]) -> None:
    """Something that torch.save may write and that no decoder is made of."""


def _empty(arguments: tuple[Any, ...]) -> dict[str, Any]:
    return {}


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": (), "EMPTY_SET": None}
"""Instructions that push a value which cannot change."""
LITERALS = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINSTRING",
}  # fmt: skip
"""Instructions that push their argument."""
ABSENT = """
    __builtin__ bytearray, __builtin__ complex, __builtin__ set, _codecs encode, builtins bytearray,
    builtins complex, builtins set, collections Counter, torch Size, torch device,
    torch per_channel_affine, torch per_channel_affine_float_qparams, torch per_channel_symmetric,
    torch per_tensor_affine, torch per_tensor_symmetric, torch.serialization _get_layout,
    torch._utils _rebuild_meta_tensor_no_storage, torch._utils _rebuild_nested_tensor,
    torch._utils _rebuild_qtensor, torch._utils _rebuild_sparse_tensor
"""
"""Names that torch.save may write and that no decoder is made of."""
CALLS: dict[str, Callable[[tuple[Any, ...]], Any]] = {
    **dict.fromkeys((name.strip() for name in ABSENT.split(",")), _absent),
    "collections OrderedDict": _empty,
    "torch._utils _rebuild_tensor": _tensor,
    "torch._utils _rebuild_tensor_v2": _tensor,
    "torch._utils _rebuild_tensor_v3": _typed_tensor,
    "torch._utils _rebuild_parameter": _first,
    "torch._utils _rebuild_parameter_with_state": _first,
}
"""What the names of a pickle stand for; anything else is a Python object."""
