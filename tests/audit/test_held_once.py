"""Whatever is asked of a dictionary, no second one is made of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import saeaudit
from saeaudit.audit.codes import Coder
from saeaudit.audit.mediators.inputs import MediatorInputs
from saeaudit.audit.mediators.options import MediatorOptions
from saeaudit.audit.mediators.run import mediators
from saeaudit.core import rows
from saeaudit.core.budget import Budget, Size
from saeaudit.core.codes import encode

COUNT, WIDTH = 1000, 160
SMALL = Budget(
    exact_bytes=Size(1 << 16, 1 << 16), stored_bytes=1 << 16, columns=Size(200, 200),
    swap_cells=Size(1 << 12, 1 << 12), marked_bytes=Size(1 << 16, 1 << 16),
    system_bytes=Size(1 << 16, 1 << 16), solved_cells=1 << 13,
)  # fmt: skip


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made, in bytes; views make none."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        before = {
            leaf.untyped_storage().data_ptr()
            for leaf in tree_leaves((arguments, keywords))
            if isinstance(leaf, torch.Tensor)
        }
        out = operation(*arguments, **(keywords or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                storage = leaf.untyped_storage()
                if storage.data_ptr() not in before:
                    self.bytes = max(self.bytes, storage.nbytes())
        return out


def dictionary(architecture: str) -> saeaudit.Dictionary:
    rng = np.random.default_rng(0)
    decoder = torch.from_numpy(rng.normal(size=(COUNT, WIDTH))).float()
    decoder /= decoder.norm(dim=1, keepdim=True)
    return saeaudit.Dictionary.from_rows(
        decoder, encoder=lambda: decoder.T, architecture=architecture, k=4,
        b_enc=torch.zeros(COUNT), threshold=torch.full((COUNT,), 0.9),
        b_gate=torch.full((COUNT,), -0.9), b_mag=torch.zeros(COUNT), r_mag=torch.zeros(COUNT),
        norm_scaled=architecture in ("topk", "jumprelu"),
    )  # fmt: skip


@pytest.mark.parametrize("architecture", ["topk", "gated", "matching_pursuit", "nnomp"])
def test_no_copy_of_a_dictionary_is_made(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (encode, rows):
        monkeypatch.setattr(module, "DEFAULT", SMALL)
    sae = dictionary(architecture)
    rng = np.random.default_rng(1)
    codes = 1 + torch.from_numpy(rng.exponential(size=(3, 4))).float()
    places = torch.from_numpy(np.stack([rng.permutation(COUNT)[:4] for _ in range(3)]))
    x = (codes[:, :, None] * sae.weights.decoder[places]).sum(1)
    x += 0.01 * torch.from_numpy(rng.normal(size=x.shape)).float()
    inputs = MediatorInputs(activations=x, codes={"omp": None})
    options = MediatorOptions(budget=SMALL, epsilons=(0.01,), max_alternatives=1)
    with Largest() as largest:
        records = list(mediators(sae, inputs, options))
        coder = Coder(sae, "cpu", SMALL)
        coder.encoder.decode(coder.encoder.codes(x.double()), x.double())
    assert [record.type for record in records].count("token") >= 2
    assert coder.units.rows.data_ptr() == sae.weights.decoder.data_ptr()
    assert largest.bytes < COUNT * WIDTH * 4, "a copy of the decoder in float32"
