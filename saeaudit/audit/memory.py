"""Dictionaries of what is in memory: tensors, arrays, modules of a training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import torch
from torch import Tensor, nn

from saeaudit.dictionary import VECTORS, Architecture, Dictionary, Weights, as_rows, in_memory
from saeaudit.errors import TargetError, WeightsError
from saeaudit.weights import saelens
from saeaudit.weights.assumptions import assume, assumed_note, parse_assumptions
from saeaudit.weights.dtypes import DTYPES
from saeaudit.weights.plain import Plain
from saeaudit.weights.stored import Contents, FileState, Stored

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

GATES = ("b_gate", "b_mag", "r_mag")
"""What only gated encoders have."""


def from_tensors(
    W_dec: Tensor | ArrayLike,
    W_enc: Tensor | ArrayLike | None = None,
    *,
    name: str = "tensors",
    centred: bool | None = None,
    architecture: Architecture | None = None,
    **more: Any,
) -> Dictionary:
    """A dictionary of an SAE's tensors (`saeaudit.from_tensors`).

    They are detached and otherwise used as they are: what is done to them in place later, shows.

    >>> import torch, saeaudit
    >>> saeaudit.from_tensors(torch.eye(3), torch.eye(3), b_enc=torch.zeros(3), name="step 100")
    <Dictionary step 100: 3 features x 3, standard, float32>

    Args:
        W_dec: ``[F, d]`` of floats, one feature a row; nn.Linear's ``decoder.weight`` is its
            transpose.
        W_enc: ``[d, F]``, one feature a column; None for the decoder alone.
        name: its id in records and errors.
        centred: whether the encoder sees the activation less ``b_dec``; uncentred where None, and
            where there are activations both ways are tried and the errors said.
        architecture: the encoder's formula; by the other fields where None: gated with a
            ``b_gate``, TopK with a ``k``, JumpReLU with a ``threshold``, else ReLU.
        **more: further fields of `Weights`: ``b_enc``, ``threshold``, ``b_gate``, ``b_mag`` and
            ``r_mag`` of ``[F]``, ``b_dec`` of ``[d]``, the number ``k``.

    Raises:
        WeightsError: no matrices of floats, or shapes that do not go together.
        TypeError: no such field of `Weights`.
    """
    fields: dict[str, Any] = {
        field: _tensor(value, field, name) if field in VECTORS and value is not None else value
        for field, value in more.items()
    }
    if W_enc is None:
        return Dictionary.from_rows(W_dec, name, **fields)
    encoder = _tensor(W_enc, "W_enc", name)
    formula = architecture or _formula(fields)
    if formula not in get_args(Architecture):
        known = ", ".join(get_args(Architecture))
        raise WeightsError(f"no such architecture: {formula!r}", where=name, hint=f"known: {known}")
    if centred and fields.get("b_dec") is None:
        raise WeightsError("centred, but there is no b_dec", where=name)
    rows = as_rows(W_dec, name)
    _check_encoder(encoder, rows, name)
    threshold = fields.get("threshold")
    if threshold is not None and threshold.ndim == 0:  # shared by all features
        fields["threshold"] = threshold.expand(len(rows))
    notes = () if architecture else (assumed_note(formula, centred=bool(centred)),)
    weights = Weights(
        "tensors", rows, encoder=lambda: encoder, architecture=formula, notes=notes,
        subtract_b_dec=bool(centred), unstated=("centring",) if centred is None else (), **fields,
    )  # fmt: skip
    return in_memory(name, weights)


def _check_encoder(encoder: Tensor, rows: Tensor, name: str) -> None:
    """Refuse an encoder that is no matrix of floats, or not one column a feature."""
    if not encoder.is_floating_point():
        raise WeightsError(f"W_enc is {encoder.dtype}; floats were expected", where=name)
    features = len(rows)
    if encoder.ndim != 2 or encoder.shape[1] != features:
        transposed = encoder.ndim == 2 and encoder.shape[0] == features
        raise WeightsError(
            f"W_enc has shape {list(encoder.shape)} where [d, {features}] belongs to a W_dec of "
            f"shape {list(rows.shape)}",
            where=name,
            hint="W_enc.T has" if transposed else "one feature a column",
        )


def from_saelens(sae: Any, *, name: str = "sae") -> Dictionary:
    """A dictionary of an SAE of SAELens, in training or for inference (`saeaudit.from_saelens`).

    It is read as the files that the library would save are; the library is not imported.

    Args:
        sae: has ``cfg.to_dict()`` and ``state_dict()``, as SAELens's ``SAE`` and ``TrainingSAE``.
        name: its id in records and errors.

    Raises:
        WeightsError: it has not, or its tensors contradict its configuration.
    """
    if not _is_saelens(sae):
        raise WeightsError(
            f"an object of type {type(sae).__name__} without cfg.to_dict() and state_dict()",
            where=name,
            hint="saeaudit.from_tensors takes any SAE's tensors",
        )
    state = dict(sae.state_dict())
    process = getattr(sae, "process_state_dict_for_saving", None)
    if process is not None:  # thresholds are trained as logarithms, for one
        process(state)
    weights = saelens.build(dict(sae.cfg.to_dict()), {}, _stored(state, name), Path(name))
    return in_memory(name, weights)


def open_in_memory(
    target: object, *, name: str = "memory", assumptions: str | None = None
) -> Dictionary:
    """Open what is no path (`saeaudit.open`).

    Args:
        target: a decoder ``[F, d]`` as a tensor or array; an SAE of SAELens; another module, or a
            state dictionary, whose tensors have names that plain files may have.
        name: its id in records and errors.
        assumptions: what a module's tensors leave open, as `--assume` takes it.

    Raises:
        TargetError: it is something else.
        WeightsError: no obvious decoder, or shapes that do not go together.
    """
    dictionary = _opened(target, name)
    if assumptions is None:
        return dictionary
    return in_memory(name, assume(dictionary.weights, parse_assumptions(assumptions), name))


def _opened(target: object, name: str) -> Dictionary:
    """Open a tensor, a module or a state dictionary as it is."""
    if _is_saelens(target):
        return from_saelens(target, name=name)
    if isinstance(target, nn.Module):
        state: dict[str, Any] = dict(target.state_dict())
        k = getattr(target, "k", None)
        if isinstance(k, int) and not isinstance(k, bool):
            state.setdefault("k", torch.tensor(k))
        return _of_state(state, name)
    if isinstance(target, Mapping):
        return _of_state(target, name)
    if isinstance(target, list) or hasattr(target, "__array__"):
        return Dictionary.from_rows(target, name)
    raise TargetError(
        f"an object of type {type(target).__name__} cannot be opened",
        hint="a path or another target, a tensor [F, d], a module or its state_dict()",
    )


def _of_state(state: Mapping[str, Any], name: str) -> Dictionary:
    """Read a state dictionary as a plain file of the same tensors is read."""
    contents = Contents(_stored(state, name), {}, FileState(0, 0, 0))
    weights = Plain().read(Path(name), contents).weights
    if weights.layers is not None:
        raise WeightsError("its decoder is of several layers", where=name, hint="open one of them")
    return in_memory(name, weights)


def _is_saelens(sae: object) -> bool:
    """Whether it has what an SAE of SAELens has."""
    config = getattr(sae, "cfg", None)
    return callable(getattr(config, "to_dict", None)) and callable(getattr(sae, "state_dict", None))


def _stored(state: Mapping[str, Any], name: str) -> dict[str, Stored]:
    """Tensors and arrays as a file's reader has them; what else is in the state says nothing."""
    return {
        key: _as_stored(_tensor(value, key, name))
        for key, value in state.items()
        if hasattr(value, "__array__")
    }


def _as_stored(tensor: Tensor) -> Stored:
    dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
    return Stored(tuple(tensor.shape), dtype, lambda: tensor)


def _tensor(value: Any, field: str, name: str) -> Tensor:
    """Raises WeightsError where it is no dense tensor, and cannot be made one."""
    try:
        return torch.as_tensor(value).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"{field} is no tensor: {error}", where=name) from error


def _formula(values: Mapping[str, Any]) -> Architecture:
    """The encoder that has such fields."""
    if any(values.get(gate) is not None for gate in GATES):
        return "gated"
    if values.get("k") is not None:
        return "topk"
    return "jumprelu" if values.get("threshold") is not None else "standard"
