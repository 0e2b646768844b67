"""Which activations are looked at: the draw, outliers, codes too dense, and what they look like."""

from __future__ import annotations

import gc
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from saeaudit import AuditError
from saeaudit import open as open_sae
from saeaudit.audit.codes import WINDOW, Coder
from saeaudit.audit.mediators.inputs import MediatorInputs
from saeaudit.audit.mediators.options import MediatorOptions
from saeaudit.audit.mediators.run import mediators
from saeaudit.audit.observer import Observer
from saeaudit.audit.score.api import score
from saeaudit.audit.score.inputs import ScoreInputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.spread import Spread
from saeaudit.audit.token_options import TokenOptions
from saeaudit.audit.tokens import BLOCK, MOST_WORK, Sieve, draw_tokens, most_active
from saeaudit.records import MediatorsSummary, TokenRecord, dump
from saeaudit.sources.activations import (
    parted_by,
    read_activations,
    read_tokens,
)
from saeaudit.sources.codes import read_codes
from tests.support.dictionaries import sae
from tests.support.notes import Notes
from tests.support.sample import FILES, SAMPLE

EVERY = 50
"""Every so many of the sample's activations is made an outlier."""


def with_outliers(count: int = 600) -> torch.Tensor:
    """What the first token of a text does in real models."""
    x = SAMPLE[:count].float()
    x[::EVERY] *= 100
    return x


def looked(x: torch.Tensor, **options) -> tuple[dict[int, TokenRecord], MediatorsSummary, Notes]:
    notes = Notes()
    chosen = MediatorOptions(max_alternatives=0, **options)
    records = list(mediators(open_sae("sample"), MediatorInputs(x), chosen, notes))
    tokens = {r.token: r for r in records if isinstance(r, TokenRecord)}
    summary = records[-1]
    assert isinstance(summary, MediatorsSummary) and summary.tokens == len(tokens)
    return tokens, summary, notes


# --- what is left out ----------------------------------------------------------------------------


def test_outliers_are_left_out_counted_and_named() -> None:
    tokens, summary, notes = looked(with_outliers(), max_tokens=60, seed=1)
    (skipped,) = summary.skipped
    assert skipped.reason == "norm" and skipped.count == len(skipped.positions) > 0
    assert all(position % EVERY == 0 for position in skipped.positions)
    assert len(tokens) == 60 and not any(token % EVERY == 0 for token in tokens)
    assert any("left out with a norm over 10 times the median" in line for line in notes.lines)
    clean, _, _ = looked(SAMPLE[:600].float(), max_tokens=60, seed=1)
    shared = tokens.keys() & clean.keys()
    assert len(shared) == 60 - skipped.count and all(
        dump(tokens[n]) == dump(clean[n]) for n in shared
    )


def test_one_activation_among_outliers_is_one_that_is_none() -> None:
    x = with_outliers()
    seed = next(n for n in range(999) if draw_tokens(600, None, n).order[0] % EVERY == 0)
    tokens, summary, _ = looked(x, max_tokens=1, seed=seed)
    (token,) = tokens.values()
    assert token.token % EVERY and token.l0 < 100
    assert summary.skipped[0].count == 1


def test_codes_too_dense_are_counted_and_not_awaited() -> None:
    tokens, summary, _ = looked(with_outliers(200), max_tokens=60, keep_outliers=True)
    (skipped,) = summary.skipped
    assert skipped.reason == "l0" and all(n % EVERY == 0 for n in skipped.positions)
    assert not tokens.keys() & set(skipped.positions)


def test_what_one_activation_costs_is_bounded() -> None:
    assert most_active(2048, 384) == 192
    assert most_active(100, 16) == 64
    for features, width in ((16384, 2304), (1 << 20, 2304), (1 << 21, 16384)):
        most = most_active(features, width)
        work = [4 * k * features * (width + k) + 16 * k**4 for k in (most, most + 1)]
        assert work[0] <= MOST_WORK < work[1] and most < width / 2


def test_norms_of_zero_are_no_median() -> None:
    rows = np.eye(4)
    x = torch.zeros(20, 4)
    x[:3, 0] = torch.tensor([1.0, 2.0, 30.0])
    records = list(mediators(sae(rows), MediatorInputs(x), MediatorOptions(max_alternatives=0)))
    assert [s.positions for s in records[-1].skipped] == [(2,)]


