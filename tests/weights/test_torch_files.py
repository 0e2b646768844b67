"""PyTorch files are read as torch.load reads them, without running what they name."""

from __future__ import annotations

import io
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import saeaudit
from saeaudit import AuditError
from saeaudit.weights.limits import Limits
from saeaudit.weights.tensors import READERS, read_tensors

X = torch.arange(24, dtype=torch.float32).view(4, 6)


def state() -> dict[str, Any]:
    layer = torch.nn.Linear(3, 2)
    model = torch.nn.Sequential(OrderedDict(encoder=layer, decoder=torch.nn.Linear(2, 3)))
    return {
        "state": model.state_dict(),
        "parameter": torch.nn.Parameter(X.clone()),
        "transposed": X.clone().T,
        "rows": X[1:3],
        "same storage": X[:, ::2],
        "short": X.half(), "brain": X.bfloat16(), "double": X.double(), "scalar": X[0, 1].clone(),
        "int": X.int(), "byte": X.byte(), "bool": X > 3, "complex": X.to(torch.complex64),
        "small": torch.ones(1).expand(3), "empty": torch.ones(0, 3), "unsigned": X.to(torch.uint16),
        7: {"step": 3, "rate": 1e-4, "name": "ä", "on": True, "nothing": None},
        "others": [torch.float32, torch.Size([1, 2]), torch.device("cpu"), {1, 2}, b"ab", (1, 2)],
        "large": 1 << 40,
    }  # fmt: skip


def expected(content: Any, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(content, torch.Tensor):
        return {name: content.detach()}
    out = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        out |= expected(value, f"{name}.{key}" if name else str(key))
    return out


@pytest.mark.parametrize("zipped", (True, False), ids=("zip", "legacy"))
def test_as_torch_reads_them(zipped: bool, tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    content = state()
    if not zipped:
        del content["unsigned"]  # torch.load cannot read what torch.save writes there
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    contents = read_tensors(file)
    tensors, scalars = contents.tensors, contents.scalars
    wanted = expected(torch.load(file, weights_only=True))
    assert tensors.keys() == wanted.keys() and len(wanted) == 18 + zipped
    for name, tensor in wanted.items():
        assert tensors[name].shape == tensor.shape, name
        assert tensors[name].dtype.in_torch() == tensor.dtype, name
        loaded = tensors[name].load()
        assert loaded.stride() == tensor.stride()
        assert torch.equal(loaded, tensor), name
    assert scalars == {
        "7.step": 3, "7.rate": 1e-4, "7.name": "ä", "7.on": True, "large": 1 << 40,
    }  # fmt: skip


def test_other_kinds_of_tensors_are_passed_over(tmp_path: Path) -> None:
    with warnings.catch_warnings():  # deprecated, and still in old files
        warnings.simplefilter("ignore")
        quantised = torch.quantize_per_tensor(X, 0.1, 0, torch.qint8)
    meta = torch.empty(1 << 20, 1 << 20, device="meta")
    content = {"sparse": X.to_sparse(), "meta": meta, "quantised": quantised, "W_dec": X}
    torch.save(content, tmp_path / "a.pt")
    assert list(read_tensors(tmp_path / "a.pt").tensors) == ["W_dec"]
    assert torch.equal(saeaudit.open(tmp_path / "a.pt").weights.decoder, X)


def test_files_of_any_kind_are_mapped(tmp_path: Path) -> None:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list a process's mappings")
    for name, zipped in (("a.pt", True), ("b.pt", False)):
        torch.save({"W_dec": X}, tmp_path / name, _use_new_zipfile_serialization=zipped)
        rows = read_tensors(tmp_path / name).tensors["W_dec"].load()
        mine = [m.split()[1] for m in maps.read_text().splitlines() if name in m]
        assert len(rows) == 4 and mine and all(access.startswith("r-") for access in mine)


SMALL = {
    "tensors": (Limits(tensors=2), "more than 2|more entries"),
    "name": (Limits(name=4), "a name of 5 characters"),
    "header": (Limits(header=20), "its pickle has|a truncated one"),
    "steps": (Limits(steps=5), "more than 5 instructions"),
    "directory": (Limits(directory=30), "list of members is too long"),
}


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("suffix", (".pt", ".npz", ".safetensors"))
def test_limits_are_an_argument(suffix: str, name: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    tensors = {f"name{n}": torch.ones(2, 2) for n in range(3)}
    file = tmp_path / f"a{suffix}"
    if suffix == ".pt":
        torch.save(tensors, file)
    elif suffix == ".npz":
        np.savez(file, **{name: t.numpy() for name, t in tensors.items()})
    else:
        save_file(tensors, file)
    limits, says = SMALL[name]
    concerned = {".npz": ("tensors", "directory"), ".safetensors": ("tensors", "header")}
    if name not in concerned.get(suffix, SMALL):
        assert len(read_tensors(file, limits).tensors) == 3
        return
    with pytest.raises(AuditError, match=says):
        read_tensors(file, limits)


@pytest.mark.parametrize("suffix", READERS)
def test_any_damage_is_one_error(suffix: str, tmp_path: Path) -> None:
    """Bytes changed at random: it opens, or says so."""
    good = io.BytesIO()
    if suffix == ".npz":
        np.savez_compressed(good, W_dec=X.numpy(), b=X[0].numpy())
    elif suffix == ".npy":
        np.save(good, X.numpy())
    elif suffix == ".safetensors":
        from safetensors.torch import save

        good.write(save({"W_dec": X, "b": X[0].clone()}))
    else:
        torch.save({"W_dec": X, "b": X[0]}, good, _use_new_zipfile_serialization=suffix != ".ckpt")
    file, data = tmp_path / f"a{suffix}", good.getvalue()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        changed = np.frombuffer(data, np.uint8).copy()
        places = rng.integers(0, len(data), rng.integers(1, 4))
        changed[places] = rng.integers(0, 256, len(places))
        file.write_bytes(changed.tobytes()[: rng.integers(len(data) // 2, 2 * len(data))])
        try:
            for stored in read_tensors(file).tensors.values():
                stored.load()
        except AuditError as error:
            refused += 1
            assert "\n" not in error.line()
    assert refused > 5


def test_a_member_that_is_another_than_its_directory_says_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    torch.save({"W_dec": X}, file)
    file.write_bytes(file.read_bytes().replace(b"/data/0", b"/data/1", 1))
    with pytest.raises(AuditError, match="damaged"):
        read_tensors(file)
