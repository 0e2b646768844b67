"""Files written by the families' own libraries, read by saeaudit: ``make peer-test``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import saeaudit
from saeaudit.audit.codes import make_encoder

pytestmark = pytest.mark.filterwarnings("default")
D, F, K = 16, 48, 5


def randomise(model: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.is_floating_point():
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)
            if "threshold" in name:
                parameter.abs_()


def activations() -> torch.Tensor:
    return torch.randn(64, D, generator=torch.Generator().manual_seed(1))


def compare(
    folder: Path, family: str, codes: torch.Tensor, decoded: torch.Tensor, rows: Any
) -> None:
    dictionary = saeaudit.open(folder)
    assert dictionary.weights.format == family
    assert torch.equal(dictionary.weights.decoder.float(), rows)
    encoder = make_encoder(dictionary)
    mine = encoder.codes(activations())
    assert (mine > 0).any() and (mine == 0).any()
    assert float((mine - codes).abs().max()) < 1e-5
    assert float((encoder.decode(mine, activations()) - decoded).abs().max()) < 1e-5


@pytest.mark.parametrize("name", ("standard", "jumprelu", "topk", "gated"))
@pytest.mark.parametrize("centred", (True, False))
def test_sae_lens(name: str, centred: bool, tmp_path: Path) -> None:
    lens = pytest.importorskip("sae_lens", reason="sae-lens is not installed")
    from sae_lens.saes import gated_sae, jumprelu_sae, standard_sae, topk_sae

    config, model = {
        "standard": (standard_sae.StandardSAEConfig, standard_sae.StandardSAE),
        "jumprelu": (jumprelu_sae.JumpReLUSAEConfig, jumprelu_sae.JumpReLUSAE),
        "topk": (topk_sae.TopKSAEConfig, topk_sae.TopKSAE),
        "gated": (gated_sae.GatedSAEConfig, gated_sae.GatedSAE),
    }[name]
    extra = {"k": K, "rescale_acts_by_decoder_norm": False} if name == "topk" else {}
    sae = model(config(d_in=D, d_sae=F, apply_b_dec_to_input=centred, **extra))
    randomise(sae)
    sae.save_model(tmp_path)
    again = lens.SAE.load_from_disk(tmp_path)
    with torch.no_grad():
        codes = again.encode(activations())
        decoded = again.decode(codes)
    codes = codes.to_dense() if codes.is_sparse else codes
    compare(tmp_path, "saelens", codes, decoded, again.W_dec.detach())


def learned() -> dict[str, Any]:
    pytest.importorskip("dictionary_learning", reason="dictionary-learning is not installed")
    from dictionary_learning import dictionary
    from dictionary_learning.trainers import batch_top_k, matryoshka_batch_top_k, top_k

    return {
        "AutoEncoder": lambda: dictionary.AutoEncoder(D, F),
        "AutoEncoderNew": lambda: dictionary.AutoEncoderNew(D, F),
        "GatedAutoEncoder": lambda: dictionary.GatedAutoEncoder(D, F),
        "JumpReluAutoEncoder": lambda: dictionary.JumpReluAutoEncoder(D, F),
        "AutoEncoderTopK": lambda: top_k.AutoEncoderTopK(D, F, K),
        "BatchTopKSAE": lambda: batch_top_k.BatchTopKSAE(D, F, K),
        "MatryoshkaBatchTopKSAE": lambda: matryoshka_batch_top_k.MatryoshkaBatchTopKSAE(
            D, F, K, [F // 2, F // 2]
        ),
    }


@pytest.mark.parametrize(
    "name",
    ("AutoEncoder", "AutoEncoderNew", "GatedAutoEncoder", "JumpReluAutoEncoder",
     "AutoEncoderTopK", "BatchTopKSAE", "MatryoshkaBatchTopKSAE"),
)  # fmt: skip
def test_dictionary_learning(name: str, tmp_path: Path) -> None:
    model = learned()[name]()
    randomise(model)
    if "threshold" in dict(model.named_buffers()) and "TopK" in name:
        model.threshold.fill_(0.3)
    torch.save(model.state_dict(), tmp_path / "ae.pt")
    trainer = {"dict_class": name, "activation_dim": D, "dict_size": F, "k": K}
    (tmp_path / "config.json").write_text(json.dumps({"trainer": trainer, "buffer": {}}))
    with torch.no_grad():
        codes = model.encode(activations())
        decoded = model.decode(codes)
    linear = not hasattr(model, "W_dec")
    rows = model.decoder.weight.T if linear else model.W_dec
    compare(tmp_path, "dictionary_learning", codes, decoded, rows.detach())


def test_sparsify(tmp_path: Path) -> None:
    pytest.importorskip("sparsify", reason="eai-sparsify is not installed")
    from sparsify import SparseCoder
    from sparsify.config import SparseCoderConfig

    model = SparseCoder(D, SparseCoderConfig(num_latents=F, k=K), device="cpu")
    randomise(model)
    model.save_to_disk(tmp_path)
    with torch.no_grad():
        encoded = model.encode(activations())
        values, indices = encoded[0], encoded[1]
        codes = torch.zeros(64, F).scatter_(1, indices, values)
    decoded = codes @ model.W_dec.detach() + model.b_dec.detach()
    compare(tmp_path, "sparsify", codes, decoded, model.W_dec.detach())
