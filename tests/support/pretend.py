"""A CUDA device pretended on the CPU, strict about what is where.

Tensors carry the device that they claim to be on. Mixing devices in one operation, taking a
"CUDA" tensor for a NumPy array, or handing `torch._int_mm` a shape that cuBLASLt refuses raises, as
it would on hardware; what is computed is computed on the CPU. Triton kernels are interpreted. It
shows that the code for CUDA runs and what it answers, not that a GPU computes the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_flatten, tree_map_only

CPU = torch.device("cpu")
CUDA = torch.device("cuda:0")


def place(tensor: torch.Tensor) -> torch.device:
    return getattr(tensor, "pretended", CPU)


def put(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    tensor.pretended = device  # type: ignore[attr-defined]
    return tensor


FREE = {
    "__get__", "__len__", "numel", "dim", "size", "stride", "is_contiguous", "is_floating_point",
    "view", "reshape", "expand", "unbind", "squeeze", "detach", "contiguous", "t", "empty",
    "empty_like", "item", "tolist", "__float__", "__int__", "__bool__", "__index__",
}  # fmt: skip
"""Operations that launch no kernel on a device: views, sizes, allocations and copies to the CPU."""


class PretendCuda(TorchFunctionMode):
    """Refuses what a CUDA build would refuse; counts the operations it saw there."""

    operations = 0
    kernels = 0
    """Those that launch a kernel; one that is made of several counts once."""
    launches = 0
    """Triton kernels launched."""
    made: ClassVar[list[torch.dtype | None]] = []
    """dtypes asked for, of the empty tensors made there: rows are packed into int8."""

    def __init__(self, failures: list[Exception]) -> None:
        super().__init__()
        self._failures = failures

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = getattr(func, "__name__", "")
        attribute = getattr(func, "__self__", None)
        if attribute is torch.Tensor.device:
            return place(args[0])
        if attribute is torch.Tensor.is_cuda:
            return place(args[0]).type == "cuda"
        kwargs.pop("pin_memory", None)
        if name in ("to", "cpu", "cuda") and isinstance(args[0], torch.Tensor):
            return self._moved(name, args, kwargs)
        asked = kwargs.pop("device", None)
        if name == "empty" and asked == CUDA:
            PretendCuda.made.append(kwargs.get("dtype"))
            if self._failures and kwargs.get("dtype") == torch.int8:
                raise self._failures.pop(0)
        found = [t for t in tree_flatten((args, kwargs))[0] if isinstance(t, torch.Tensor)]
        home = self._home(func, name, found)
        if home is CUDA:
            PretendCuda.operations += 1
            slices = name == "__getitem__" and len(found) == 1
            PretendCuda.kernels += name not in FREE and not slices
        if name == "_int_mm" and home is CUDA:
            (m, k), n = args[0].shape, args[1].shape[1]
            if m <= 16 or k % 8 or n % 8:
                raise RuntimeError(f"cuBLASLt has no int8 product of {m} x {k} x {n}")
        result = func(*args, **kwargs)
        if found and any(result is t for t in found):  # in place
            return result
        device = torch.device(asked) if asked is not None else home
        return tree_map_only(torch.Tensor, lambda t: put(t, CUDA if device != CPU else CPU), result)

    def _moved(self, name: str, args: Any, kwargs: Any) -> Any:
        kwargs.pop("non_blocking", None)
        target = {"cpu": CPU, "cuda": CUDA}.get(name, kwargs.pop("device", None))
        rest = []
        for argument in args[1:]:
            if isinstance(argument, torch.device) or argument in ("cpu", "cuda", "cuda:0"):
                target = torch.device(argument)
            else:
                rest.append(argument)
        home = place(args[0])
        target = home if target is None else (CUDA if target != CPU else CPU)
        result = args[0].to(*rest, **kwargs) if rest or kwargs else args[0]
        return put(result.clone() if target != home else result, target)

    @staticmethod
    def _home(func: Any, name: str, tensors: list[torch.Tensor]) -> torch.device:
        places = {place(t) for t in tensors if t.dim()} or {place(t) for t in tensors} or {CPU}
        if name == "copy_":
            return place(tensors[0])
        if len(places) > 1:
            raise RuntimeError(f"{name}: expected all tensors to be on the same device: {places}")
        (home,) = places
        if home == CUDA and name == "numpy":
            raise TypeError("can't convert cuda:0 device type tensor to numpy")
        return CUDA if home == CUDA else CPU


class _Event:
    def __init__(self, **_: Any) -> None: ...

    def record(self, *_: Any) -> None: ...

    def synchronize(self) -> None: ...


@contextmanager
def pretend_cuda(
    patch: pytest.MonkeyPatch, *, memory: int = 8 << 30, failures: list[Exception] | None = None
) -> Iterator[None]:
    """Pretend a CUDA device.

    Args:
        patch: what undoes it.
        memory: bytes free.
        failures: what rows are met with, one each time that they are packed, until there are none.
    """
    from saeaudit.core.cosines import kernels

    launch = kernels._launch

    def real(*arguments: Any) -> int:
        PretendCuda.launches += 1
        with torch._C.DisableTorchFunction():
            return launch(*arguments)

    patch.setattr(kernels, "_launch", real)
    patch.setattr(torch.cuda, "Event", _Event)
    patch.setattr(torch.cuda, "current_stream", lambda *_: None)
    patch.setattr(torch.cuda, "mem_get_info", lambda *_: (memory, memory))
    PretendCuda.operations = PretendCuda.kernels = PretendCuda.launches = 0
    PretendCuda.made.clear()
    with PretendCuda(failures or []):
        yield
