"""EleutherAI sparsify: every option of its configuration, and `signed` as its first versions."""

from __future__ import annotations

import itertools
import json
import os
import warnings
from importlib.metadata import version
from pathlib import Path

import torch
from cases import Cases, D, F, K, activations, train

os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # which is used wherever it is installed, GPU or not
from sparsify import SparseCoder
from sparsify.config import SparseCoderConfig

warnings.filterwarnings("ignore")
cases = Cases(f"eai-sparsify {version('eai-sparsify')}")
GROUPS = 6  # groupmax takes the largest of each of k groups; 6 divides F


def add(name: str, folder: Path, **options: object) -> None:
    sae = SparseCoder.load_from_disk(folder).double().eval()
    x = activations()
    with torch.no_grad():
        values, indices, _ = sae.encode(x.double())
        codes = torch.zeros(len(x), F, dtype=torch.float64).scatter_(1, indices, values)
        # forward() would return the wider sum that multi_topk trains with.
        decoded = sae.decode(values, indices)
        if sae.W_skip is not None:
            decoded = decoded + x.double() @ sae.W_skip.mT
    cases.add(name, folder, sae.W_dec, x=x, codes=codes, decoded=decoded,
              encoder=sae.encoder.weight.T, **options)  # fmt: skip


def main() -> None:
    for activation, transcode, skip, normalise, multi in itertools.product(
        ("topk", "groupmax"), (False, True), (False, True), (True, False), (False, True)
    ):
        k = GROUPS if activation == "groupmax" else K
        config = SparseCoderConfig(
            activation=activation, k=k, num_latents=0 if multi else F, expansion_factor=F // D,
            transcode=transcode, skip_connection=skip, normalize_decoder=normalise,
            multi_topk=multi,
        )  # fmt: skip
        sae = SparseCoder(D, config)
        target = torch.randn(D, D, generator=torch.Generator().manual_seed(5)) / 4
        if not transcode:
            target = torch.eye(D)
        train(sae, lambda x, sae=sae, target=target: sae(x, x @ target).fvu)
        if normalise:
            sae.set_decoder_norm_to_unit_norm()
        label = (f"{activation}{' transcode' * transcode}{' skip' * skip}"
                 f"{' normalised' * normalise}{' multi' * multi}")  # fmt: skip
        folder = cases.folder(label)
        sae.save_to_disk(folder)
        add(label, folder, activation=activation, transcode=transcode, skip=skip,
            normalise=normalise, multi_topk=multi)  # fmt: skip


def dtypes() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float64):
        sae = SparseCoder(D, SparseCoderConfig(k=K, num_latents=F))
        train(sae, lambda x, sae=sae: sae(x).fvu)
        label = f"topk {str(dtype).removeprefix('torch.')}"
        folder = cases.folder(label)
        sae.to(dtype).save_to_disk(folder)
        add(label, folder, activation="topk", dtype=label)


def signed() -> None:
    """Signed SAEs keep the k largest in size, negative ones too: no later version can encode so."""
    sae = SparseCoder(D, SparseCoderConfig(k=K, num_latents=F))
    train(sae, lambda x: sae(x).fvu)
    for value in (False, True):
        folder = cases.folder(f"signed {value}")
        sae.save_to_disk(folder)
        config = json.loads((folder / "cfg.json").read_text())
        (folder / "cfg.json").write_text(json.dumps({**config, "signed": value}))
        if value:
            x = activations().double()
            with torch.no_grad():
                pre = torch.nn.functional.linear(
                    x - sae.b_dec, sae.encoder.weight.double(), sae.encoder.bias.double()
                )
            kept = pre.abs().topk(K).indices
            codes = torch.zeros_like(pre).scatter_(1, kept, pre.gather(1, kept))
            decoded = codes @ sae.W_dec.double() + sae.b_dec
            cases.add("signed True", folder, sae.W_dec, x=x, codes=codes, decoded=decoded,
                      encoder=sae.encoder.weight.T, activation="topk signed")  # fmt: skip
        else:
            add("signed False", folder, activation="topk", signed=False)


main()
dtypes()
signed()
