"""overcomplete: every SAE and dictionary. `assume` is what its files leave open."""

from __future__ import annotations

import sys
import warnings
from importlib.metadata import version
from typing import Any
from unittest.mock import MagicMock

import torch
from cases import Cases, D, F, K, activations, train

# Its other half draws pictures; no SAE needs these, and torchvision fits few torches.
for name in ("torchvision", "cv2", "skimage", "PIL", "matplotlib", "matplotlib.pyplot",
             "matplotlib.colors"):  # fmt: skip
    sys.modules.setdefault(name, MagicMock())

from overcomplete import sae as library  # noqa: E402

warnings.filterwarnings("ignore")
cases = Cases(f"overcomplete {version('overcomplete')}")


def add(label: str, model: Any, **options: Any) -> None:
    model.train()
    train(model, lambda x: (model(x)[2] - x).square().mean())
    with torch.no_grad():
        model(activations())
    model.eval()  # folds the normalisation and the multiplier into the dictionary
    file = cases.folder(label) / "sae.pt"
    torch.save(model.state_dict(), file)
    x = activations()
    with torch.no_grad():
        _, codes, decoded = model(x)
    cases.add(
        label,
        file,
        model.get_dictionary(),
        x=x,
        codes=codes,
        decoded=decoded,
        architecture=label.split()[0],
        **options,
    )


def main() -> None:
    add("SAE", library.SAE(D, F), assume="relu")
    for norm in ("l2", "max_l2", "l1", "identity"):
        add(f"SAE {norm}", library.SAE(D, F, dictionary_params={"normalization": norm}), norm=norm,
            assume="relu")  # fmt: skip
    add("SAE multiplier", library.SAE(D, F, dictionary_params={"use_multiplier": True}),
        assume="relu")  # fmt: skip
    add("SAE mlp", library.SAE(D, F, encoder_module="mlp_ln_3"), network="mlp_ln_3")
    add("SAE tied", library.SAE(D, F).tied(), network="tied", assume="relu")
    add("SAE tied bias", library.SAE(D, F).tied(bias=True), network="tied", assume="relu")
    add("SAE untied", library.SAE(D, F).untied(bias=True), network="untied", assume="relu")
    add("TopKSAE", library.TopKSAE(D, F, top_k=K), assume=f"topk={K}")
    add("TopKSAE untied", library.TopKSAE(D, F, top_k=K).untied(bias=True), network="untied",
        assume=f"topk={K}")  # fmt: skip
    add("BatchTopKSAE", library.BatchTopKSAE(D, F, top_k=K * 96))
    add("JumpSAE", library.JumpSAE(D, F))
    add("QSAE", library.QSAE(D, F))
    add("MpSAE", library.MpSAE(D, F, k=K), assume=f"pursuit={K}")
    add("OMPSAE", library.OMPSAE(D, F, k=3))
    points = activations(seed=7)
    add("RATopKSAE", library.RATopKSAE(D, F, points=points, top_k=K), assume=f"topk={K}")
    add("RAJumpSAE", library.RAJumpSAE(D, F, points=points, delta=0.5))


main()