def test_where_none_is_left_that_is_said() -> None:
    dictionary = sae(np.random.default_rng(0).normal(size=(300, 16)))
    dictionary.weights.b_enc.fill_(100)
    with pytest.raises(AuditError, match=r"no activation is looked at.*more than 64 active"):
        list(mediators(dictionary, MediatorInputs(torch.randn(5, 16)), MediatorOptions()))


# --- what they look like -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("x", "looks"),
    [
        (3 * SAMPLE[:600].float(), "multiplied by 0.35 it would be 0.2"),
        (0.05 * SAMPLE[:600].float(), "the scale looks wrong"),
        (SAMPLE[:600].float().flip(1), "another layer, hook or model"),
    ],
)
def test_a_misfit_is_said_before_any_work(x: torch.Tensor, looks: str) -> None:
    notes = Notes()
    options = MediatorOptions(max_tokens=1)
    records = mediators(open_sae("sample"), MediatorInputs(x), options, notes)
    next(records)
    try:
        next(records)
    except AuditError as error:
        assert "no activation is looked at" in str(error)
    lines = [line for line in notes.lines if " the variance" in line]
    assert len(lines) == 1 and looks in lines[0] and "usual: 23" in lines[0]


def test_an_error_over_the_variance_is_said_as_a_multiple() -> None:
    x = SAMPLE[:600].float()
    x[::EVERY] *= 100
    _, _, notes = looked(x, max_tokens=1, keep_outliers=True)
    (line,) = (line for line in notes.lines if "the variance" in line)
    assert re.search(r"the SAE's error is \d+(\.\d+)? times the variance", line), line


def test_activations_that_do_not_vary_are_named() -> None:
    x = SAMPLE[:1].float().repeat(600, 1) + 0.1
    said = "the first 256 activations drawn are all the same"
    _, summary, notes = looked(x, max_tokens=3)
    assert any(said in line for line in notes.lines)
    assert summary.fvu_encoder is None and summary.fvu_refit is None
    assert summary.encoders[0].fvu is None
    notes = Notes()
    dictionary, inputs = open_sae("sample"), ScoreInputs(x)
    *_, scored = score(dictionary, inputs, ScoreOptions(max_tokens=3), notes)
    assert any(said in line for line in notes.lines)
    assert scored.fvu is None and scored.fvu_quantised is None and scored.bits_per_token > 0
    with pytest.raises(AuditError, match=r"distortion: .* do not vary"):
        list(score(dictionary, inputs, ScoreOptions(max_tokens=3, distortion=0.3)))


@pytest.mark.parametrize("size", [1, 7, 100])
def test_errors_are_shares_of_the_squared_distances_from_the_mean(size: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(100, 5)) + 1e6
    spread = Spread()
    for start in range(0, 100, size):
        spread.add(torch.from_numpy(x[start : start + size]))
    assert spread.share(3.0) == pytest.approx(3 / ((x - x.mean(0)) ** 2).sum(), rel=1e-9)


def test_a_fit_is_not_spoken_of() -> None:
    _, _, notes = looked(SAMPLE[:600], max_tokens=1)
    assert not any("variance" in line for line in notes.lines)


def test_no_window_leaves_a_tensor_behind() -> None:
    """Such small ones lay in the room of large ones, and a million activations took 2.5 GB."""
    rows = np.random.default_rng(0).normal(size=(6, 8))
    x = torch.from_numpy(np.random.default_rng(1).random((4 * WINDOW, 6)) @ rows)
    alive = []

    class Counting(Observer):
        def step(self, name: str, share: float, tokens: int | None = None) -> None:
            alive.append(sum(type(each) is torch.Tensor for each in gc.get_objects()))

    draw = draw_tokens(len(x), None, 0)
    sieve = Sieve(Coder(sae(rows), "cpu"), x, draw, TokenOptions(), Counting())
    assert sieve.take(draw.order).tolist() == draw.order.tolist()
    assert len(alive) == 4 and len(set(alive[1:])) == 1


# --- the draw ------------------------------------------------------------------------------------


