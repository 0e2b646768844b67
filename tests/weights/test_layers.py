"""Decoders that write to several layers: one dictionary a layer, named by ``#`` and its number."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import save_file

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.codes import make_encoder
from saeaudit.audit.open import open_layers
from saeaudit.sources.target import resolve
from tests.conftest import Cli
from tests.weights.layouts import B_DEC, B_ENC, DEC, ENC, D, F, X, clt, gemma_scope_2_clt, t

LAYERS = np.stack([DEC, 3 * DEC[::-1]], 1)
"""``[F, 2, d]``."""


def written(root: Path, **tensors: Any) -> Path:
    root.mkdir(exist_ok=True)
    save_file(
        {name.replace("__", "."): t(v) for name, v in tensors.items()}, root / "a.safetensors"
    )
    return root / "a.safetensors"


def cross_coder(root: Path) -> Path:
    """An encoder and a bias for each layer, as in crosscoder-model-diff-replication."""
    return written(root, W_enc=np.stack([ENC, ENC]), W_dec=LAYERS, b_enc=B_ENC,
                   b_dec=np.stack([B_DEC, B_DEC]))  # fmt: skip


def layers_first(root: Path) -> Path:
    """The cross-coders of dictionary_learning's forks."""
    return written(
        root, encoder__weight=np.stack([ENC, ENC]), encoder__bias=B_ENC,
        decoder__weight=LAYERS.transpose(1, 0, 2), decoder__bias=np.stack([B_DEC, B_DEC]),
    )  # fmt: skip


def square(root: Path) -> Path:
    """As many layers as features: the family says which are which."""
    root.mkdir(exist_ok=True)
    file = root / "W_dec_0.safetensors"
    save_file({"W_dec_0": t(np.stack([DEC[:2], DEC[2:4]], 1)), "b_enc_0": t(B_ENC[:2])}, file)
    return file


@pytest.mark.parametrize(
    ("write", "expected"),
    [
        (clt, [DEC, 3 * DEC]),
        (gemma_scope_2_clt, [DEC, 2 * DEC]),
        (cross_coder, [DEC, 3 * DEC[::-1]]),
        (layers_first, [DEC, 3 * DEC[::-1]]),
        (square, [DEC[:2], DEC[2:4]]),
    ],
)
def test_each_layer_is_a_dictionary(
    write: Callable[[Path], Path], expected: list[np.ndarray], tmp_path: Path
) -> None:
    file = write(tmp_path)
    (sae,) = resolve(str(file))
    dictionaries = open_layers(sae)
    assert [one.sae for one in dictionaries] == [f"{file}#0", f"{file}#1"]
    for number, (one, rows) in enumerate(zip(dictionaries, expected, strict=True)):
        assert np.array_equal(one.weights.decoder, rows)
        (*_, note) = one.weights.notes
        assert note.startswith(f"layer {number} (from 0) of a decoder [{len(rows)}, 2, 5]")
        assert one.codes_unavailable is not None and "cross-layer" in one.codes_unavailable
        with pytest.raises(AuditError, match="scan shows"):
            make_encoder(one)
        named = saeaudit.open(one.sae)
        assert named.sae == one.sae == named.source.uri
        assert np.array_equal(named.weights.decoder, rows)
        assert [record.type for record in saeaudit.scan(named)][-1] == "summary"


def test_a_scan_lists_all_layers_or_the_one_that_is_named(cli: Cli, tmp_path: Path) -> None:
    file = cross_coder(tmp_path)
    for target, names in ((file, [f"{file}#0", f"{file}#1"]), (f"{file}#1", [f"{file}#1"])):
        done = cli("scan", target, "--no-progress")
        records = [json.loads(line) for line in done.stdout.splitlines()]
        for kind in ("dictionary", "summary"):
            assert [r["sae"] for r in records if r["type"] == kind] == names
        assert done.returncode == 0
        assert done.stderr.count(b"no codes: a cross-layer decoder") == len(names)
    np.save(tmp_path / "x.npy", X)
    done = cli("score", f"{file}#1", "--activations", tmp_path / "x.npy", "--no-progress")
    assert done.returncode == 2
    assert b"#1: a cross-layer decoder" in done.stderr.splitlines()[-1]


