"""What PROVENANCE.md says of the bundled SAE on the bundled activations."""

from __future__ import annotations

import torch

import saeaudit
from saeaudit.audit.codes import make_encoder
from saeaudit.sources.activations import read_activations, sample_activations


def figures() -> dict[str, str]:
    """What stands between the page's marks."""
    sample, files = saeaudit.open("sample"), sample_activations("sample")
    assert files is not None
    x = read_activations([files[0]], sample.d_in).activations[:].double()
    encoder = make_encoder(sample, dtype=torch.float64)
    codes = encoder.codes(x)
    error = (encoder.decode(codes) - x).square().sum() / (x - x.mean(0)).square().sum()
    silent = int(((codes > 0).sum(0) == 0).sum())
    return {
        "held out": f"On the {len(x):,} bundled activations, which it was not trained on, mean L0 "
        f"is {float((codes > 0).sum(1).double().mean()):.1f} and the\nfraction of variance "
        f"unexplained {float(error):.3f}; all but {silent} of {sample.d_sae:,} features fire.\n"
    }
