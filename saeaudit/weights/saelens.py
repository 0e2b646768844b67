"""SAELens: ``cfg.json`` + ``sae_weights.safetensors``, as written before and after version 6.0."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, NamedTuple

from saeaudit.dictionary import Architecture, Normalise, Weights
from saeaudit.site import Site
from saeaudit.untrusted import finite
from saeaudit.weights import temporal
from saeaudit.weights.assemble import (
    EXPECTS_SCALED,
    Names,
    assemble,
    multiplied,
    number_of,
    positive,
)
from saeaudit.weights.hooks import counted, named
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.published import (
    published_centring,
    published_normalisation,
    published_scale,
)
from saeaudit.weights.tensors import Contents, Stored, Tensors, read_json

if TYPE_CHECKING:
    from torch import Tensor

ARCHITECTURES: dict[str, Architecture] = {
    "standard": "standard",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "batchtopk": "batchtopk",
    "matryoshka_batchtopk": "batchtopk",
    "gated": "gated",
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
    "matching_pursuit": "matching_pursuit",
}
"""Its architecture names, and which encoder formula each one means."""

NO_CODES = {
    "abstopk": "an AbsTopK encoder, whose codes may be negative",
    "temporal": temporal.UNAVAILABLE,
}
"""Architectures that are scanned by their decoder, and why they have no codes here."""

NORMALISE: dict[str, Normalise] = {
    "none": "none",
    "expected_average_only_in": "none",
    "constant_norm_rescale": "constant_norm",
    "layer_norm": "layer_norm",
}

WHITENED = "the decoder is of whitened activations: angles in it are not those of the model's space"
SCALER = "activation_scaler.json"


class SaeLens:
    """W_dec [F, d], W_enc [d, F]; cfg.json is flat before 6.0 and has `metadata` from 6.0 on."""

    name = "saelens"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is sae_weights.safetensors with a cfg.json beside it."""
        return file.name == "sae_weights.safetensors" and present(file.parent / "cfg.json")

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration, and in checkpoints the scale of the activations."""
        return (file.parent / "cfg.json", file.parent / SCALER)

    def home(self, file: PurePath) -> PurePath:
        """Its folder."""
        return file.parent

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read the weights, taking d_in and d_sae from cfg.json as the arbiter of orientation."""
        config_file, scaler_file = file.parent / "cfg.json", file.parent / SCALER
        scaler = read_json(scaler_file) if scaler_file.is_file() else {}
        weights = build(read_json(config_file), scaler, contents.tensors, file)
        return Loaded(weights, (file, config_file, *((scaler_file,) if scaler else ())))


def build(
    config: dict[str, Any], scaler: dict[str, Any], stored: Tensors, file: PurePath
) -> Weights:
    """Weights of what the library saves, or would.

    Args:
        config: what cfg.json has, `SAE.cfg.to_dict()`.
        scaler: what activation_scaler.json has; empty without one.
        stored: the tensors of the state dictionary.
        file: where they are, for messages and for what its publisher says elsewhere.

    Raises:
        WeightsError: no decoder, or shapes that contradict the configuration.
    """
    where = str(file.parent / "cfg.json")
    tensors = dict(stored)
    name = str(config.get("architecture") or "standard")
    transcoder = "transcoder" in name
    formula, no_formula = _formula(config, name)
    scaling = _scaling(config, scaler, file)
    unscaled = _scale_rows(config, tensors)
    tied = name == "matching_pursuit" and "W_dec" in tensors
    if tied:
        tensors["W_enc"] = _transposed(tensors["W_dec"])
    centred = bool(config.get("apply_b_dec_to_input", _before_6(config))) and not transcoder
    if tied and not centred:
        tensors.pop("b_dec", None)  # then the library does not add it either
    return assemble(
        SaeLens.name,
        str(file),
        tensors,
        Names(threshold=("threshold", "topk_threshold")),
        formula,
        Layout(
            features=_features(config, where),
            width=positive(config, "d_out", where) or positive(config, "d_in", where),
            maps_elsewhere=transcoder,
        ),
        subtract_b_dec=centred,
        k=_k(config, formula, where),
        residual_limit=_number(config, "residual_threshold", 0.0, where),
        ends_on_repeat=bool(config.get("stop_on_duplicate_support", True)),
        norm_scaled=bool(config.get("rescale_acts_by_decoder_norm", False)),
        normalise=scaling.normalise,
        input_scale=scaling.factor,
        output_scale=scaling.factor,
        codes_unavailable=no_formula or scaling.unavailable or unscaled,
        notes=scaling.notes,
        site=_site(config, file),
    )


