"""A sparse autoencoder's dictionary, validated once and then trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from saeaudit.errors import WeightsError

if TYPE_CHECKING:
    from torch import Tensor

Architecture = Literal["standard", "jumprelu", "topk", "batchtopk", "gated", "decoder-only"]

Normalise = Literal["none", "layer_norm", "constant_norm"]

COLLAPSED_RATIO = 1e-3
"""A row is collapsed when its norm is below this share of the norms' 99th percentile."""


@dataclass(frozen=True)
class FileRead:
    """One file that was read."""

    path: str
    """As the user named it, or relative to the sample."""
    bytes: int
    sha256: str
    """Hexadecimal digest of the whole file."""


@dataclass(frozen=True)
class Source:
    """Where a dictionary came from."""

    uri: str
    """The target as the user can type it."""
    files: tuple[FileRead, ...]
    """Every file read, the weights first."""
    revision: str | None = None
    """Resolved commit of a hub repository; None for local files."""


@dataclass(frozen=True)
class Weights:
    """What a reader takes from disk, in saeaudit's orientation and the file's own dtype."""

    format: str
    """Name of the weight format."""
    decoder: Tensor
    """``[F, d]``: one feature a row; memory-mapped where the file allows."""
    architecture: Architecture = "decoder-only"
    encoder: Callable[[], Tensor] | None = None
    """Returns ``[d_in, F]``: one feature a column; None when the file has no encoder."""
    b_enc: Tensor | None = None
    """``[F]``."""
    b_dec: Tensor | None = None
    """``[d]``."""
    threshold: Tensor | None = None
    """``[F]``, JumpReLU thresholds."""
    subtract_b_dec: bool = False
    """Whether the encoder sees ``x - b_dec``."""
    k: int | None = None
    """Active features a token, for TopK."""
    b_gate: Tensor | None = None
    """``[F]``, gated encoders only."""
    b_mag: Tensor | None = None
    """``[F]``, gated encoders only."""
    r_mag: Tensor | None = None
    """``[F]``, gated encoders only."""
    input_scale: float = 1.0
    """The encoder sees ``input_scale * x``; decoded activations are divided by `output_scale`."""
    output_scale: float = 1.0
    """Scale of the space that the decoder's rows are in."""
    normalise: Normalise = "none"
    """What is done to each activation before encoding, and undone after decoding."""
    norm_scaled: bool = False
    """Whether features compete by their pre-activation times their decoder norm (TopK)."""
    maps_elsewhere: bool = False
    """A transcoder: the decoder writes to another space than the encoder reads."""
    notes: tuple[str, ...] = field(default=())
    """What a user should know about how the file was read, a line each."""


@dataclass(frozen=True)
class Dictionary:
    """Decoder rows with their norms, what is wrong with them, and where they came from."""

    sae: str
    """The SAE's id as the user can type it."""
    weights: Weights
    source: Source
    norms: Tensor
    """``[F]`` float64 Euclidean norms of the decoder rows."""
    zero_rows: Tensor
    """int64 indices of rows that are exactly zero."""
    nonfinite_rows: Tensor
    """int64 indices of rows with an infinity or a NaN."""
    collapsed_rows: Tensor
    """int64 indices of rows whose norm is below `COLLAPSED_RATIO` of the norms' 99th percentile."""

    @property
    def d_sae(self) -> int:
        """Number of features F."""
        return self.weights.decoder.shape[0]

    @property
    def d_in(self) -> int:
        """Width d of a decoder row."""
        return self.weights.decoder.shape[1]

    @property
    def dtype(self) -> str:
        """Element type of the decoder on disk, e.g. "float32"."""
        return str(self.weights.decoder.dtype).removeprefix("torch.")

    @cached_property
    def encoder(self) -> Tensor | None:
        """Encoder ``[d_in, F]`` in the file's dtype, or None."""
        return self.weights.encoder() if self.weights.encoder else None

    def live(self, *, include_collapsed: bool = False) -> Tensor:
        """Indices ``[n]`` int64 of the rows that findings are made of, ascending."""
        import torch

        keep = torch.ones(self.d_sae, dtype=torch.bool)
        keep[self.zero_rows] = False
        keep[self.nonfinite_rows] = False
        if not include_collapsed:
            keep[self.collapsed_rows] = False
        return keep.nonzero().squeeze(1)


def validate(sae: str, weights: Weights, source: Source, norms: Tensor) -> Dictionary:
    """Check shapes and values at the door.

    Args:
        sae: the SAE's id.
        weights: what a reader returned.
        source: where from.
        norms: ``[F]`` float64 row norms of the decoder, not finite where a row is not.

    Raises:
        WeightsError: fewer than two features, biases of another length, or no usable row.
    """
    count, width = weights.decoder.shape
    if count == 0 or width == 0:
        raise WeightsError(f"the decoder is empty: shape [{count}, {width}]", where=sae)
    for name, tensor, length in (
        ("b_enc", weights.b_enc, count),
        ("threshold", weights.threshold, count),
        ("b_gate", weights.b_gate, count),
        ("b_mag", weights.b_mag, count),
        ("r_mag", weights.r_mag, count),
        ("b_dec", weights.b_dec, width),
    ):
        if tensor is not None and tuple(tensor.shape) != (length,):
            raise WeightsError(
                f"{name} has shape {list(tensor.shape)} where [{length}] belongs to a decoder of "
                f"{count} features x {width}",
                where=sae,
            )
    finite = norms.isfinite()
    zero = norms == 0
    usable = finite & ~zero
    if not bool(usable.any()):
        kind = "not finite (NaN or infinity)" if not bool(finite.any()) else "zero or not finite"
        raise WeightsError(
            f"nothing to audit: all {count} decoder rows are {kind}",
            where=sae,
            hint="the file was damaged or saved after training had diverged",
        )
    if count < 2:
        raise WeightsError("nothing to audit: one feature has no pairs", where=sae)
    ordered = norms[usable].sort().values
    reference = float(ordered[-(-99 * len(ordered) // 100) - 1])
    collapsed = usable & (norms < COLLAPSED_RATIO * reference)
    return Dictionary(
        sae, weights, source, norms, *(m.nonzero().squeeze(1) for m in (zero, ~finite, collapsed))
    )
