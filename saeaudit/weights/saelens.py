"""SAELens: ``cfg.json`` + ``sae_weights.safetensors``, as written before and after version 6.0."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from saeaudit.dictionary import Architecture, Normalise
from saeaudit.errors import WeightsError
from saeaudit.untrusted import whole
from saeaudit.weights.assemble import Names, assemble, multiplied, positive
from saeaudit.weights.gemma_scope import ELSEWHERE
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.tensors import read_json, read_tensors

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
}
"""Its architecture names, and which encoder formula each one means."""

NORMALISE: dict[str, Normalise] = {
    "none": "none",
    "expected_average_only_in": "none",
    "constant_norm_rescale": "constant_norm",
    "layer_norm": "layer_norm",
}


class SaeLens:
    """W_dec [F, d], W_enc [d, F]; cfg.json is flat before 6.0 and has `metadata` from 6.0 on."""

    name = "saelens"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is sae_weights.safetensors with a cfg.json beside it."""
        return file.name == "sae_weights.safetensors" and present(file.parent / "cfg.json")

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration."""
        return (file.parent / "cfg.json",)

    def home(self, file: PurePath) -> PurePath:
        """Its folder."""
        return file.parent

    def read(self, file: Path) -> Loaded:
        """Read the weights, taking d_in and d_sae from cfg.json as the arbiter of orientation."""
        config_file = file.parent / "cfg.json"
        config, where = read_json(config_file), str(config_file)
        tensors, _ = read_tensors(file)
        name = _architecture_name(config, where)
        elsewhere = "transcoder" in name
        normalise, notes = _normalise(config, where)
        if elsewhere:
            notes += (ELSEWHERE,)
        weights = assemble(
            self.name,
            str(file),
            tensors,
            Names(threshold=("threshold", "topk_threshold")),
            ARCHITECTURES[name],
            features=_features(config, where),
            width=positive(config, "d_out", where) or positive(config, "d_in", where),
            maps_elsewhere=elsewhere,
            subtract_b_dec=bool(config.get("apply_b_dec_to_input", _before_6(config)))
            and not elsewhere,
            k=_k(config),
            norm_scaled=bool(config.get("rescale_acts_by_decoder_norm", False)),
            normalise=normalise,
            notes=notes,
        )
        return Loaded(weights, (file, config_file))


def _features(config: dict[str, Any], where: str) -> int | None:
    return positive(config, "d_sae", where) or multiplied(config, "d_in", where)


def _before_6(config: dict[str, Any]) -> bool:
    metadata = config.get("metadata")
    version = config.get("sae_lens_version") or (
        metadata.get("sae_lens_version") if isinstance(metadata, dict) else None
    )
    major = str(version or "0").split(".")[0]
    return not major.isdigit() or int(major) < 6


def _architecture_name(config: dict[str, Any], where: str) -> str:
    name = str(config.get("architecture") or "standard")
    activation = config.get("activation_fn") or config.get("activation_fn_str")
    if name == "standard" and activation == "topk":
        name = "topk"
    if name not in ARCHITECTURES:
        raise WeightsError(
            f"unknown architecture {name!r}",
            where=where,
            hint=f"known: {', '.join(sorted(ARCHITECTURES))}",
        )
    return name


def _k(config: dict[str, Any]) -> int | None:
    kwargs = config.get("activation_fn_kwargs")
    return whole(config.get("k", kwargs.get("k") if isinstance(kwargs, dict) else None))


def _normalise(config: dict[str, Any], where: str) -> tuple[Normalise, tuple[str, ...]]:
    """How activations are normalised, and what a user should know about it."""
    given = config.get("normalize_activations")
    name = {"None": "none", "False": "none", "True": "expected_average_only_in"}.get(
        str(given), str(given)
    )
    if name not in NORMALISE:
        return "none", (f"activations were normalised by {name!r}: codes cannot be computed",)
    if name == "expected_average_only_in":
        return "none", ("the encoder expects activations scaled to a mean norm of sqrt(d)",)
    return NORMALISE[name], ()
