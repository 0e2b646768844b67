"""dictionary_learning and SAEBench: ``ae.pt`` + ``config.json``, folders ``…/trainer_N``."""

from __future__ import annotations

from pathlib import Path, PurePath
from typing import Any

from saeaudit.dictionary import Architecture
from saeaudit.errors import WeightsError
from saeaudit.untrusted import whole
from saeaudit.weights.assemble import LINEAR, Names, assemble, positive, scalar
from saeaudit.weights.interface import Loaded, Present
from saeaudit.weights.tensors import Stored, read_json, read_tensors

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


class DictionaryLearning:
    """nn.Linear classes store decoder.weight [d, F]; Matryoshka and JumpReLU store W_dec [F, d]."""

    name = "dictionary_learning"

    def claims(self, file: PurePath, present: Present) -> bool:
        """Whether the file is ae.pt (or a checkpoint ae_N.pt) with a config.json beside it."""
        return file.name == "ae.pt" and present(file.parent / "config.json")

    def beside(self, file: PurePath) -> tuple[PurePath, ...]:
        """Its configuration."""
        return (file.parent / "config.json",)

    def home(self, file: PurePath) -> PurePath:
        """Its folder."""
        return file.parent

    def read(self, file: Path) -> Loaded:
        """Read the weights; config.json names the class, which the tensors must bear out."""
        config_file = file.parent / "config.json"
        where = str(config_file)
        trainer = read_json(config_file).get("trainer")
        if not isinstance(trainer, dict):
            raise WeightsError("no trainer section; not a dictionary_learning SAE", where=where)
        tensors, scalars = read_tensors(file)
        name = str(trainer.get("dict_class") or _guess(tensors))
        if name not in CLASSES:
            raise WeightsError(
                f"unknown dict_class {name!r}", where=where, hint=f"known: {', '.join(CLASSES)}"
            )
        architecture, centres = CLASSES[name]
        linear = "W_dec" not in tensors
        if architecture == "topk":  # its stored threshold is not used for encoding
            tensors.pop("threshold", None)
        k = scalar(tensors, "k") or scalars.get("k") or trainer.get("k")
        weights = assemble(
            self.name,
            str(file),
            tensors,
            LINEAR if linear else Names(),
            architecture,
            features_last=linear,
            features=positive(trainer, "dict_size", where),
            width=positive(trainer, "activation_dim", where),
            subtract_b_dec=centres,
            k=whole(k),
        )
        return Loaded(weights, (file, config_file))


def _guess(tensors: dict[str, Stored]) -> Any:
    if "gate_bias" in tensors:
        return "GatedAutoEncoder"
    if "W_dec" in tensors:
        return "MatryoshkaBatchTopKSAE" if "k" in tensors else "JumpReluAutoEncoder"
    if "k" in tensors:
        return "BatchTopKSAE" if "threshold" in tensors else "AutoEncoderTopK"
    return "AutoEncoder" if "bias" in tensors else "AutoEncoderNew"
