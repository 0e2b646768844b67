"""Activations, their tokens and other encoders' codes, from files."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saeaudit.errors import AuditError
from saeaudit.sample import SAMPLES, sample_root
from saeaudit.untrusted import parse_json, read_bytes, text_lines
from saeaudit.weights.dtypes import DTYPES
from saeaudit.weights.tensors import FLOATS, Stored, Tensors, read_tensors

TOKENS = 256 << 20
"""Bytes of a file of tokens."""
INTEGERS = tuple(DTYPES[name] for name in ("int64", "int32", "int16", "int8", "uint8"))
MOST_TOKENS = 10_000_000
"""Tokens in a JSON list."""
Rows = Callable[[Tensor], Tensor]
"""Rows of some activations ``[m]`` int64, read when asked for."""
BEGINNINGS = frozenset({
    "[CLS]", "<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>",
    "<\uff5cbegin\u2581of\u2581sentence\uff5c>",
})  # fmt: skip
"""Tokens that begin a document."""
ENDINGS = frozenset({
    "[SEP]", "</s>", "<eos>", "<|endoftext|>", "<|end_of_text|>",
    "<\uff5cend\u2581of\u2581sentence\uff5c>",
})  # fmt: skip
"""Tokens that end one."""


def sample_activations(target: str) -> tuple[Path, Path] | None:
    """The bundled activations and tokens of a bundled SAE, where it has any."""
    if target != next(iter(SAMPLES)):
        return None
    return sample_root() / "activations-test.safetensors", sample_root() / "tokens-test.json"


def read_activations(path: Path, width: int) -> Tensor:
    """Activations ``[N, width]`` of any float dtype, mapped where the file allows.

    Taken is the tensor named ``activations``, else the only matrix of floats.

    Raises:
        AuditError: none or several, another width, or no rows.
    """
    tensors = _tensors(path)
    matrices = {n: t for n, t in tensors.items() if len(t.shape) == 2 and t.dtype in FLOATS}
    name = "activations" if "activations" in matrices else next(iter(matrices), "")
    if not matrices or (name != "activations" and len(matrices) > 1):
        raise AuditError(
            "holds no matrix of activations" if not matrices else "holds several matrices",
            where=str(path),
            hint="one float tensor [N, d], or several of which one is named 'activations'",
        )
    stored = matrices[name]
    if stored.shape[1] != width:
        raise AuditError(
            f"activations of width {stored.shape[1]}; the SAE reads {width}", where=str(path)
        )
    if not stored.shape[0]:
        raise AuditError("holds no activations: 0 rows", where=str(path))
    return stored.load()


def read_tokens(path: Path, count: int) -> list[str]:
    """Token strings, one for each activation: a JSON list, or a line each.

    Lines end at ``\\n`` alone: a token may be a form feed. One that is a line end needs JSON.

    Args:
        path: UTF-8 text.
        count: number of activations in their file.

    Raises:
        AuditError: not such text, or another number of tokens.
    """
    where = str(path)
    data = read_bytes(path, TOKENS)
    if data.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        listed = parse_json(data, where, limit=TOKENS, values=MOST_TOKENS)
        tokens: Iterable[Any] = listed
        total = len(listed)
    else:
        tokens = text_lines(io.BytesIO(data), where)
        total = data.count(b"\n") + (data[-1:] not in (b"", b"\n"))
    if total != count:
        raise AuditError(
            f"{total:,} tokens for {count:,} activations",
            where=where,
            hint="one token for each activation, a line each or a JSON list",
        )
    return [token if isinstance(token, str) else str(token) for token in tokens]


def read_documents(path: Path, count: int, tokens: Sequence[str] | None) -> Tensor | None:
    """Which document each activation is of.

    A file of activations may say so in a tensor ``document`` [N] of whole numbers. Else tokens
    that begin or end texts (`BEGINNINGS`, `ENDINGS`) part them, where there are any.

    Args:
        path: the file of activations.
        count: how many there are.
        tokens: their texts.

    Returns:
        ``[count]`` int64, equal within a document; None where nothing tells.

    Raises:
        AuditError: numbers of another shape, or none that are whole.
    """
    stored = _tensors(path).get("document")
    if stored is not None:
        if tuple(stored.shape) != (count,) or stored.dtype not in INTEGERS:
            raise AuditError(
                f"document is {stored.dtype} of shape {list(stored.shape)}",
                where=str(path),
                hint=f"[{count}] whole numbers, the document of each activation",
            )
        return stored.load().long()
    begins = [token in BEGINNINGS for token in tokens or ()]
    ends = [token in ENDINGS for token in tokens or ()]
    if not any(begins) and not any(ends):
        return None
    after = torch.tensor([False, *ends[:-1]])
    return (torch.tensor(begins) | after).cumsum(0)


def read_codes(path: Path, count: int, features: int) -> Rows:
    """Codes of `count` activations by another encoder, dense or sparse.

    A matrix ``codes`` [N, F] (or the only one), or ``indices`` and ``values`` [N, k], where a
    negative index is an empty place.

    Raises:
        AuditError: another shape. The returned function raises it for codes that are negative or
            not finite.
    """
    tensors = _tensors(path)
    where = str(path)
    if {"indices", "values"} <= tensors.keys():
        read = _sparse(tensors["indices"], tensors["values"], features, where)
        shape: tuple[int, ...] = (tensors["values"].shape[0], features)
    else:
        matrices = {n: t for n, t in tensors.items() if len(t.shape) == 2 and _is_real(t)}
        name = "codes" if "codes" in matrices else next(iter(matrices), "")
        if name not in matrices:
            raise AuditError("holds no matrix of codes", where=where, hint="codes [N, F]")
        dense, shape = matrices[name].load(), tuple(matrices[name].shape)

        def read(tokens: Tensor) -> Tensor:
            return dense[tokens].to(torch.float64)

    if shape != (count, features):
        raise AuditError(
            f"codes of shape {list(shape)} where [{count}, {features}] is needed", where=where
        )

    def checked(tokens: Tensor) -> Tensor:
        return check_codes(read(tokens), where, tokens)

    return checked


def check_codes(codes: Tensor, where: str, tokens: Tensor) -> Tensor:
    """Refuse codes ``[m, F]`` of some tokens ``[m]`` that are not codes.

    Raises:
        AuditError: negative or not finite.
    """
    bad = ~(codes >= 0) | codes.isinf()
    if bool(bad.any()):
        row, feature = bad.nonzero()[0].tolist()
        token, code = int(tokens[row]), float(codes[row, feature])
        raise AuditError(
            f"token {token}, feature {feature}: a code of {code:.4g}",
            where=where,
            hint="codes are finite and not negative",
        )
    return codes


def _sparse(indices: Stored, values: Stored, features: int, where: str) -> Rows:
    if indices.dtype not in INTEGERS or not _is_real(values):
        raise AuditError("indices must be whole numbers, and values real ones", where=where)
    index, value = indices.load(), values.load()
    if index.shape != value.shape or index.dim() != 2:
        raise AuditError("indices and values differ in shape", where=where)
    if index.numel() and int(index.max()) >= features:
        raise AuditError(
            f"names feature {int(index.max())} of {features}", where=where, hint="indices from 0"
        )

    def read(tokens: Tensor) -> Tensor:
        listed, kept = index[tokens].long(), value[tokens].to(torch.float64)
        kept = kept * (listed >= 0)
        return torch.zeros(len(listed), features, dtype=torch.float64).scatter_add_(
            1, listed.clamp(min=0), kept
        )

    return read


def _is_real(stored: Stored) -> bool:
    return stored.dtype in FLOATS or stored.dtype in INTEGERS


def _tensors(path: Path) -> Tensors:
    if not path.exists():
        raise AuditError("no such file", where=str(path))
    return read_tensors(path).tensors
