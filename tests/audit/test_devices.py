"""What a device may change: nothing. Where there is no CUDA, tests/support/pretend is it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from saeaudit import AuditError
from saeaudit import open as open_sae
from saeaudit.audit.mediators.inputs import MediatorInputs
from saeaudit.audit.mediators.options import MediatorOptions
from saeaudit.audit.mediators.run import mediators
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.audit.score.api import score
from saeaudit.audit.score.inputs import ScoreInputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.core.budget import Budget
from saeaudit.core.cosines import kernels
from saeaudit.dictionary import Dictionary
from saeaudit.records import ChoiceRecord, dump
from tests.support.dictionaries import make, opened, sae
from tests.support.planted import source
from tests.support.pretend import CPU, CUDA, PretendCuda, pretend_cuda
from tests.support.sample import SAMPLE

needs_interpreter = pytest.mark.skipif(
    not kernels.interpreted(), reason="a CUDA device is at hand: Triton is not interpreted"
)


def lines(dictionary: Dictionary, **options: object) -> list[str]:
    return [dump(record) for record in scan(dictionary, ScanOptions(**options))]


def wide(seed: int, count: int = 300, width: int = 96) -> np.ndarray:
    """Rows whose largest cosines lie below the listing floor for some, above it for others."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(count, width))
    rows[:40] += 2 * rng.normal(size=(1, width))
    rows[40:60] = rows[60:80] + 0.1 * rng.normal(size=(20, width))
    rows[80] = rows[81] - 0.7 * rows[82]
    return rows.astype(np.float32)


@needs_interpreter
@pytest.mark.parametrize("seed", [0, 1, 2, 3, 4, 5])
def test_cuda_gives_the_same_bytes(seed: int, screen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = opened(make(seed))
    options = {"screen": screen, "min_cosine": 0.6, "max_residual": 0.3, "min_gain": 1.5}
    want = lines(dictionary, **options)
    with pretend_cuda(monkeypatch):
        got = lines(dictionary, device="cuda:0", **options)
    assert got == want
    assert PretendCuda.operations > 50


@needs_interpreter
@pytest.mark.parametrize("memory", [8 << 30, 1 << 10], ids=["held", "streamed"])
@pytest.mark.parametrize("tile", [None, 64], ids=["fused", "tiled"])
def test_cuda_with_rows_held_or_streamed(
    memory: int, tile: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    dictionary = opened(wide(1))
    want = lines(dictionary, screen="int8")
    budget = Budget(tile=tile, stored_bytes=1 << 14)
    with pretend_cuda(monkeypatch, memory=memory):
        assert lines(dictionary, screen="int8", device="cuda:0", budget=budget) == want
    assert bool(PretendCuda.launches) == (tile is None)


@needs_interpreter
def test_cuda_survives_crowds(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    rows = np.concatenate([np.tile(rng.normal(size=(1, 32)), (150, 1)), rng.normal(size=(50, 32))])
    rows[:75] += 0.01 * rng.normal(size=(75, 32))
    dictionary = opened(rows.astype(np.float32))
    options = {"screen": "int8", "max_findings": 10, "budget": Budget(edges=6000)}
    want = lines(dictionary, **options)
    with pretend_cuda(monkeypatch):
        assert lines(dictionary, device="cuda:0", **options) == want


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["sample", "sample/stitched"])
def test_a_real_gpu_gives_the_same_bytes(name: str, screen: str, device: str) -> None:
    if not device.startswith("cuda"):
        pytest.skip("needs --device cuda")
    dictionary = open_sae(name)
    assert lines(dictionary, screen=screen, device=device) == lines(dictionary)


@pytest.mark.gpu
def test_a_real_gpu_gives_the_same_bytes_at_size(device: str) -> None:
    if not device.startswith("cuda"):
        pytest.skip("needs --device cuda")
    dictionary = opened(wide(2, 16384, 2304))
    for tile in (None, 4096):
        budget = Budget(tile=tile)
        assert lines(dictionary, screen="int8", device=device, budget=budget) == lines(dictionary)


@needs_interpreter
def test_the_pretended_device_is_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretend_cuda(monkeypatch):
        here, there = torch.ones(3), torch.ones(3, device="cuda")
        assert there.device == CUDA and (there * 2).device == CUDA and there.cpu().device == CPU
        with pytest.raises(RuntimeError, match="same device"):
            here + there
        with pytest.raises(RuntimeError, match="same device"):
            there[torch.tensor([0, 1])]
        with pytest.raises(TypeError, match="numpy"):
            there.numpy()
        with pytest.raises(RuntimeError, match="int8"):
            torch._int_mm(*(torch.ones(8, 8, dtype=torch.int8, device="cuda"),) * 2)


@needs_interpreter
@pytest.mark.parametrize("failures", [1, 3, 4])
def test_out_of_device_memory(failures: int, monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = opened(wide(5))
    want = lines(dictionary, screen="int8")
    short = [torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")] * failures
    with pretend_cuda(monkeypatch, failures=short):
        if failures == 4:
            with pytest.raises(AuditError, match="out of memory on cuda:0, even with small tiles"):
                lines(dictionary, screen="int8", device="cuda:0")
        else:
            assert lines(dictionary, screen="int8", device="cuda:0") == want
    assert PretendCuda.made.count(torch.int8) == min(failures + 1, 4)
    held, packed = torch.float32, torch.int8
    first, second = [n for n, dtype in enumerate(PretendCuda.made) if dtype == packed][:2]
    assert PretendCuda.made[0] == held and held not in PretendCuda.made[first:second]


def test_a_driver_error_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = torch.AcceleratorError("CUDA error: an illegal memory access\nCompile with ...", 700)
    with pretend_cuda(monkeypatch, failures=[broken]), pytest.raises(AuditError) as caught:
        lines(opened(wide(6)), screen="int8", device="cuda:0")
    assert str(caught.value) == "rows on cuda:0: CUDA error: an illegal memory access"


class WrongProducts(TorchFunctionMode):
    """A processor whose float32 products of matrices are off by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self._factor = factor

    def __torch_function__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        return result.mul_(self._factor) if func is torch.mm else result


@pytest.mark.parametrize("factor", [1.01, 0.1])
def test_arithmetic_that_is_off_is_noticed(factor: float) -> None:
    """Products so small that no pair is proposed hide no finding either."""
    with WrongProducts(factor), pytest.raises(AuditError, match="not to be trusted"):
        lines(opened(wide(4)), screen="fp32")


def test_mediators_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    dictionary = open_sae("sample")

    def run(device: str) -> list[str]:
        options = MediatorOptions(swaps=2, max_tokens=3, device=device)
        inputs = MediatorInputs(SAMPLE[:700])
        return [dump(record) for record in mediators(dictionary, inputs, options)]

    same_on_a_device(run, monkeypatch)


def test_scores_on_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few features are active: each takes the pretended device a second."""
    planted = source(0, 700)
    threshold = torch.full((len(planted.decoder),), -0.2)
    dictionary = sae(planted.decoder.numpy(), b_enc=threshold)

    def run(device: str) -> list[str]:
        options = ScoreOptions(max_tokens=12, canonicalise=True, bin_width=0.3, device=device)
        records = list(score(dictionary, ScoreInputs(planted.activations), options))
        assert all(record.priced for record in records if isinstance(record, ChoiceRecord))
        return [dump(record) for record in records]

    same_on_a_device(run, monkeypatch)


def same_on_a_device(run: Callable[[str], list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    expected = run("cpu")
    with pretend_cuda(monkeypatch):
        before = PretendCuda.operations
        assert run("cuda:0") == expected
        assert PretendCuda.operations > before + 500
