"""dictionary_learning and SAEBench: ``trainer_N/ae.pt`` + ``config.json``, and its checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from types import MappingProxyType
from typing import Any

from saeaudit.dictionary import Architecture, Weights
from saeaudit.errors import WeightsError
from saeaudit.site import Site
from saeaudit.untrusted import whole
from saeaudit.weights.assemble import LINEAR, Names, assemble, positive, scalar, stored_count
from saeaudit.weights.hooks import RESIDUAL, counted, named
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.orient import Layout
from saeaudit.weights.tensors import Contents, Tensors, read_json

CLASSES: dict[str, tuple[Architecture, bool]] = {
    "AutoEncoder": ("standard", True),
    "AutoEncoderNew": ("standard", False),
    "GatedAutoEncoder": ("gated", True),
    "JumpReluAutoEncoder": ("jumprelu", False),
    "AutoEncoderTopK": ("topk", True),
    "BatchTopKSAE": ("batchtopk", True),
    "MatryoshkaBatchTopKSAE": ("batchtopk", True),
}
"""dict_class → the encoder's formula, and whether it subtracts the decoder bias."""

_LINEAR = {"encoder.weight", "encoder.bias", "decoder.weight"}
_TOPK = _LINEAR | {"b_dec", "k", "threshold"}
_MATRICES = {"W_enc", "b_enc", "W_dec", "b_dec", "threshold"}
TENSORS: dict[str, set[str]] = {
    "AutoEncoder": _LINEAR | {"bias"},
    "AutoEncoderNew": _LINEAR | {"decoder.bias"},
    "GatedAutoEncoder": (_LINEAR - {"encoder.bias"})
    | {"decoder_bias", "r_mag", "gate_bias", "mag_bias"},
    "JumpReluAutoEncoder": _MATRICES,
    "AutoEncoderTopK": _TOPK,
    "BatchTopKSAE": _TOPK,
    "MatryoshkaBatchTopKSAE": _MATRICES | {"k", "group_sizes"},
}
"""dict_class → the tensors that it saves. AutoEncoderTopK and BatchTopKSAE save the same."""

UNMISTAKABLE = ("AutoEncoder", "GatedAutoEncoder", "BatchTopKSAE", "MatryoshkaBatchTopKSAE")
"""Classes whose tensors no other library saves under these names."""


class DictionaryLearning:
    """nn.Linear classes store decoder.weight [d, F]; Matryoshka and JumpReLU store W_dec [F, d]."""

    name = "dictionary_learning"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is ae.pt, or a checkpoint ae_STEP.pt, of a config.json."""
        known = file.name == "ae.pt" or _is_checkpoint(file)
        return known and present(_config_file(file))

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration."""
        return (_config_file(file),)

    def home(self, file: PurePath) -> PurePath:
        """Its folder; a checkpoint's file, because its folder holds several."""
        return file if _is_checkpoint(file) else file.parent

    def read(self, file: Path, contents: Contents) -> Loaded:
        """Read the weights; config.json names the class, which the tensors must bear out."""
        config_file = Path(_config_file(file))
        where = str(config_file)
        config = read_json(config_file)
        trainer = config.get("trainer")
        if not isinstance(trainer, dict):
            raise WeightsError("no trainer section; not a dictionary_learning SAE", where=where)
        tensors = contents.tensors
        dict_class = trainer.get("dict_class")
        name = None if dict_class is None else str(dict_class)
        if name is not None and name not in CLASSES:
            raise WeightsError(
                f"unknown dict_class {name!r}", where=where, hint=f"known: {', '.join(CLASSES)}"
            )
        saved = _class_of(tensors)
        notes: tuple[str, ...] = ()
        if saved is not None and name is not None and TENSORS[name] != TENSORS[saved]:
            notes = (f"config.json says {name}, the tensors are those of {saved}: read as such",)
            name = saved
        name = name or saved or _guess(tensors)
        weights = build(name, tensors, str(file), contents.scalars.get("k"), trainer, notes)
        return Loaded(replace(weights, site=_site(config, trainer)), (file, config_file))


def recognise(tensors: Tensors) -> str | None:
    """The class that saved a state dictionary, where its tensors are those of no other library.

    Of the two that save the same, BatchTopKSAE has a threshold, -1 where none was ever measured.
    """
    saved = _class_of(tensors)
    if saved == "BatchTopKSAE" and (scalar(tensors, "threshold") or 0) < 0:
        return "AutoEncoderTopK"
    return saved if saved in UNMISTAKABLE else None


def build(
    name: str, tensors: Tensors, where: str, k: Any = None,
    trainer: Mapping[str, Any] = MappingProxyType({}), notes: tuple[str, ...] = (),
) -> Weights:  # fmt: skip
    """Assemble an SAE of one of `CLASSES`.

    Args:
        name: the class.
        tensors: of its state dictionary.
        where: the file, for messages.
        k: where the file has it as a number rather than a tensor.
        trainer: the configuration's section, where there is one.
        notes: as in `Weights`.

    Raises:
        WeightsError: tensors that contradict each other or the configuration.
    """
    architecture, centres = CLASSES[name]
    linear = "W_dec" not in tensors
    if architecture == "topk":  # its stored threshold is not used for encoding
        tensors = {key: stored for key, stored in tensors.items() if key != "threshold"}
    if name == "BatchTopKSAE" and not trainer:
        notes += ("assumed: BatchTopKSAE, whose tensors AutoEncoderTopK has too",)
    active = stored_count(tensors, "k", where) or k or trainer.get("k")
    return assemble(
        DictionaryLearning.name,
        where,
        tensors,
        LINEAR if linear else Names(),
        architecture,
        Layout(
            features=positive(trainer, "dict_size", where),
            width=positive(trainer, "activation_dim", where),
            features_last=linear,
        ),
        subtract_b_dec=centres,
        k=positive({"k": active}, "k", where),
        notes=notes,
    )


def _site(config: Mapping[str, Any], trainer: Mapping[str, Any]) -> Site:
    """The residual stream of a layer, unless another module is named; no file tells of a BOS."""
    buffer = config.get("buffer")
    buffer = buffer if isinstance(buffer, dict) else {}
    module, layer = named(trainer, "submodule_name") or "resid_post", whole(trainer.get("layer"))
    residual = module.startswith("resid_post") and buffer.get("io", "out") == "out"
    return Site(
        model=named(trainer, "lm_name"),
        hook=RESIDUAL.format(layer) if residual and layer is not None else None,
        context=counted(buffer, "ctx_len"),
    )


def _is_checkpoint(file: PurePath) -> bool:
    return file.parent.name == "checkpoints" and bool(re.fullmatch(r"ae_\d+\.pt", file.name))


def _config_file(file: PurePath) -> PurePath:
    folder = file.parent.parent if _is_checkpoint(file) else file.parent
    return folder / "config.json"


def _class_of(tensors: Tensors) -> str | None:
    """The class whose tensors these are, exactly; of two, the one that uses all of them."""
    fitting = [name for name, names in TENSORS.items() if names == set(tensors)]
    return fitting[-1] if fitting else None


def _guess(tensors: Tensors) -> str:
    if "gate_bias" in tensors:
        return "GatedAutoEncoder"
    if "W_dec" in tensors:
        return "MatryoshkaBatchTopKSAE" if "k" in tensors else "JumpReluAutoEncoder"
    if "k" in tensors:
        return "BatchTopKSAE" if "threshold" in tensors else "AutoEncoderTopK"
    return "AutoEncoder" if "bias" in tensors else "AutoEncoderNew"
