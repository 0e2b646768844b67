"""An SAE's own codes of activations, in the scale of unit decoder rows."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from saeaudit.audit.observer import Observer
from saeaudit.core.budget import DEFAULT, Budget
from saeaudit.core.codes.encode import Encoder
from saeaudit.core.rows import UnitRows
from saeaudit.dictionary import Dictionary
from saeaudit.errors import AuditError
from saeaudit.records import Code
from saeaudit.sources.codes import check_codes
from saeaudit.sources.stacked import Activations
from saeaudit.weights.assumptions import readings

WINDOW = 512
"""Activations encoded at once."""
TRIED = 256
"""Activations on which two readings of a file are compared."""
ROUNDING = 1e-12
"""A code this share below its threshold is at it: both went through products with norms."""
EXACT_BYTES = 4 << 30
"""Codes are computed in float64 where encoder and decoder would take no more than this in it."""


class Active(NamedTuple):
    """The active features of B tokens."""

    place: Tensor
    """``[e]`` int64: which of the tokens."""
    row: Tensor
    """``[e]`` int64: live row."""
    code: Tensor
    """``[e]`` float64: unit-row code, > 0."""


class Encoded(NamedTuple):
    """Some activations and their codes."""

    x: Tensor
    """``[B, d_in]``."""
    codes: Tensor
    """``[B, n]`` float64: codes times decoder norms, live features only."""
    target: Tensor
    """``[B, d]`` float64: what the decoder's rows must add up to."""
    worth: Tensor
    """``[B]``: what a squared error against the target is worth in the activations' scale."""

    @property
    def l0(self) -> Tensor:
        """``[B]`` int64: active features."""
        return (self.codes > 0).sum(1)

    @property
    def active(self) -> Active:
        """The active features, in the order of the tokens."""
        place, row = (self.codes > 0).nonzero().unbind(1)
        return Active(place, row, self.codes[place, row])

    @property
    def norms(self) -> Tensor:
        """``[B]``: what there is to explain, the distance from the decoder's bias."""
        return distances(self.target, self.worth)


def distances(target: Tensor, worth: Tensor) -> Tensor:
    """Norms ``[B]`` of targets ``[B, d]``, in the activations' scale by their ``worth [B]``."""
    return (worth * target.square().sum(1)).sqrt()


class Coder:
    """One SAE's encoder, and its decoder's unit rows, on one device."""

    def __init__(self, dictionary: Dictionary, device: str, budget: Budget = DEFAULT) -> None:
        """Load both.

        Raises:
            AuditError: codes cannot be had from the file.
        """
        self.dictionary, self.device = dictionary, device
        # In float64 the same bits come out whatever the batch and the machine.
        exact = 16 * dictionary.d_sae * dictionary.d_in <= EXACT_BYTES
        self.dtype = torch.float64 if exact else torch.float32
        self.encoder: Encoder = make_encoder(dictionary, device=device, dtype=self.dtype)
        self.units = live_units(dictionary, self.encoder.w_dec, budget)
        self.enter = ~torch.isin(self.units.live, dictionary.collapsed_rows.to(device))
        """``[n]`` bool: live features that may enter a code."""
        self.thresholds = unit_thresholds(dictionary, self.units.live)
        """``[n]`` float64: least unit-row codes that the encoder outputs."""
        self.has_thresholds = dictionary.weights.threshold is not None

    def encode(self, activations: Activations, tokens: Tensor) -> Encoded:
        """Encode some of the activations.

        Args:
            activations: ``[N, d_in]`` of any float dtype.
            tokens: ``[B]`` int64: which of them.

        Raises:
            AuditError: one is not finite, or has codes that are negative or not finite.
        """
        x = self._read(activations, tokens)
        encoded = check_codes(self.encoder.codes(x), f"{self.dictionary.sae}'s encoder", tokens)
        return Encoded(x, self.unit(encoded), *self._target(x))

    def norms(self, activations: Activations, tokens: Tensor) -> Tensor:
        """`Encoded.norms` of some of the activations, without their codes; as for `encode`.

        Raises:
            AuditError: one is not finite.
        """
        target, worth = self._target(self._read(activations, tokens))
        return distances(target, worth)

    def _read(self, activations: Activations, tokens: Tensor) -> Tensor:
        x = activations[tokens].to(self.device, self.dtype)
        finite = x.isfinite().all(1)
        if not bool(finite.all()):
            raise AuditError(
                f"activation {int(tokens[~finite.cpu()].min())} is not finite (NaN or infinity)",
                where=self.dictionary.sae,
            )
        return x

    def _target(self, x: Tensor) -> tuple[Tensor, Tensor]:
        bias = self.encoder.b_dec
        exact = self.encoder._replace(b_dec=None if bias is None else bias.double())
        return exact.target(x.to(torch.float64))

    def unit(self, codes: Tensor) -> Tensor:
        """Codes ``[B, F]`` in the file's scale to float64 unit-row codes of live features."""
        return codes[:, self.units.live].to(torch.float64) * self.units.norms


