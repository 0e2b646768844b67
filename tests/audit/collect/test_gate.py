"""The bundled SAE and its activations, and these with the usual mistakes made to them."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.collect.gate import Fit, check_first
from saeaudit.audit.observer import SILENT, Observer
from tests.support.sample import SAMPLE

SAE = saeaudit.open("sample")
FIRST = SAMPLE[:600].float()


class Listener(Observer):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, line: str) -> None:
        self.notes.append(line)


def check(x: Tensor, *, force: bool = False, observer: Observer = SILENT) -> Fit:
    return check_first(SAE, x, device="cpu", force=force, observer=observer)


def beginnings(x: Tensor) -> Tensor:
    """As if each 20th token began a text: the same large vector."""
    x = x.clone()
    x[::20] = 60 * torch.nn.functional.normalize(torch.arange(384.0), dim=0) * x.norm(dim=1).mean()
    return x


def shifted(x: Tensor) -> Tensor:
    return x + 3 * torch.randn(len(x), 1, generator=torch.Generator().manual_seed(0))


def test_the_activations_that_it_reads() -> None:
    fit = check(FIRST)
    assert fit.activations == 256 and fit.outliers == 0
    assert fit.fvu is not None and 0.15 < fit.fvu < 0.25
    assert check(SAMPLE[:600]) == fit  # float16, as they are stored


MISTAKES = {
    "layer": (FIRST.roll(1, 1), "of another layer, hook or model"),
    "scale": (FIRST / 8, r"multiplied by 8 it would be 0\.\d+: the scale looks wrong"),
    "special": (beginnings(FIRST), "norms above 10 times the median, .*--bos drop"),
    "mean": (shifted(FIRST), "less their means .*center_writing_weights"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_named(name: str) -> None:
    x, looks = MISTAKES[name]
    with pytest.raises(AuditError) as caught:
        check(x)
    assert re.search(looks, caught.value.line())
    assert caught.value.where == "sample" and "--force" in caught.value.hint
    listener = Listener()
    fit = check(x, force=True, observer=listener)
    assert len(listener.notes) == 1 and fit.activations == 256
    assert f"{caught.value.where}: {caught.value.what}" == listener.notes[0]
    assert (fit.outliers > 0) == (name == "special")


def test_width_and_finiteness_are_never_forced() -> None:
    with pytest.raises(AuditError, match="activations of width 383; the SAE reads 384"):
        check(FIRST[:, 1:], force=True)
    half = SAMPLE[:600].clone()
    half[3, 7] = torch.inf
    with pytest.raises(AuditError, match=r"1 of the first 600 .*too large for float16.*bfloat16"):
        check(half, force=True)
    with pytest.raises(AuditError, match=r"600 of the first 600 .*not finite"):
        check(FIRST * torch.nan)


def test_what_cannot_be_checked_is_said() -> None:
    listener = Listener()
    few = check(FIRST[:5], observer=listener)
    assert few == Fit(5, 0, None) and "5 activations that do not tell" in listener.notes[0]
    transcoder = replace(SAE, weights=replace(SAE.weights, maps_elsewhere=True))
    fit = check_first(transcoder, FIRST, device="cpu", force=False, observer=listener)
    assert fit.fvu is None and "not checked by its encoder: a transcoder" in listener.notes[1]
    with pytest.raises(AuditError, match="width 9"):
        check_first(transcoder, FIRST[:, :9], device="cpu", force=False, observer=listener)
