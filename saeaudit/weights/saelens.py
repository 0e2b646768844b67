"""SAELens: ``cfg.json`` + ``sae_weights.safetensors``, as written before and after version 6.0."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from saeaudit.dictionary import Architecture, Weights
from saeaudit.errors import WeightsError
from saeaudit.weights.interface import Loaded
from saeaudit.weights.orient import orient
from saeaudit.weights.tensors import Stored, read_json, read_tensors

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


class SaeLens:
    """W_dec [F, d], W_enc [d, F]; cfg.json is flat before 6.0 and has `metadata` from 6.0 on."""

    name = "saelens"

    def claims(self, file: Path) -> bool:
        """Whether the file is sae_weights.safetensors with a cfg.json beside it."""
        return file.name == "sae_weights.safetensors" and (file.parent / "cfg.json").is_file()

    def read(self, file: Path) -> Loaded:
        """Read the weights, taking d_in and d_sae from cfg.json as the arbiter of orientation."""
        config_file = file.parent / "cfg.json"
        config = read_json(config_file)
        tensors, _ = read_tensors(file)
        decoder = tensors.get("W_dec")
        if decoder is None:
            raise WeightsError(
                f"no W_dec; it has {', '.join(sorted(tensors)) or 'nothing'}", where=str(file)
            )
        where = str(file)
        oriented = orient(
            decoder,
            tensors.get("W_enc"),
            features_last=False,
            feature_length=_width(config, "d_sae", config_file),
            width_length=_width(config, "d_out", config_file)
            or _width(config, "d_in", config_file),
            name="W_dec",
            where=where,
        )
        architecture = _architecture(config, config_file)
        if oriented.encoder is None:
            architecture = "decoder-only"
        weights = Weights(
            format=self.name,
            decoder=oriented.decoder(),
            architecture=architecture,
            encoder=oriented.encoder,
            b_enc=_load(tensors, "b_enc"),
            b_dec=_load(tensors, "b_dec"),
            threshold=_load(tensors, "threshold"),
            subtract_b_dec=_centres(config),
            k=_k(config),
            notes=_notes(config),
        )
        return Loaded(weights, (file, config_file))


def _load(tensors: dict[str, Stored], name: str) -> Any:
    return tensors[name].load() if name in tensors else None


def _width(config: dict[str, Any], key: str, file: Path) -> int | None:
    value = config.get(key)
    if value is None and key == "d_sae" and "expansion_factor" in config:
        value = config.get("d_in", 0) * config["expansion_factor"]
    if value is None:
        return None
    if not isinstance(value, (int, float)) or value != int(value) or value < 1:
        raise WeightsError(
            f"{key} is {value!r}; a positive whole number was expected", where=str(file)
        )
    return int(value)


def _before_6(config: dict[str, Any]) -> bool:
    metadata = config.get("metadata")
    version = config.get("sae_lens_version") or (
        metadata.get("sae_lens_version") if isinstance(metadata, dict) else None
    )
    return (
        not str(version or "0").split(".")[0].isdigit()
        or int(str(version or "0").split(".")[0]) < 6
    )


def _architecture(config: dict[str, Any], file: Path) -> Architecture:
    name = config.get("architecture") or "standard"
    if name == "standard" and _activation(config) == "topk":
        name = "topk"
    if name not in ARCHITECTURES:
        raise WeightsError(
            f"unknown architecture {name!r}",
            where=str(file),
            hint=f"known: {', '.join(sorted(ARCHITECTURES))}",
        )
    return ARCHITECTURES[name]


def _activation(config: dict[str, Any]) -> str:
    return str(config.get("activation_fn") or config.get("activation_fn_str") or "relu")


def _k(config: dict[str, Any]) -> int | None:
    kwargs = config.get("activation_fn_kwargs")
    value = config.get("k", kwargs.get("k") if isinstance(kwargs, dict) else None)
    return int(value) if isinstance(value, (int, float)) else None


def _centres(config: dict[str, Any]) -> bool:
    return bool(config.get("apply_b_dec_to_input", _before_6(config)))


def _notes(config: dict[str, Any]) -> tuple[str, ...]:
    scaling = config.get("normalize_activations")
    if scaling in (None, False, "none"):
        return ()
    return (f"activations are normalised before encoding: {scaling}",)
