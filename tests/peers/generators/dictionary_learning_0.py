"""dictionary_learning: every class, saved by its own training loop, final and as checkpoints."""

from __future__ import annotations

import itertools
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from cases import Cases, D, F, K, activations
from dictionary_learning import dictionary
from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k
from dictionary_learning.trainers.batch_top_k import BatchTopKTrainer
from dictionary_learning.trainers.gated_anneal import GatedAnnealTrainer
from dictionary_learning.trainers.gdm import GatedSAETrainer
from dictionary_learning.trainers.jumprelu import JumpReluTrainer
from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKTrainer
from dictionary_learning.trainers.p_anneal import PAnnealTrainer
from dictionary_learning.trainers.standard import StandardTrainer, StandardTrainerAprilUpdate
from dictionary_learning.trainers.top_k import TopKTrainer
from dictionary_learning.training import trainSAE

warnings.filterwarnings("ignore")
cases = Cases(f"dictionary-learning {version('dictionary-learning')}")
STEPS = 12
shared = {
    "steps": STEPS, "activation_dim": D, "dict_size": F, "layer": 0, "lm_name": "m",
    "device": "cpu",
}  # fmt: skip
anneal = {"warmup_steps": 2, "sparsity_warmup_steps": 4}
flat = {"k": K, "warmup_steps": 2, "threshold_start_step": 3}
TRAINERS: dict[str, tuple[type, dict[str, Any], type]] = {
    "StandardTrainer": (StandardTrainer, anneal, dictionary.AutoEncoder),
    "StandardTrainerAprilUpdate": (StandardTrainerAprilUpdate, anneal, dictionary.AutoEncoder),
    "PAnnealTrainer": (PAnnealTrainer, anneal, dictionary.AutoEncoder),
    "GatedSAETrainer": (GatedSAETrainer, anneal, dictionary.GatedAutoEncoder),
    "GatedAnnealTrainer": (GatedAnnealTrainer, anneal, dictionary.GatedAutoEncoder),
    "JumpReluTrainer": (JumpReluTrainer, anneal, dictionary.JumpReluAutoEncoder),
    "TopKTrainer": (TopKTrainer, flat, top_k.AutoEncoderTopK),
    "BatchTopKTrainer": (BatchTopKTrainer, flat, batch_top_k.BatchTopKSAE),
    "MatryoshkaBatchTopKTrainer": (
        MatryoshkaBatchTopKTrainer, {**flat, "group_fractions": [0.5, 0.5]},
        matryoshka_batch_top_k.MatryoshkaBatchTopKSAE,
    ),
}  # fmt: skip


class Batches:
    """Batches for ever, with the configuration that the library copies."""

    config = {"d_submodule": D, "io": "out"}

    def __iter__(self) -> Any:
        return (activations(seed=n) for n in itertools.count(10))

    def __len__(self) -> int:
        return STEPS


def add(name: str, file: Path, model: type, **options: Any) -> None:
    state = torch.load(file, weights_only=True)
    if model in (dictionary.AutoEncoder, dictionary.AutoEncoderNew, dictionary.GatedAutoEncoder,
                 dictionary.JumpReluAutoEncoder):  # fmt: skip
        sae = model(D, F)
    elif model is matryoshka_batch_top_k.MatryoshkaBatchTopKSAE:
        sae = model(D, F, K, state["group_sizes"].tolist())
    else:
        sae = model(D, F, K)
    sae.load_state_dict(state)
    sae = sae.double().eval()
    x = activations()
    with torch.no_grad():
        codes = sae.encode(x.double())
        decoded = sae.decode(codes)
    linear = hasattr(sae, "decoder")
    decoder = sae.decoder.weight.T if linear else sae.W_dec
    encoder = sae.encoder.weight.T if linear else sae.W_enc
    cases.add(name, file, decoder, x=x, codes=codes, decoded=decoded, encoder=encoder,
              dict_class=model.__name__, **options)  # fmt: skip


def main() -> None:
    for (name, (trainer, options, model)), normalised in itertools.product(
        TRAINERS.items(), (True, False)
    ):
        label = f"{name}{' normalised' * normalised}"
        folder = cases.folder(label)
        config = {"trainer": trainer, **shared, **options, "seed": 0}
        trainSAE(
            Batches(), [config], STEPS, save_steps=[6], save_dir=str(folder), log_steps=100,
            normalize_activations=normalised, device="cpu", autocast_dtype=torch.float32,
        )  # fmt: skip
        add(label, folder / "trainer_0/ae.pt", model, trainer=name, normalised=normalised)
        add(f"{label} checkpoint", folder / "trainer_0/checkpoints/ae_6.pt", model, trainer=name,
            normalised=normalised)  # fmt: skip


def untrained_class() -> None:
    """AutoEncoderNew has no trainer that names it: April's trainer writes "AutoEncoder"."""
    folder = cases.folder("AutoEncoderNew under April's trainer")
    config = {"trainer": StandardTrainerAprilUpdate, **shared, **anneal, "seed": 0,
              "dict_class": dictionary.AutoEncoderNew}  # fmt: skip
    trainSAE(Batches(), [config], STEPS, save_steps=[6], save_dir=str(folder), log_steps=100,
             device="cpu")  # fmt: skip
    add("AutoEncoderNew", folder / "trainer_0/ae.pt", dictionary.AutoEncoderNew)
    add("AutoEncoderNew checkpoint", folder / "trainer_0/checkpoints/ae_6.pt",
        dictionary.AutoEncoderNew)  # fmt: skip


main()
untrained_class()
