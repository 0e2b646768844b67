"""Dictionaries of rows in memory."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

import saeaudit
from saeaudit import AuditError, Dictionary

ROWS = np.random.default_rng(0).normal(size=(12, 5)).astype(np.float32)


@pytest.mark.parametrize("kind", [np.float32, np.float16, np.float64, torch.bfloat16])
def test_rows_and_a_file_of_them_have_the_same_findings(kind: object, tmp_path: Path) -> None:
    tensor = torch.from_numpy(ROWS) if kind is torch.bfloat16 else None
    rows = ROWS.astype(kind) if tensor is None else tensor.bfloat16()
    torch.save({"W_dec": torch.as_tensor(rows)}, tmp_path / "a.pt")
    options = saeaudit.ScanOptions(min_cosine=0.5)
    pairs = [
        [(r.features, r.cosine) for r in saeaudit.scan(dictionary, options) if r.type == "pair"]
        for dictionary in (Dictionary.from_rows(rows), saeaudit.open(tmp_path / "a.pt"))
    ]
    assert pairs[0] == pairs[1] and pairs[0]


def test_records_say_what_the_rows_were() -> None:
    first = next(iter(saeaudit.scan(Dictionary.from_rows(ROWS, "mine"))))
    assert (first.sae, first.format, first.dtype) == ("mine", "rows", "float32")
    assert first.source.sha256 == hashlib.sha256(ROWS.tobytes()).hexdigest()


def test_a_mapped_array_is_used_as_it_is(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", ROWS)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    dictionary = Dictionary.from_rows(mapped)
    assert dictionary.weights.decoder.data_ptr() == mapped.ctypes.data


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (ROWS[0], "shape [5]"),
        (np.eye(3, dtype=int), "torch.int64"),
        (torch.eye(3).to(torch.float8_e4m3fn), "float8"),
        (np.zeros((0, 3)), "is empty"),
        (np.zeros((3, 3)), "all 3 decoder rows"),
        ([[1.0], [1.0, 2.0]], "no matrix"),
        ([["a"]], "no matrix"),
    ],
)
def test_what_is_no_dictionary_is_refused(rows: object, says: str) -> None:
    with pytest.raises(AuditError) as caught:
        Dictionary.from_rows(rows, "mine")
    assert says in str(caught.value) and "mine" in str(caught.value)


def test_an_encoder_goes_with_the_rows() -> None:
    encoder = torch.from_numpy(ROWS.T.copy())
    dictionary = Dictionary.from_rows(ROWS, encoder=lambda: encoder, architecture="standard")
    assert dictionary.codes_unavailable is None and dictionary.encoder is encoder


@pytest.mark.parametrize(
    ("k", "says"), [(True, "k is True"), (0, "at least 1"), (13, "only 12 features")]
)
def test_k_is_a_number_of_features(k: int, says: str) -> None:
    with pytest.raises(AuditError, match=says):
        Dictionary.from_rows(ROWS, architecture="topk", k=k)
    assert Dictionary.from_rows(ROWS, architecture="topk", k=12).weights.k == 12
    pursuit = Dictionary.from_rows(ROWS, architecture="matching_pursuit", k=13)
    assert pursuit.weights.k == 13  # steps, which may take a feature again


@pytest.mark.parametrize("name", ["b_enc", "threshold", "b_dec"])
def test_nan_makes_no_codes(name: str) -> None:
    encoder = torch.from_numpy(ROWS.T.copy())
    vectors = {"b_enc": torch.zeros(12), "threshold": torch.zeros(12), "b_dec": torch.zeros(5)}
    vectors[name][3] = torch.nan
    spoilt = Dictionary.from_rows(ROWS, encoder=lambda: encoder, architecture="jumprelu", **vectors)
    assert spoilt.codes_unavailable == f"NaN in {name}"
    assert any(record.type == "summary" for record in saeaudit.scan(spoilt))


@pytest.mark.parametrize("kind", [torch.complex64, torch.bool])
def test_biases_are_real_numbers(kind: torch.dtype) -> None:
    with pytest.raises(AuditError, match=f"b_enc is {str(kind)[6:]}"):
        Dictionary.from_rows(ROWS, b_enc=torch.ones(len(ROWS), dtype=kind))
