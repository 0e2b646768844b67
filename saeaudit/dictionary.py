"""A sparse autoencoder's dictionary, validated once and then trusted."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from saeaudit.errors import WeightsError
from saeaudit.escape import NAME, escape
from saeaudit.shown import OneLine, html_table
from saeaudit.site import UNKNOWN, Site
from saeaudit.vocabulary import Architecture as Architecture
from saeaudit.vocabulary import Control
from saeaudit.vocabulary import Normalise as Normalise
from saeaudit.vocabulary import Unstated as Unstated

if TYPE_CHECKING:
    from numpy.typing import ArrayLike
    from torch import Tensor

MOST_FEATURES = 2_097_151
"""Largest F: a triple is keyed by one 64-bit number below F^3."""

COLLAPSED_RATIO = 1e-3
"""A row is collapsed when its norm is below this share of the norms' 99th percentile."""
COLLAPSED_MOST = 0.1
"""Where more of the usable rows than this are collapsed, the rule is to be doubted."""
REFERENCE_FACTOR = 100.0
"""And where that percentile is more than this many times the norms' median."""


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
    neuronpedia: str | None = None
    """``model/source`` on Neuronpedia, where it is certainly of this SAE."""


@dataclass(frozen=True, repr=False)
class Weights(OneLine):
    """What a reader takes from disk, in saeaudit's orientation and the file's own dtype."""

    format: str
    """Name of the weight format."""
    decoder: Tensor
    """``[F, d]``: one feature a row; memory-mapped where the file allows. Of a cross-layer file
    ``[F, L, d]``, from which `take_layer` makes the weights of one layer."""
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
    """Active features a token, for TopK; groups, for GroupMax; most steps of a pursuit."""
    residual_limit: float = 0.0
    """A matching pursuit ends where less than this norm is left of the activation; 0: never."""
    ends_on_repeat: bool = True
    """Whether a matching pursuit ends at the first step that takes no new feature."""
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
    codes_unavailable: str | None = None
    """Why this file's activations cannot be encoded, where its reader knows a reason."""
    site: Site = UNKNOWN
    """Which activations it reads, as far as the file says."""
    unstated: tuple[Unstated, ...] = ()
    """What the file leaves open of its encoder, and nobody has said: `--assume` does."""
    notes: tuple[str, ...] = field(default=())
    """What a user should know about how the file was read, a line each."""

    @property
    def layers(self) -> int | None:
        """How many layers a cross-layer decoder writes to; None for one that is a matrix."""
        return self.decoder.shape[1] if self.decoder.ndim == 3 else None


TRANSCODER = "a transcoder: what it decodes is not what it reads, so an activation has no error"

NEEDED: dict[Architecture, tuple[str, ...]] = {
    "standard": (),
    "jumprelu": ("threshold",),
    "topk": ("k",),
    "batchtopk": ("threshold",),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "groupmax": ("k",),
    "matching_pursuit": (),
    "nnomp": ("k",),
    "unknown": (),
    "decoder-only": (),
}
"""What an encoder's formula takes beside its matrix."""
VECTORS = ("b_enc", "threshold", "b_gate", "b_mag", "r_mag", "b_dec")
"""Fields of `Weights` with a number a feature, or for "b_dec" one a dimension."""


