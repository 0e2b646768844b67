from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.codes import make_encoder
from saeaudit.weights.find import find_listed, find_weights, read_weights
from tests.weights.layouts import (
    B_DEC,
    DEC,
    ENC,
    LAYOUTS,
    D,
    F,
    X,
)


@pytest.mark.parametrize("name", LAYOUTS)
def test_orientation_and_codes(name: str, tmp_path: Path) -> None:
    write, family, _, codes = LAYOUTS[name]
    file = write(tmp_path)
    loaded = read_weights(file)
    assert loaded.weights.format == family
    assert np.array_equal(loaded.weights.decoder.numpy(), DEC)
    assert loaded.weights.encoder is not None
    assert np.array_equal(loaded.weights.encoder().numpy(), ENC)
    dictionary = saeaudit.open(tmp_path)
    if loaded.weights.maps_elsewhere:
        with pytest.raises(AuditError, match="a transcoder"):
            make_encoder(dictionary)
        own = replace(loaded.weights, maps_elsewhere=False)  # the formula all the same
        dictionary = replace(dictionary, weights=own)
    encoder = make_encoder(dictionary, dtype=torch.float64)
    x = torch.from_numpy(X)
    z = encoder.codes(x)
    assert z.shape == (len(X), F)
    assert np.allclose(z.numpy(), codes(), atol=1e-6)
    assert (z > 0).any() and (z == 0).any()
    scale = D**0.5 / 3 if name == "llama_scope" else 1.0
    assert np.allclose(encoder.decode(z, x).numpy(), (codes() @ DEC + B_DEC) / scale, atol=1e-5)


@pytest.mark.parametrize("name", LAYOUTS)
def test_found_on_disk_and_in_a_listing(name: str, tmp_path: Path) -> None:
    write, family, home, _ = LAYOUTS[name]
    file = write(tmp_path)
    assert [(sae.name, sae.file) for sae in find_weights(tmp_path)] == [(home, file)]
    names = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    (listed,) = find_listed([*names, "README.md", ".gitattributes"])
    assert (listed.name, listed.format) == (home, family)
    assert listed.file == file.relative_to(tmp_path).as_posix()
    needed = {path.relative_to(tmp_path).as_posix() for path in read_weights(file).files}
    assert needed == {listed.file, *listed.beside}


def test_decoder_only_files_have_no_codes(tmp_path: Path) -> None:
    np.save(tmp_path / "rows.npy", DEC)
    with pytest.raises(AuditError, match="no encoder"):
        make_encoder(saeaudit.open(tmp_path / "rows.npy"))


def test_the_sample_encodes_its_own_activations() -> None:
    from saeaudit.sample import sample_root
    from saeaudit.weights.tensors import read_tensors

    tensors = read_tensors(sample_root() / "activations-test.safetensors").tensors
    x = tensors["activations"].load()[:2000].float()
    encoder = make_encoder(saeaudit.open("sample"))
    z = encoder.codes(x)
    error = (x - encoder.decode(z)).square().sum()
    variance = (x - x.mean(0)).square().sum()
    assert float((z > 0).sum(1).float().mean()) == pytest.approx(23.45, abs=1.0)
    assert float(error / variance) == pytest.approx(0.199, abs=0.02)


@pytest.mark.parametrize("normalise", ("layer_norm", "constant_norm"))
def test_normalisation_is_undone(normalise: str) -> None:
    from saeaudit.core.codes.encode import Encoder

    x = torch.from_numpy(X)
    eye = torch.eye(D, dtype=torch.float64)
    both = torch.cat([eye, -eye], 1)
    encoder = Encoder("standard", both, both.T.contiguous(), normalise=normalise)
    z = encoder.codes(x)
    # SAELens divides by layer_norm's scale + 1e-5 and multiplies by the scale alone.
    scale = (x - x.mean(1, keepdim=True)).std(1, keepdim=True)
    lost = scale / (scale + 1e-5) if normalise == "layer_norm" else torch.ones_like(scale)
    mean = x.mean(1, keepdim=True) if normalise == "layer_norm" else torch.zeros_like(scale)
    assert torch.allclose(encoder.decode(z, x), (x - mean) * lost + mean, atol=1e-9)
    target, worth = encoder.target(x)
    error = (target - z @ encoder.w_dec).square().sum(1) * worth
    assert torch.allclose(error, (x - encoder.decode(z, x)).square().sum(1), atol=1e-12)
    with pytest.raises(ValueError, match="needs the activations"):
        encoder.decode(encoder.codes(x))
