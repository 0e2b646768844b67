from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import saeaudit
from saeaudit import AuditError
from saeaudit.sources.target import resolve
from saeaudit.weights.find import find_weights, natural, read_weights

F, D = 12, 5
RNG = np.random.default_rng(0)
DEC = RNG.normal(size=(F, D)).astype(np.float32)
ENC = RNG.normal(size=(D, F)).astype(np.float32)
B_ENC, B_DEC = RNG.normal(size=F).astype(np.float32), RNG.normal(size=D).astype(np.float32)
THRESHOLD = RNG.uniform(size=F).astype(np.float32)


def t(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(array).contiguous()


def gemma(path: Path, save: Callable[..., None] = np.savez, **names: str) -> Path:
    tensors = {"W_enc": ENC, "W_dec": DEC, "b_enc": B_ENC, "b_dec": B_DEC, "threshold": THRESHOLD}
    file = path / "params.npz"
    save(file, **{names.get(name, name): value for name, value in tensors.items()})
    return file


def saelens(path: Path, config: dict[str, Any]) -> Path:
    (path / "cfg.json").write_text(json.dumps(config))
    tensors = {"W_enc": t(ENC), "W_dec": t(DEC), "b_enc": t(B_ENC), "b_dec": t(B_DEC)}
    save_file(tensors, path / "sae_weights.safetensors")
    return path / "sae_weights.safetensors"


def linear(prefix: str = "", number: str = "") -> dict[str, torch.Tensor]:
    return {
        f"{prefix}encoder.{number}weight": t(ENC.T),
        f"{prefix}encoder.{number}bias": t(B_ENC),
        f"{prefix}decoder.{number}weight": t(DEC.T),
        f"{prefix}decoder.{number}bias": t(B_DEC),
    }


def torch_file(content: Any) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        torch.save(content, path / "sae.pt")
        return path / "sae.pt"

    return write


def safetensors_file(tensors: dict[str, torch.Tensor]) -> Callable[[Path], Path]:
    def write(path: Path) -> Path:
        save_file(tensors, path / "sae.safetensors")
        return path / "sae.safetensors"

    return write


OLD_CONFIG = {
    "model_name": "gpt2-small", "hook_point": "blocks.0.hook_resid_pre", "d_in": D,
    "expansion_factor": F / D, "dtype": "torch.float32", "l1_coefficient": 8e-5,
}  # fmt: skip
NEW_CONFIG = {
    "d_in": D, "d_sae": F, "dtype": "float32", "apply_b_dec_to_input": False,
    "normalize_activations": "none", "architecture": "standard",
    "metadata": {"sae_lens_version": "6.5.0", "hook_name": "blocks.0.hook_resid_pre"},
}  # fmt: skip

WITH_ENCODER: dict[str, tuple[Callable[[Path], Path], str, str]] = {
    "gemma stored": (gemma, "gemma_scope", "jumprelu"),
    "gemma deflated": (lambda p: gemma(p, np.savez_compressed), "gemma_scope", "jumprelu"),
    "gemma lower case": (
        lambda p: gemma(p, W_enc="w_enc", W_dec="w_dec"), "gemma_scope", "jumprelu",
    ),
    "saelens before 6": (lambda p: saelens(p, OLD_CONFIG), "saelens", "standard"),
    "saelens from 6": (lambda p: saelens(p, NEW_CONFIG), "saelens", "standard"),
    "linear": (torch_file(linear()), "plain", "standard"),
    "linear nested": (torch_file({"state_dict": linear(), "config": {"k": 3}}), "plain", "topk"),
    "linear numbered": (torch_file(linear(number="0.")), "plain", "standard"),
    "linear threshold": (
        torch_file({**linear(), "threshold": torch.tensor(0.3)}), "plain", "jumprelu",
    ),
    "linear, old torch": (
        lambda p: torch.save(linear(), p / "a.pth", _use_new_zipfile_serialization=False)
        or p / "a.pth", "plain", "standard",
    ),
    "goodfire names": (
        torch_file({k.replace("coder.", "coder_linear."): v for k, v in linear().items()}),
        "plain", "standard",
    ),
    "safetensors": (
        safetensors_file({"W_dec": t(DEC), "W_enc": t(ENC), "b_enc": t(B_ENC)}),
        "plain", "standard",
    ),
    "safetensors, encoder [F, d]": (
        safetensors_file({"W_dec": t(DEC), "W_enc": t(ENC.T), "b_enc": t(B_ENC)}),
        "plain", "standard",
    ),
    "W_dec [d, F], settled by the biases": (
        safetensors_file({"W_dec": t(DEC.T), "W_enc": t(ENC.T), "b_enc": t(B_ENC),
                          "b_dec": t(B_DEC)}), "plain", "standard",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WITH_ENCODER)
def test_orientation(name: str, tmp_path: Path) -> None:
    write, family, architecture = WITH_ENCODER[name]
    weights, files = read_weights(write(tmp_path))
    assert (weights.format, weights.architecture) == (family, architecture)
    assert np.array_equal(weights.decoder.numpy(), DEC)
    assert weights.decoder.is_contiguous()
    assert weights.encoder is not None
    assert np.array_equal(weights.encoder().numpy(), ENC)
    if weights.b_enc is not None:
        assert np.array_equal(weights.b_enc.numpy(), B_ENC)
    assert all(file.is_file() for file in files)


@pytest.mark.parametrize("name", WITH_ENCODER)
def test_opens_as_a_target(name: str, tmp_path: Path) -> None:
    file = WITH_ENCODER[name][0](tmp_path)
    dictionary = saeaudit.open(file)
    assert (dictionary.d_sae, dictionary.d_in) == (F, D)
    assert np.allclose(dictionary.norms.numpy(), np.linalg.norm(DEC.astype(float), axis=1))
    assert dictionary.source.files[0].sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert np.array_equal(saeaudit.open(tmp_path).weights.decoder.numpy(), DEC)


DTYPES = {
    "float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16,
    "float64": torch.float64,
}  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", ("npy", "npz", "safetensors", "pt", "fortran"))
def test_bare_matrices(kind: str, dtype: str, tmp_path: Path) -> None:
    matrix = t(DEC).to(DTYPES[dtype])
    file = tmp_path / f"matrix.{'npy' if kind == 'fortran' else kind}"
    if kind == "pt":
        torch.save(matrix, file)
    elif kind == "safetensors":
        save_file({"features": matrix}, file)
    elif dtype == "bfloat16":
        pytest.skip("numpy has no bfloat16")
    elif kind == "npz":
        np.savez(file, anything=matrix.numpy())
    else:
        np.save(file, np.asfortranarray(matrix.numpy()) if kind == "fortran" else matrix.numpy())
    dictionary = saeaudit.open(file)
    assert dictionary.dtype == dtype
    assert dictionary.weights.architecture == "decoder-only"
    assert torch.equal(dictionary.weights.decoder, matrix)


def test_big_endian(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", DEC.astype(">f4"))
    assert np.array_equal(saeaudit.open(tmp_path / "a.npy").weights.decoder.numpy(), DEC)


def test_files_are_mapped_and_never_written(tmp_path: Path) -> None:
    file = gemma(tmp_path)
    weights, _ = read_weights(file)
    assert weights.decoder.shape == DEC.shape
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list a process's mappings")
    mine = [line.split()[1] for line in maps.read_text().splitlines() if str(file) in line]
    assert mine and all(access.startswith("r-") for access in mine)


def test_a_lone_wide_matrix_is_noted(tmp_path: Path) -> None:
    np.save(tmp_path / "wide.npy", DEC.T.copy())
    weights, _ = read_weights(tmp_path / "wide.npy")
    assert weights.decoder.shape == (D, F)
    assert "transpose" in weights.notes[0]


def test_folders_and_globs(tmp_path: Path) -> None:
    for layer in (2, 10, 1):
        folder = tmp_path / f"layer_{layer}" / "average_l0_9"
        folder.mkdir(parents=True)
        gemma(folder)
    save_file({"activations": torch.zeros(3, 4)}, tmp_path / "activations.safetensors")
    (tmp_path / "layer_1" / ".hidden.npz").write_bytes(b"junk")
    names = [sae.name for sae in find_weights(tmp_path)]
    assert names == [f"layer_{n}/average_l0_9" for n in (1, 2, 10)]
    picked = resolve(str(tmp_path), ["layer_1*"])
    assert [p.id for p in picked] == [f"{tmp_path}/layer_{n}/average_l0_9" for n in (1, 10)]
    assert saeaudit.open(picked[0].id).d_sae == F
    with pytest.raises(AuditError, match="no SAE here matches"):
        resolve(str(tmp_path), ["layer_7*"])
    with pytest.raises(AuditError, match="names 3 SAEs"):
        saeaudit.open(tmp_path)


def test_natural_order() -> None:
    names = ["b", "a10", "a2", "a", "10", "9", "a2b"]
    assert sorted(names, key=natural) == ["9", "10", "a", "a2", "a2b", "a10", "b"]


def test_the_nearest_name_is_suggested(tmp_path: Path) -> None:
    gemma(tmp_path)
    with pytest.raises(AuditError, match=r"did you mean .*params\.npz"):
        resolve(str(tmp_path / "parms.npz"))
    with pytest.raises(AuditError, match="did you mean sample/stitched"):
        resolve("sample/stiched")


def broken(name: str, path: Path) -> Path:
    """Files that contradict themselves."""
    file = path / "params.npz"
    good = {"W_enc": ENC, "W_dec": DEC, "b_enc": B_ENC, "b_dec": B_DEC, "threshold": THRESHOLD}
    if name == "encoder of another":
        np.savez(file, **{**good, "W_enc": ENC[:, :7]})
    elif name == "bias of another":
        np.savez(file, **{**good, "b_enc": B_ENC[:7]})
    elif name == "threshold of another":
        np.savez(file, **{**good, "threshold": THRESHOLD[:3]})
    elif name == "vector":
        np.savez(file, W_dec=DEC[0])
    elif name == "integers":
        np.savez(file, W_dec=DEC.astype(int))
    elif name == "no decoder":
        np.savez(file, W_enc=ENC)
    elif name == "saelens config of another":
        return saelens(path, {**NEW_CONFIG, "d_sae": F + 1})
    elif name == "saelens config is a list":
        file = saelens(path, NEW_CONFIG)
        (path / "cfg.json").write_text("[]")
    elif name == "three axes":
        np.save(path / "a.npy", np.zeros((2, 3, 4), np.float32))
        return path / "a.npy"
    elif name == "two candidates":
        save_file({"one": t(DEC), "two": t(DEC).clone()}, path / "a.safetensors")
        return path / "a.safetensors"
    return file


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("encoder of another", "do not belong together"),
        ("bias of another", "fits neither way"),
        ("threshold of another", "threshold has shape"),
        ("vector", "a matrix"),
        ("integers", "dtype int64"),
        ("no decoder", "no W_dec"),
        ("saelens config of another", "fits neither way"),
        ("saelens config is a list", "an object was expected"),
        ("three axes", "a matrix"),
        ("two candidates", "no obvious decoder"),
    ],
)
def test_contradictions_are_refused(name: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=says) as caught:
        saeaudit.open(broken(name, tmp_path))
    assert "\n" not in caught.value.line()


def test_unusable_decoders(tmp_path: Path) -> None:
    for name, rows, says in (
        ("nan", np.full((4, 3), np.nan, np.float32), "not finite"),
        ("zero", np.zeros((4, 3), np.float32), "zero"),
        ("one", np.ones((1, 3), np.float32), "one feature"),
        ("none", np.ones((0, 3), np.float32), "empty"),
        ("narrow", np.ones((4, 0), np.float32), "empty"),
    ):
        np.save(tmp_path / f"{name}.npy", rows)
        with pytest.raises(AuditError, match=says):
            saeaudit.open(tmp_path / f"{name}.npy")
