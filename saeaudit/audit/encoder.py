"""From a dictionary to the encoder that the core computes with."""

from __future__ import annotations

import torch
from torch import Tensor

from saeaudit.core.codes.encode import Encoder
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError


def make_encoder(
    dictionary: Dictionary, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Encoder:
    """Load a dictionary's encoder.

    Args:
        dictionary: an opened SAE.
        device: where to compute.
        dtype: what to compute in.

    Raises:
        AuditError: the file holds no encoder.
    """
    weights = dictionary.weights
    if weights.architecture == "decoder-only" or dictionary.encoder is None:
        raise AuditError(
            "there is no encoder in this file",
            where=dictionary.sae,
            hint=f"saeaudit fetch {dictionary.source.uri} brings the whole SAE"
            if dictionary.source.revision
            else "",
        )

    def ready(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device=device, dtype=dtype)

    return Encoder(
        architecture=weights.architecture,
        w_enc=dictionary.encoder.to(device=device, dtype=dtype),
        w_dec=weights.decoder.to(device=device, dtype=dtype),
        b_enc=ready(weights.b_enc),
        b_dec=ready(weights.b_dec),
        threshold=ready(weights.threshold),
        subtract_b_dec=weights.subtract_b_dec,
        k=weights.k,
        b_gate=ready(weights.b_gate),
        b_mag=ready(weights.b_mag),
        r_mag=ready(weights.r_mag),
        input_scale=weights.input_scale,
        output_scale=weights.output_scale,
        normalise=weights.normalise,
        norm_scaled=weights.norm_scaled,
    )