def active_codes(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Dense codes ``[B, n]`` as ``[B, k]`` codes, largest first, and rows (-1 at empty places).

    >>> active_codes(torch.tensor([[0.0, 2.0, 0.0, 3.0], [1.0, 0.0, 0.0, 0.0]]))
    (tensor([[3., 2.],
            [1., 0.]]), tensor([[ 3,  1],
            [ 0, -1]]))
    """
    width = int((codes > 0).sum(1).max()) if len(codes) else 0
    values, rows = codes.topk(width, dim=1)
    return values, torch.where(values > 0, rows, -1)


def live_units(dictionary: Dictionary, decoder: Tensor, budget: Budget = DEFAULT) -> UnitRows:
    """Unit rows of every feature that codes are written in, collapsed ones too.

    Args:
        dictionary: the SAE.
        decoder: its rows, where they are to be used; not copied.
        budget: how much of them is held at once.
    """
    live = dictionary.live(include_collapsed=True).to(decoder.device)
    return UnitRows(decoder, live, dictionary.norms.to(decoder.device)[live], budget)


def unit_thresholds(dictionary: Dictionary, live: Tensor) -> Tensor:
    """Least unit-row codes that an encoder outputs, ``[n]`` float64.

    Zero where the SAE has no thresholds.

    Args:
        dictionary: the SAE.
        live: ``[n]`` int64 features.
    """
    threshold = dictionary.weights.threshold
    if threshold is None:
        return torch.zeros(len(live), dtype=torch.float64, device=live.device)
    least = threshold.to(live.device, torch.float64)[live].clamp(min=0)
    scaled = dictionary.weights.norm_scaled
    return least if scaled else least * dictionary.norms.to(live.device)[live]


def written_codes(
    units: UnitRows, thresholds: Tensor, rows: Tensor, codes: Tensor
) -> list[tuple[Code, ...]]:
    """Codes as records have them: in the file's scale, by feature, zeros left out.

    Records round to 9 significant digits. A code that is at its threshold, up to float64, is not
    rounded to below it, where the encoder outputs nothing.

    Args:
        units: live rows.
        thresholds: ``[n]`` float64: least unit-row codes that the encoder outputs.
        rows: ``[m, k]`` int64 live rows, -1 at empty places.
        codes: ``[m, k]`` float64 unit-row codes.
    """
    index = rows.clamp(min=0)
    norms = units.norms[index]
    values, least = codes / norms, thresholds[index] / norms
    active = (rows >= 0) & (codes > 0)
    columns = zip(
        units.live[index].tolist(), values.tolist(), least.tolist(), active.tolist(), strict=True
    )
    return [
        tuple(
            Code(feature, no_less(value, floor))
            for feature, value, floor, is_active in sorted(zip(*row, strict=True))
            if is_active
        )
        for row in columns
    ]


def no_less(value: float, floor: float) -> float:
    """A value that is not rounded to below its floor, unless it is below it.

    >>> no_less(0.7362185716, 0.7362185716), no_less(0.5, 0.7362185716)
    (0.7362185716, 0.5)
    >>> no_less(0.7362185713, 0.7362185713)
    0.736218572
    """
    rounded = float(f"{value:.9g}")
    if rounded >= floor or value < floor * (1 - ROUNDING):
        return value
    # One more in the last of the 9 digits.
    return float(f"{rounded + 10.0 ** (math.floor(math.log10(rounded)) - 8):.9g}")


def tell_better_reading(
    dictionary: Dictionary, activations: Activations, device: str, observer: Observer
) -> None:
    """Say which reading reconstructs better, where a plain file leaves open how it is encoded.

    Args:
        dictionary: its codes can be had.
        activations: ``[N, d_in]`` of any float dtype, of which the first are tried.
        device: where to compute.
        observer: is told.
    """
    tried = readings(dictionary.weights)
    x = activations[:TRIED].to(device, torch.float64)
    spread = float((x - x.mean(0)).square().sum())
    if len(tried) < 2 or not math.isfinite(spread) or not spread:
        return
    encoder = make_encoder(dictionary, device=device, dtype=torch.float64)
    errors = {}
    for words, weights in tried.items():
        reading = encoder._replace(
            architecture=weights.architecture, subtract_b_dec=weights.subtract_b_dec
        )
        errors[words] = float((reading.decode(reading.codes(x)) - x).square().sum()) / spread
    taken = next(iter(errors))
    finite = [words for words, error in errors.items() if math.isfinite(error)]
    if not finite:
        return
    best = min(finite, key=lambda words: (errors[words], words != taken))
    figures = "; ".join(f"{words} {error:.3g}" for words, error in errors.items())
    advice = "as it is read" if best == taken else f"--assume {best} reads it so"
    observer.note(
        f"{dictionary.sae}: errors on the first {len(x)} activations, as shares of the variance: "
        f"{figures}: {best} is best ({advice})"
    )


def make_encoder(
    dictionary: Dictionary, *, device: str = "cpu", dtype: torch.dtype = torch.float32
) -> Encoder:
    """Load a dictionary's encoder.

    Args:
        dictionary: an opened SAE.
        device: where to compute.
        dtype: what to compute in.

    Raises:
        AuditError: codes cannot be had from the file: no encoder, a transcoder, a formula that is
            not known.
    """
    weights, reason = dictionary.weights, dictionary.codes_unavailable
    if reason is not None or dictionary.encoder is None:
        fetchable = weights.encoder is None and dictionary.source.revision
        raise AuditError(
            reason or "there is no encoder in this file",
            where=dictionary.sae,
            hint=f"saeaudit fetch {dictionary.source.uri} brings the whole SAE"
            if fetchable
            else "saeaudit scan shows what its decoder holds",
        )

    enter = torch.zeros(dictionary.d_sae, dtype=torch.bool)
    enter[dictionary.live()] = True

    def ready(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device=device, dtype=dtype)

    return Encoder(
        architecture=weights.architecture,
        w_enc=dictionary.encoder.to(device),
        w_dec=weights.decoder.to(device),
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
        residual_limit=weights.residual_limit,
        ends_on_repeat=weights.ends_on_repeat,
        enter=enter.to(device),
    )