@dataclass(frozen=True, repr=False)
class Dictionary:
    """Decoder rows with their norms, what is wrong with them, and where they came from.

    `saeaudit.open` makes one of a file, `from_rows` of rows in memory.
    """

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
    control: Control | None = None
    """Which null it is, where it is no SAE."""

    @classmethod
    def from_rows(cls, rows: Tensor | ArrayLike, sae: str = "rows", **fields: Any) -> Dictionary:
        """A dictionary of rows in memory, validated as one from a file is.

        >>> import saeaudit
        >>> dictionary = saeaudit.Dictionary.from_rows([[1.0, 0.0], [0.0, 1.0], [-0.999, 0.0447]])
        >>> [record.features for record in saeaudit.scan(dictionary) if record.type == "pair"]
        [(0, 2)]

        Args:
            rows: ``[F, d]`` of float32, float16, bfloat16 or float64: a tensor or an array (used as
                they are, on the CPU), or nested lists.
            sae: its id in records and errors.
            **fields: further fields of `Weights`, e.g. ``encoder`` and ``architecture``.

        Raises:
            WeightsError: no matrix of floats, or one that `validate` refuses.
            TypeError: no such field of `Weights`.
        """
        return in_memory(sae, Weights("rows", as_rows(rows, sae), **fields))

    def __repr__(self) -> str:
        """One line: its id, shape, architecture and dtype, and how many rows are left out."""
        sae, shape, *kinds, _ = map(str, self._cells().values())
        counts = [f", {count} {kind}" for kind, count in self._left_out().items() if count]
        return f"<Dictionary {escape(sae, NAME)}: {shape}, {', '.join(kinds)}{''.join(counts)}>"

    def _repr_html_(self) -> str:
        """A notebook's table of the same, and why there are no codes where there are none."""
        cells = self._cells() | self._left_out()
        return html_table(tuple(cells), [tuple(cells.values())])

    def _cells(self) -> dict[str, str]:
        return {
            "SAE": self.sae, "shape": f"{self.d_sae:,} features x {self.d_in:,}",
            "encoder": self.weights.architecture, "dtype": self.dtype,
            "codes": self.codes_unavailable or "yes",
        }  # fmt: skip

    def _left_out(self) -> dict[str, int]:
        rows = (self.zero_rows, self.nonfinite_rows, self.collapsed_rows)
        return dict(zip(("zero", "not finite", "collapsed"), map(len, rows), strict=True))

    @property
    def neuronpedia(self) -> str | None:
        """Its ``model/source`` on Neuronpedia, where certain; a control is not there."""
        return None if self.control else self.source.neuronpedia

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

    @property
    def activation_width(self) -> int:
        """Width of the activations that it reads; of a transcoder not that of its rows."""
        return self.d_in if self.encoder is None else int(self.encoder.shape[0])

    @property
    def codes_unavailable(self) -> str | None:
        """The one reason why activations cannot be encoded, in a line; None where they can.

        >>> import saeaudit
        >>> saeaudit.open("sample").codes_unavailable is None
        True
        """
        weights = self.weights
        if weights.codes_unavailable is not None:
            return weights.codes_unavailable
        if weights.maps_elsewhere:
            return TRANSCODER
        if weights.encoder is None:
            return "there is no encoder in this file"
        missing = [name for name in NEEDED[weights.architecture] if getattr(weights, name) is None]
        if missing:
            lacking = " and no ".join(missing)
            return f"a {weights.architecture} encoder, but the file has no {lacking}"
        spoilt = [name for name in VECTORS if _holds_nan(getattr(weights, name))]
        # A comparison with NaN is false: such features would be silent, not wrong.
        return f"NaN in {' and '.join(spoilt)}" if spoilt else None

    @property
    def collapsed_fraction(self) -> float:
        """Collapsed rows as a share of those that are finite and not zero."""
        return len(self.collapsed_rows) / len(_usable(self.norms))

    @property
    def collapsed_doubt(self) -> str | None:
        """Why the collapsed rows may be features after all, or None.

        The rule measures rows by the largest ones: a few huge rows make all others look dead.
        """
        if not len(self.collapsed_rows):
            return None
        if self.collapsed_fraction > COLLAPSED_MOST:
            return f"{self.collapsed_fraction:.1%} of the rows that are not zero are collapsed"
        ordered = _usable(self.norms)
        reference, median = _percentile(ordered, 99), _percentile(ordered, 50)
        if reference > REFERENCE_FACTOR * median:
            return f"the 99th percentile of the norms is {reference / median:,.0f} times the median"
        return None

    def live(self, *, include_collapsed: bool = False) -> Tensor:
        """Indices ``[n]`` int64 of the rows that findings are made of, ascending."""
        import torch

        keep = torch.ones(self.d_sae, dtype=torch.bool)
        keep[self.zero_rows] = False
        keep[self.nonfinite_rows] = False
        if not include_collapsed:
            keep[self.collapsed_rows] = False
        return keep.nonzero().squeeze(1)


