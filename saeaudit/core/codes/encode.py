"""The encoders' formulas: activations to codes, one function per architecture.

Every function takes pre-processed activations (see `Encoder.codes`) and follows the library that
trains that architecture; thresholds are compared strictly (``>``) and codes are never negative.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.core.budget import DEFAULT
from saeaudit.core.codes.pursuit import pursue
from saeaudit.core.rows import UnitRows, row_norms, spans

SAELENS_LAYER_NORM_EPS = 1e-5


class Encoder(NamedTuple):
    """One SAE's encoder and decoder, on one device; codes come in the dtype of the activations.

    Matrices may be as the file has them: parts of them are converted when they are multiplied.
    """

    architecture: str
    """A key of `FORMULAS`."""
    w_enc: Tensor
    """``[d_in, F]``."""
    w_dec: Tensor
    """``[F, d]``."""
    b_enc: Tensor | None = None
    """``[F]``."""
    b_dec: Tensor | None = None
    """``[d]``."""
    threshold: Tensor | None = None
    """``[F]``."""
    subtract_b_dec: bool = False
    """Whether the encoder sees ``x - b_dec``."""
    k: int | None = None
    """Active features a token, for TopK; groups, for GroupMax; most steps of a pursuit."""
    residual_limit: float = 0.0
    """A matching pursuit ends where less than this norm is left of the activation; 0: never."""
    ends_on_repeat: bool = True
    """Whether a matching pursuit ends at the first step that takes no new feature."""
    b_gate: Tensor | None = None
    """``[F]``, gated only."""
    b_mag: Tensor | None = None
    """``[F]``, gated only."""
    r_mag: Tensor | None = None
    """``[F]``, gated only."""
    input_scale: float = 1.0
    """The encoder sees ``input_scale * x``."""
    output_scale: float = 1.0
    """Decoded activations are divided by this."""
    normalise: str = "none"
    """"none", "layer_norm" or "constant_norm": done to each activation, undone after decoding."""
    norm_scaled: bool = False
    """Whether features compete by their pre-activation times their decoder norm."""
    enter: Tensor | None = None
    """``[F]`` bool: features that a non-negative pursuit may take; all that are not zero where
    None."""

    def codes(self, x: Tensor) -> Tensor:
        """Encode activations ``[N, d_in]`` to codes ``[N, F]``, all >= 0."""
        x, _, _ = self._standardised(x)
        x = x * self.input_scale
        if self.subtract_b_dec and self.b_dec is not None:
            x = x - self.b_dec
        return FORMULAS[self.architecture](self, x)

    def decode(self, z: Tensor, x: Tensor | None = None) -> Tensor:
        """Decode codes ``[N, F]`` to ``[N, d]``.

        Args:
            z: the codes.
            x: the activations that were encoded ``[N, d_in]``; needed where `normalise` is not
                "none", because its undoing depends on them.
        """
        decoded = z.new_zeros(len(z), self.w_dec.shape[1])
        for start, stop in parts(self.w_dec):
            decoded += z[:, start:stop] @ self.w_dec[start:stop].to(z.dtype)
        if self.b_dec is not None:
            decoded = decoded + self.b_dec
        decoded = decoded / self.output_scale
        if self.normalise == "none":
            return decoded
        if x is None:
            raise ValueError("decoding normalised activations needs the activations")
        _, shift, scale = self._standardised(x)
        return decoded * scale + shift

    def target(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the decoder's rows must add up to, and what a squared error there is worth here.

        Args:
            x: activations ``[N, d]``.

        Returns:
            ``t [N, d]`` and ``w [N]`` with ``|decode(z, x) - x|^2 = w |z W_dec - t|^2``.
        """
        _, shift, scale = self._standardised(x)
        target = (x - shift) / scale.clamp(min=torch.finfo(x.dtype).tiny) * self.output_scale
        if self.b_dec is not None:
            target = target - self.b_dec
        return target, (scale[:, 0] / self.output_scale).square()

    def _standardised(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised activations, and the shift and scale ``[N, 1]`` that undo it.

        SAELens adds a constant to layer_norm's scale when it encodes, and none when it decodes.
        """
        zero, one = x.new_zeros(len(x), 1), x.new_ones(len(x), 1)
        if self.normalise == "layer_norm":
            mean = x.mean(-1, keepdim=True)
            scale = (x - mean).std(-1, keepdim=True)
            return (x - mean) / (scale + SAELENS_LAYER_NORM_EPS), mean, scale
        if self.normalise == "constant_norm":
            scale = x.norm(dim=-1, keepdim=True) / math.sqrt(x.shape[-1])
            return x / scale, zero, scale
        return x, zero, one


def parts(rows: Tensor) -> Iterator[tuple[int, int]]:
    """Yield ``(start, stop)`` over rows, as many at once as may be held in another dtype."""
    return spans(len(rows), DEFAULT.stored_rows(rows.shape[1], torch.float64.itemsize))


def with_rows(x: Tensor, rows: Tensor) -> Tensor:
    """Inner products ``[N, F]`` of ``x [N, d]`` with ``rows [F, d]`` of any dtype, in x's."""
    if rows.dtype == x.dtype:
        return x @ rows.T
    out = x.new_empty(len(x), len(rows))
    for start, stop in parts(rows):
        out[:, start:stop] = x @ rows[start:stop].to(x.dtype).T
    return out


def decoder_norms(encoder: Encoder, dtype: torch.dtype) -> Tensor:
    """Norms ``[F]`` of the decoder's rows."""
    rows = encoder.w_dec
    return torch.cat([rows[a:b].to(dtype).norm(dim=1) for a, b in parts(rows)])


def pre_activations(encoder: Encoder, x: Tensor) -> Tensor:
    """``x W_enc + b_enc``, ``[N, F]``."""
    pre = with_rows(x, encoder.w_enc.T)
    return pre if encoder.b_enc is None else pre + encoder.b_enc


def standard(encoder: Encoder, x: Tensor) -> Tensor:
    """ReLU of the pre-activations."""
    return pre_activations(encoder, x).relu()


def jumprelu(encoder: Encoder, x: Tensor) -> Tensor:
    """Pre-activations above their feature's threshold, unshifted (Rajamanoharan et al. 2024)."""
    pre = pre_activations(encoder, x).relu()
    if encoder.threshold is None:
        raise ValueError("a JumpReLU encoder without thresholds")
    gate = pre * decoder_norms(encoder, x.dtype) if encoder.norm_scaled else pre
    return pre * (gate > encoder.threshold)


def topk(encoder: Encoder, x: Tensor) -> Tensor:
    """The k largest pre-activations of each token, then ReLU (Gao et al. 2024)."""
    if encoder.k is None:
        raise ValueError("a TopK encoder without k")
    pre = pre_activations(encoder, x).relu()
    norms = decoder_norms(encoder, x.dtype) if encoder.norm_scaled else None
    ranked = pre if norms is None else pre * norms
    keep = ranked.topk(min(encoder.k, ranked.shape[-1]), dim=-1).indices
    out = torch.zeros_like(pre).scatter_(-1, keep, pre.gather(-1, keep))
    # SAELens encodes to the scaled value and divides the decoder instead: the same sum.
    return out


def batchtopk(encoder: Encoder, x: Tensor) -> Tensor:
    """BatchTopK as used at inference: one threshold for all tokens (Bussmann et al. 2024)."""
    if encoder.threshold is None:
        return topk(encoder, x)
    return jumprelu(encoder, x)


def gated(encoder: Encoder, x: Tensor) -> Tensor:
    """A binary gate times a magnitude of tied weights (Rajamanoharan et al. 2024)."""
    if encoder.b_gate is None or encoder.b_mag is None or encoder.r_mag is None:
        raise ValueError("a gated encoder without b_gate, b_mag or r_mag")
    shared = with_rows(x, encoder.w_enc.T)
    magnitude = (shared * encoder.r_mag.exp() + encoder.b_mag).relu()
    return magnitude * (shared + encoder.b_gate > 0)


def groupmax(encoder: Encoder, x: Tensor) -> Tensor:
    """The largest pre-activation in each of k groups of neighbouring features, then ReLU."""
    if encoder.k is None:
        raise ValueError("a GroupMax encoder without k")
    pre = pre_activations(encoder, x).relu()
    values, place = pre.view(len(pre), encoder.k, -1).max(dim=-1)
    first = torch.arange(encoder.k, device=x.device) * (pre.shape[-1] // encoder.k)
    return torch.zeros_like(pre).scatter_(-1, first + place, values)


def matching_pursuit(encoder: Encoder, x: Tensor) -> Tensor:
    """Step by step, as much as there is of the row most aligned with what is left (tied weights).

    A row may be taken again: its code grows. Follows SAELens, which tests both ends after a step.
    """
    rows, residual = encoder.w_dec, x
    codes = x.new_zeros(len(x), len(rows))
    ended = torch.zeros(len(x), dtype=torch.bool, device=x.device)
    for _ in range(x.shape[1] if encoder.k is None else encoder.k):
        best = with_rows(residual, rows).argmax(dim=1)
        row = rows[best].to(x.dtype)
        value = (residual * row).sum(1).relu().masked_fill(ended, 0)
        before = codes != 0
        codes = codes.scatter_add(1, best[:, None], value[:, None])
        residual = residual - value[:, None] * row
        if encoder.ends_on_repeat:
            ended |= ((codes != 0) == before).all(dim=1)
        if encoder.residual_limit > 0:
            ended |= residual.norm(dim=1) < encoder.residual_limit
        if bool(ended.all()):
            break
    return codes


def nonnegative_pursuit(encoder: Encoder, x: Tensor) -> Tensor:
    """At most k features, one after the other, all refitted at every step; see `pursue`."""
    if encoder.k is None:
        raise ValueError("a non-negative pursuit without k")
    norms = row_norms(encoder.w_dec)
    usable = norms.isfinite() & (norms > 0)
    live = usable.nonzero().squeeze(1)
    enter = usable if encoder.enter is None else usable & encoder.enter
    units = UnitRows(encoder.w_dec, live, norms[live], DEFAULT)
    sizes = torch.full((len(x),), min(encoder.k, len(live)), device=x.device)
    rows, unit_codes = pursue(units, x.to(torch.float64), sizes, enter[live], nonnegative=True)
    codes = unit_codes.new_zeros(len(x), units.count)
    codes.scatter_add_(1, rows.clamp(min=0), unit_codes)
    out = x.new_zeros(len(x), len(norms))
    out[:, live] = (codes / units.norms).to(x.dtype)
    return out


FORMULAS: dict[str, Callable[[Encoder, Tensor], Tensor]] = {
    "standard": standard,
    "jumprelu": jumprelu,
    "topk": topk,
    "batchtopk": batchtopk,
    "gated": gated,
    "groupmax": groupmax,
    "matching_pursuit": matching_pursuit,
    "nnomp": nonnegative_pursuit,
}
"""Architecture → formula."""