def test_layers_that_are_not_there(tmp_path: Path) -> None:
    file = cross_coder(tmp_path / "crossed")
    for target, message in ((f"{file}#2", "has 2, from #0 on"), (file, "holds 2 layers: .*#1")):
        with pytest.raises(AuditError, match=message):
            saeaudit.open(target)
    save_file({"W_dec": t(DEC)}, tmp_path / "flat.safetensors")
    with pytest.raises(AuditError, match="leave #0 out"):
        saeaudit.open(tmp_path / "flat.safetensors#0")
    (tmp_path / "crossed").rename(tmp_path / "run#0")
    with pytest.raises(AuditError, match="holds 2 layers"):
        saeaudit.open(tmp_path / "run#0")  # what is called so comes first


def test_layers_without_rows_are_passed_over(tmp_path: Path) -> None:
    """As in Gemma Scope 2, where a feature writes to no layer before its own."""
    rows = np.stack([0 * DEC, DEC, 0 * DEC], 1)
    file = written(tmp_path, W_dec=rows)
    (only,) = open_layers(resolve(str(file))[0])
    assert only.sae == f"{file}#1"
    assert only.weights.notes[-1] == "layers whose rows are all zero are passed over: #0, #2"
    with pytest.raises(AuditError, match="nothing to audit"):
        saeaudit.open(f"{file}#0")
    with pytest.raises(AuditError, match="nothing to audit"):
        open_layers(resolve(str(written(tmp_path, W_dec=0 * rows)))[0])


def test_layers_that_are_not_finite_are_passed_over(tmp_path: Path) -> None:
    rows = np.stack([DEC, np.nan * DEC, 0 * DEC, DEC], 1)
    file = written(tmp_path, W_dec=rows)
    audited = open_layers(resolve(str(file))[0])
    assert [one.sae for one in audited] == [f"{file}#0", f"{file}#3"]
    for one in audited:
        assert one.weights.notes[-2:] == (
            "layers whose rows are all zero are passed over: #2",
            "layers of which no row is finite and not zero are passed over: #1",
        )
    with pytest.raises(AuditError, match="not finite"):
        saeaudit.open(f"{file}#1")


@pytest.mark.parametrize(
    "beside",
    [
        {"W_enc": np.stack([ENC, ENC])},
        {"W_enc": ENC},
        {"encoder__weight": ENC.T},
        {"b_dec": np.stack([B_DEC, B_DEC])},
        {},
    ],
)
@pytest.mark.parametrize("features_first", [True, False])
def test_what_tells_layers_from_features(
    beside: dict[str, np.ndarray], features_first: bool, tmp_path: Path
) -> None:
    """Where nothing does, the more are the features, which is said of the unusual order."""
    rows = LAYERS if features_first else LAYERS.transpose(1, 0, 2)
    layers = open_layers(resolve(str(written(tmp_path, W_dec=rows, **beside)))[0])
    assert [one.d_sae for one in layers] == [F, F]
    assert np.array_equal(layers[1].weights.decoder, LAYERS[:, 1])
    assumed = [note for note in layers[0].weights.notes if note.startswith("assumed: W_dec")]
    assert assumed == (
        [] if beside or features_first
        else [f"assumed: W_dec [2, {F}, {D}] is [layers, features, d], as there are more features "
              "than layers"]
    )  # fmt: skip


def test_more_layers_than_features_are_settled_by_an_encoder(tmp_path: Path) -> None:
    file = written(tmp_path, W_dec=LAYERS.transpose(1, 0, 2), W_enc=ENC[:, :2])
    assert [one.d_sae for one in open_layers(resolve(str(file))[0])] == [2] * F


def test_shapes_that_contradict_each_other(tmp_path: Path) -> None:
    for wrong, message in (
        ({"W_dec": LAYERS, "b_enc": B_ENC[:7]}, "neither .* there are 7 features"),
        ({"W_dec": LAYERS.astype(np.int32)}, "dtype int32"),
        ({"W_dec": LAYERS, "W_enc": ENC[:, :7]}, "do not belong together"),
        ({"W_dec": LAYERS[..., None]}, "a matrix"),
        ({"W_dec": LAYERS[:2], "b_enc": B_ENC[:2]}, "as many layers as features"),
        ({"W_dec": LAYERS, "W_enc": ENC, "b_dec": np.zeros((F, D))}, "contradict each other"),
    ):
        with pytest.raises(AuditError, match=message):
            saeaudit.open(written(tmp_path, **wrong))