def test_the_sample_s_documents_are_told_by_its_separators() -> None:
    assert FILES is not None
    tokens = read_tokens(FILES[1], len(SAMPLE))
    documents = parted_by(tokens)
    assert documents is not None and int(documents[-1]) == 64
    last = documents[1:] != documents[:-1]
    assert {tokens[int(n)] for n in last.nonzero()[:, 0]} == {"[SEP]"}


def test_documents_are_parted_by_what_begins_and_ends_them() -> None:
    assert FILES is not None
    texts = ["a", "<bos>", "b", "<eos>", "<bos>", "c", "<|endoftext|>", "d"]
    documents = parted_by(texts)
    assert documents is not None and documents.tolist() == [0, 1, 1, 1, 2, 2, 2, 3]
    assert parted_by(["a", "b"]) is None
    assert parted_by(None) is None


def test_a_file_can_say_its_documents(tmp_path: Path) -> None:
    file = tmp_path / "x.safetensors"
    numbers = torch.tensor([7, 7, 3], dtype=torch.int32)
    save_file({"activations": torch.ones(3, 4), "document": numbers}, file)
    texts = tmp_path / "tokens.json"
    texts.write_text('["a", "<eos>", "b"]')
    activations, tokens, documents = read_activations([file], 4, texts)
    assert documents is not None and documents.tolist() == [7, 7, 3]
    assert activations.shape == (3, 4) and tokens == ["a", "<eos>", "b"]
    for wrong in (numbers[:2], numbers.float(), numbers[:, None]):
        save_file({"activations": torch.ones(3, 4), "document": wrong.contiguous()}, file)
        with pytest.raises(AuditError, match="document is"):
            read_activations([file], 4)


def test_other_codes_are_of_all_activations(tmp_path: Path) -> None:
    file = tmp_path / "codes.npy"
    np.save(file, np.arange(12.0).reshape(4, 3))
    assert read_codes(file, 4, 3)(torch.tensor([3, 1])).tolist() == [[9, 10, 11], [3, 4, 5]]
    with pytest.raises(AuditError, match=r"\[5, 3\] is needed"):
        read_codes(file, 5, 3)


@pytest.mark.parametrize("known", [True, False])
def test_whole_documents_are_measured(known: bool) -> None:
    rng = np.random.default_rng(0)
    documents = torch.from_numpy(np.repeat(np.arange(80), rng.integers(1, 120, 80)))
    count = len(documents)
    draw = draw_tokens(count, documents if known else None, seed=3)
    assert sorted(draw.order.tolist()) == list(range(count))
    assert 0.17 * count < len(draw.measured) <= 0.2 * count
    of = documents if known else torch.arange(count) // min(BLOCK, count // 50)
    assert not set(of[draw.measured].tolist()) & set(of[draw.others].tolist())
    assert draw.by == ("documents" if known else "blocks")
    assert draw.parts == len(torch.unique(of))
    again = draw_tokens(count, documents if known else None, seed=3)
    assert torch.equal(draw.order, again.order)
    other = draw_tokens(count, documents if known else None, seed=4)
    assert set(draw.measured.tolist()) != set(other.measured.tolist())


def test_every_activation_is_as_likely_as_any_other() -> None:
    documents = torch.arange(200) // 10
    first = torch.stack([draw_tokens(200, documents, seed).order[:20] for seed in range(2000)])
    times = torch.bincount(first.reshape(-1), minlength=200)
    assert 140 < int(times.min()) and int(times.max()) < 265  # 200 +- 5 standard deviations


def test_a_named_activation_is_measured_with_its_document() -> None:
    documents = torch.arange(300) // 10
    draw = draw_tokens(300, documents, 0)
    token = int(draw.others[0])
    moved = draw_tokens(300, documents, 0, measured=token)
    whole = set(range(token // 10 * 10, token // 10 * 10 + 10))
    assert whole <= set(moved.measured.tolist()) and len(moved.measured) == 60


def test_few_documents_are_no_parts() -> None:
    draw = draw_tokens(300, torch.arange(300) // 100, 0)
    assert draw.by == "blocks" and str(draw).endswith(" blocks of neighbours")
    for count in (1, 4, 10):
        assert sorted(draw_tokens(count, None, 0).order.tolist()) == list(range(count))
