"""Dictionaries of what is in memory: tensors, arrays, modules of a training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saeaudit.dictionary import Architecture, Dictionary, in_memory
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
    values: dict[str, Any] = {
        field: value if isinstance(value, (bool, int, float, str)) or value is None
        else _tensor(value, field, name)
        for field, value in more.items()
    }  # fmt: skip
    encoder = None if W_enc is None else _tensor(W_enc, "W_enc", name)
    if encoder is None:
        return Dictionary.from_rows(W_dec, name, **values)
    formula = architecture or _formula(values)
    note = assumed_note(formula, centred=bool(centred)) if architecture is None else ""
    dictionary = Dictionary.from_rows(
        W_dec, name, encoder=lambda: encoder, architecture=formula, subtract_b_dec=bool(centred),
        notes=(note,) if note else (), unstated=("centring",) if centred is None else (), **values,
    )  # fmt: skip
    if encoder.ndim != 2 or encoder.shape[1] != dictionary.d_sae:
        transposed = encoder.ndim == 2 and encoder.shape[0] == dictionary.d_sae
        raise WeightsError(
            f"W_enc has shape {list(encoder.shape)} where [d, {dictionary.d_sae}] belongs to a "
            f"W_dec of shape [{dictionary.d_sae}, {dictionary.d_in}]",
            where=name,
            hint="W_enc.T has" if transposed else "one feature a column",
        )
    return dictionary


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
            f"a {type(sae).__name__} without cfg.to_dict() and state_dict()",
            where=name,
            hint="saeaudit.from_tensors takes any SAE's tensors",
        )
    state = dict(sae.state_dict())
    process = getattr(sae, "process_state_dict_for_saving", None)
    if process is not None:  # thresholds are trained as logarithms, for one
        process(state)
    weights = saelens.build(dict(sae.cfg.to_dict()), {}, _stored(state), Path(name))
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
    if _is_saelens(target) and assumptions is None:
        return from_saelens(target, name=name)
    if isinstance(target, nn.Module):
        state: dict[str, Any] = dict(target.state_dict())
        k = getattr(target, "k", None)
        if isinstance(k, int) and not isinstance(k, bool):
            state.setdefault("k", torch.tensor(k))
        return _of_state(state, name, assumptions)
    if isinstance(target, Mapping):
        return _of_state(target, name, assumptions)
    if isinstance(target, list) or hasattr(target, "__array__"):
        return Dictionary.from_rows(target, name)
    raise TargetError(
        f"a {type(target).__name__} cannot be opened",
        hint="a path or another target, a tensor [F, d], a module or its state_dict()",
    )


def _of_state(state: Mapping[str, Any], name: str, assumptions: str | None) -> Dictionary:
    """Read a state dictionary as a plain file of the same tensors is read."""
    contents = Contents(_stored(state), {}, FileState(0, 0, 0))
    weights = Plain().read(Path(name), contents).weights
    if weights.layers is not None:
        raise WeightsError("its decoder is of several layers", where=name, hint="open one of them")
    if assumptions is not None:
        weights = assume(weights, parse_assumptions(assumptions), name)
    return in_memory(name, weights)


def _is_saelens(sae: object) -> bool:
    """Whether it has what an SAE of SAELens has."""
    config = getattr(sae, "cfg", None)
    return callable(getattr(config, "to_dict", None)) and callable(getattr(sae, "state_dict", None))


def _stored(state: Mapping[str, Any]) -> dict[str, Stored]:
    """Tensors as a file's reader has them; what else is in the state says nothing."""
    return {
        name: _as_stored(value.detach().cpu())
        for name, value in state.items()
        if isinstance(value, Tensor)
    }


def _as_stored(tensor: Tensor) -> Stored:
    dtype = DTYPES[str(tensor.dtype).removeprefix("torch.")]
    return Stored(tuple(tensor.shape), dtype, lambda: tensor)


def _tensor(value: Any, field: str, name: str) -> Tensor:
    """Raises WeightsError where it is no tensor, and cannot be made one."""
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
