"""Tensors in .npy, .npz, .safetensors and .pt files: mapped where possible, never executed.

Headers are parsed and sizes checked against the file before anything is allocated; Python objects
are refused. Whatever the libraries below raise on a damaged file leaves this module as a
`WeightsError`.
"""

from __future__ import annotations

import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from saeaudit.errors import AuditError, WeightsError
from saeaudit.untrusted import parse_json, read_text
from saeaudit.weights.dtypes import FLOATS
from saeaudit.weights.limits import LIMITS, Limits
from saeaudit.weights.numpy_files import read_npy, read_npz
from saeaudit.weights.safetensors_files import read_safetensors
from saeaudit.weights.stored import Contents, FileState, Read, Stored, Tensors
from saeaudit.weights.torch_files import read_torch

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["FLOATS", "READERS", "Contents", "Stored", "Tensors", "read_json", "read_tensors"]

READERS: dict[str, Callable[[Path, Limits], Read]] = {
    ".npz": read_npz,
    ".npy": read_npy,
    ".safetensors": read_safetensors,
    ".pt": read_torch,
    ".pth": read_torch,
    ".bin": read_torch,
    ".ckpt": read_torch,
}
"""What reads a file, by the end of its name."""
KINDS = {
    stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device", stat.S_IFBLK: "a device",
}  # fmt: skip


def read_tensors(path: Path, limits: Limits = LIMITS) -> Contents:
    """List the tensors of a weight file, and its other scalars (`k`, config entries).

    Args:
        path: a weight file.
        limits: what reading it may take.

    Raises:
        WeightsError: not such a file, unreadable, damaged, claiming more than `limits` allow, or
            holding Python objects. The `load` of each tensor raises it as well.
    """
    with _boundary(path):
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for a writer
            kind = KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise WeightsError(f"{kind}, not a file", where=str(path))
        if status.st_size == 0:
            raise WeightsError("the file is empty", where=str(path))
        reader = READERS.get(path.suffix.lower())
        if reader is None:
            raise WeightsError(
                f"unknown kind of weight file {path.suffix or '(no extension)'!r}",
                where=str(path),
                hint="known: .npz, .npy, .safetensors, .pt, .pth",
            )
        tensors, scalars = reader(path, limits)
    guarded = {name: _guarded(path, stored) for name, stored in tensors.items()}
    return Contents(guarded, scalars, FileState.of(status))


def _guarded(path: Path, stored: Stored) -> Stored:
    def load() -> Tensor:
        with _boundary(path):
            return stored.load()

    return replace(stored, load=load)


@contextmanager
def _boundary(path: Path) -> Iterator[None]:
    """Turn what numpy, zipfile, pickletools and torch raise into an error of the file.

    They do not say what they raise on a damaged file, and each version differs.
    """
    try:
        yield
    except AuditError:
        raise
    except OSError as error:
        raise WeightsError(f"cannot be read: {error.strerror or error}", where=str(path)) from error
    except MemoryError as error:
        raise WeightsError("does not fit into memory", where=str(path)) from error
    except Exception as error:
        raise WeightsError(
            f"damaged or truncated {path.suffix} file", where=str(path), hint="fetch it again"
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """Parse a small JSON configuration file.

    Raises:
        AuditError: unreadable, no JSON, or no object.
    """
    value = parse_json(read_text(path), str(path))
    if not isinstance(value, dict):
        raise AuditError("bad JSON: an object was expected", where=str(path))
    return value