def _site(config: dict[str, Any], file: PurePath) -> Site:
    """What it was trained on; a single head of an attention layer is no place for a whole SAE.

    Texts began with a BOS unless the file says otherwise, as the library takes it. Its activation
    is the same in every text, and large: it is not looked at.
    """
    metadata = config.get("metadata")
    told = config | metadata if isinstance(metadata, dict) else config
    one_head = told.get("hook_head_index", told.get("hook_point_head_index")) is not None
    options = told.get("model_from_pretrained_kwargs")
    centred = options.get("center_writing_weights") if isinstance(options, dict) else None
    return Site(
        model=named(told, "model_name"),
        hook=None if one_head else named(told, "hf_hook_name", "hook_name", "hook_point"),
        context=counted(told, "context_size"),
        bos="drop" if told.get("prepend_bos", True) else "none",
        centred=centred if isinstance(centred, bool) else published_centring(file),
    )


def _features(config: dict[str, Any], where: str) -> int | None:
    return positive(config, "d_sae", where) or multiplied(config, "d_in", where)


def _before_6(config: dict[str, Any]) -> bool:
    metadata = config.get("metadata")
    version = config.get("sae_lens_version") or (
        metadata.get("sae_lens_version") if isinstance(metadata, dict) else None
    )
    major = str(version or "0").split(".")[0]
    return not major.isdigit() or int(major) < 6


def _formula(config: dict[str, Any], name: str) -> tuple[Architecture, str | None]:
    """The encoder's formula, or "unknown" and why codes cannot be had.

    Before 6.0 the activation function stands beside the architecture and need not be its usual one.
    """
    activation = config.get("activation_fn") or config.get("activation_fn_str") or "relu"
    if name in NO_CODES:
        return "unknown", NO_CODES[name]
    if name not in ARCHITECTURES:
        return "unknown", f"the architecture {name!r} is not known"
    if name in ("standard", "topk") and activation == "topk":
        return "topk", None
    if activation not in ("relu", "topk") or (activation == "topk" and name != "topk"):
        return "unknown", f"the activation function {activation!r} of a {name} encoder is not known"
    return ARCHITECTURES[name], None


def _k(config: dict[str, Any], formula: Architecture, where: str) -> int | None:
    """Features a token of TopK, or steps; BatchTopK's k is a mean, and need not be whole."""
    if formula == "matching_pursuit":
        return positive(config, "max_iterations", where)
    if formula != "topk":
        return None
    kwargs = config.get("activation_fn_kwargs")
    value = config.get("k", kwargs.get("k") if isinstance(kwargs, dict) else None)
    return positive({"k": value}, "k", where)


class _Scaling(NamedTuple):
    """What is done to activations before they are encoded."""

    normalise: Normalise = "none"
    factor: float = 1.0
    unavailable: str | None = None
    notes: tuple[str, ...] = ()


def _scaling(config: dict[str, Any], scaler: dict[str, Any], file: PurePath) -> _Scaling:
    setting = str(config.get("normalize_activations"))
    name = {"None": "none", "False": "none", "True": "expected_average_only_in"}.get(
        setting, setting
    )
    name = published_normalisation(file) or name
    if name == "covariance_whitening" or scaler.get("has_whitening"):
        reason = "the encoder sees whitened activations, and the whitening is not folded in"
        return _Scaling(unavailable=reason, notes=(WHITENED,))
    if name not in NORMALISE:
        return _Scaling(unavailable=f"activations are normalised by {name!r}, which is not known")
    if name == "expected_average_only_in":
        factor = finite(scaler.get("scaling_factor")) or published_scale(file)
        if factor is not None and factor > 0:
            return _Scaling(factor=factor)
        return _Scaling(notes=(EXPECTS_SCALED,))
    return _Scaling(NORMALISE[name])


def _scale_rows(config: dict[str, Any], tensors: dict[str, Stored]) -> str | None:
    """Multiply decoder rows by the scales that fine-tuning gave the codes, where it gave any.

    Returns why that is not certain, or None.
    """
    name = next((n for n in ("finetuning_scaling_factor", "scaling_factor") if n in tensors), None)
    rows = tensors.get("W_dec")
    if name is None or rows is None:
        return None
    scales = tensors.pop(name).load()
    if bool((scales == 1).all()):
        return None
    if tuple(scales.shape) != rows.shape[:1]:
        return f"{name} has shape {list(scales.shape)} where {list(rows.shape[:1])} belongs"
    if not config.get("finetuning_scaling_factor"):
        return "scaling_factor is not one, but cfg.json does not say that it is used"

    def scaled() -> Tensor:
        return rows.load() * scales[:, None]

    tensors["W_dec"] = Stored(rows.shape, rows.dtype, scaled)
    return None


def _number(config: dict[str, Any], key: str, default: float, where: str) -> float:
    return number_of(config, key, where) if config.get(key) else default


def _transposed(stored: Stored) -> Stored:
    return Stored(stored.shape[::-1], stored.dtype, lambda: stored.load().T)
