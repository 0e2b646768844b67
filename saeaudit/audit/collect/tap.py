"""The activations at one place of a model's forward pass, which ends there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from saeaudit.audit.collect.places import Place
from saeaudit.errors import AuditError

PROBE = 1e4
"""A vector of this number shows a norm's gain: its root mean square leaves no share to an epsilon
that norms add."""


class _Reached(Exception):
    """The place is reached: nothing behind it needs to be computed."""

    def __init__(self, activations: Any) -> None:
        super().__init__()
        self.activations = activations


def activations_at(decoder: nn.Module, place: Place, input_ids: Tensor, mask: Tensor) -> Tensor:
    """Run a batch as far as the place.

    Args:
        decoder: in evaluation mode.
        place: one of its places.
        input_ids: ``[b, t]`` int64 on the decoder's device, each text from its beginning.
        mask: ``[b, t]`` of ones, and zeros behind the end of a text.

    Returns:
        ``[b, t, d]`` in the decoder's dtype, or float32 where the place asks for arithmetic.

    Raises:
        AuditError: the forward pass does not come by the place, or it has no vector for each token.
    """

    def leave(_: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
        raise _Reached(arguments[0] if arguments else named.get("hidden_states"))

    def arrive(_: nn.Module, arguments: tuple[Any, ...], result: Any) -> None:
        raise _Reached(result[0] if isinstance(result, tuple) else result)

    module = decoder.get_submodule(place.module)
    if place.side == "in":
        handle = module.register_forward_pre_hook(leave, with_kwargs=True)
    else:
        handle = module.register_forward_hook(arrive)
    try:
        with torch.no_grad():
            decoder(input_ids=input_ids, attention_mask=mask)
    except _Reached as reached:
        caught = reached.activations
    else:
        raise AuditError("a text does not go through this module", where=str(place))
    finally:
        handle.remove()
    return _finished(caught, place, module, input_ids)


def _finished(x: Any, place: Place, module: nn.Module, input_ids: Tensor) -> Tensor:
    """What was caught, as a vector for each token, and with the arithmetic that the place asks."""
    shape = tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__
    if not isinstance(x, Tensor) or x.ndim != 3 or x.shape[:2] != input_ids.shape:
        raise AuditError(
            f"what is there is no vector for each token: {shape} for tokens "
            f"{tuple(input_ids.shape)}",
            where=str(place),
        )
    caught: Tensor = x.detach()
    if place.divide_gain:
        caught = caught.float() / gain_of(module, caught.shape[-1], caught.device)
    if place.subtract_mean:
        caught = caught.float()
        caught = caught - caught.mean(-1, keepdim=True)
    return caught


def gain_of(norm: nn.Module, width: int, device: torch.device) -> Tensor:
    """The gain ``[width]`` float32 of an RMSNorm, as the norm itself shows it.

    Gemma's norms multiply by one plus their weight, others by their weight.
    """
    with torch.no_grad():
        gain: Tensor = norm(torch.full((1, 1, width), PROBE, device=device))
    return gain.reshape(width).float()