def as_rows(rows: Tensor | ArrayLike, sae: str) -> Tensor:
    """A decoder ``[F, d]`` on the CPU, off the graph, and copied only if it must be.

    Raises:
        WeightsError: no dense matrix of floats; names the SAE.
    """
    import torch

    try:
        with warnings.catch_warnings():  # a mapped array is read-only, as rows may be
            warnings.simplefilter("ignore")
            decoder = torch.as_tensor(rows).detach().cpu()
    except (TypeError, ValueError, RuntimeError) as error:
        raise WeightsError(f"rows that are no matrix: {error}", where=sae) from error
    dense = decoder.layout == torch.strided and decoder.ndim == 2
    if not dense or not decoder.is_floating_point() or decoder.dtype.itemsize < 2:
        kind = f"{decoder.layout} ".removeprefix("torch.").replace("strided ", "")
        what = f"{kind}rows of shape {list(decoder.shape)} and type {decoder.dtype}"
        raise WeightsError(f"{what}; a matrix [F, d] of floats was expected", where=sae)
    return decoder


def in_memory(sae: str, weights: Weights) -> Dictionary:
    """A validated dictionary of weights that no file holds, with a decoder ``[F, d]``.

    Its source is one file, called as the SAE is, whose content are the decoder's bytes.

    Raises:
        WeightsError: what `validate` refuses.
    """
    import torch

    from saeaudit.core.rows import row_norms

    content = weights.decoder.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    file = FileRead(sae, content.nbytes, hashlib.sha256(content.data).hexdigest())
    return validate(sae, weights, Source(sae, (file,)), row_norms(weights.decoder))


def validate(sae: str, weights: Weights, source: Source, norms: Tensor) -> Dictionary:
    """Check shapes and values at the door.

    Args:
        sae: the SAE's id.
        weights: what a reader returned.
        source: where from.
        norms: ``[F]`` float64 row norms of the decoder, not finite where a row is not.

    Raises:
        WeightsError: fewer than two features or more than `MOST_FEATURES`, vectors of another
            length or not of real numbers, k no whole number from 1 to F, or no usable row.
    """
    count, width = weights.decoder.shape
    if count == 0 or width == 0:
        raise WeightsError(f"the decoder is empty: shape [{count}, {width}]", where=sae)
    if count > MOST_FEATURES:
        raise WeightsError(
            f"{count:,} features; at most {MOST_FEATURES:,} can be audited at once", where=sae
        )
    _check_k(sae, weights)
    for name in VECTORS:
        tensor, length = getattr(weights, name), width if name == "b_dec" else count
        if tensor is not None and tuple(tensor.shape) != (length,):
            raise WeightsError(
                f"{name} has shape {list(tensor.shape)} where [{length}] belongs to a decoder of "
                f"{count} features x {width}",
                where=sae,
            )
        kind = "" if tensor is None else str(tensor.dtype).removeprefix("torch.")
        if kind.startswith(("complex", "bool")):
            raise WeightsError(f"{name} is {kind}; real numbers were expected", where=sae)
    finite = norms.isfinite()
    zero = norms == 0
    usable = finite & ~zero
    if not bool(usable.any()):
        kind = "not finite (NaN or infinity)" if not bool(finite.any()) else "zero or not finite"
        raise WeightsError(
            f"nothing to audit: all {count} decoder rows are {kind}", where=sae,
            hint="the file was damaged or saved after training had diverged",
        )  # fmt: skip
    if count < 2:
        raise WeightsError("nothing to audit: one feature has no pairs", where=sae)
    collapsed = usable & (norms < COLLAPSED_RATIO * _percentile(_usable(norms), 99))
    zeros, infinite, small = (mask.nonzero().squeeze(1) for mask in (zero, ~finite, collapsed))
    return Dictionary(sae, weights, source, norms, zeros, infinite, small)


def _check_k(sae: str, weights: Weights) -> None:
    k, count = weights.k, len(weights.decoder)
    if k is None:
        return
    if isinstance(k, bool):
        raise WeightsError(f"k is {k}; a whole number was expected", where=sae)
    if k < 1:
        raise WeightsError(f"k is {k}; it must be at least 1", where=sae)
    # A matching pursuit's k bounds its steps, of which several may take the same feature.
    if k > count and weights.architecture != "matching_pursuit":
        raise WeightsError(f"k is {k}, but there are only {count} features", where=sae)


def _holds_nan(tensor: Tensor | None) -> bool:
    return tensor is not None and bool(tensor.isnan().any())


def _usable(norms: Tensor) -> Tensor:
    """The norms that are finite and not zero, ascending."""
    return norms[norms.isfinite() & (norms > 0)].sort().values


def _percentile(ordered: Tensor, percent: int) -> float:
    """A value that occurs, at or below which this many percent lie."""
    return float(ordered[-(-percent * len(ordered) // 100) - 1])
