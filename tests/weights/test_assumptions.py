"""What a plain file leaves open: what users say of it, and which reading is better."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.codes import make_encoder, tell_better_reading
from saeaudit.audit.mediators.inputs import MediatorInputs
from saeaudit.audit.score.inputs import ScoreInputs
from saeaudit.sources.neuronpedia import FeatureStatistics
from saeaudit.weights.assumptions import readings
from tests.conftest import Cli
from tests.support.notes import Notes
from tests.weights import layouts
from tests.weights.layouts import B_DEC, B_ENC, DEC, ENC, THRESHOLD, F, X, centred, relu, t, top


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.safetensors"
    save_file({"W_enc": t(ENC), "W_dec": t(DEC), "b_enc": t(B_ENC), "b_dec": t(B_DEC)}, path)
    return path


def test_what_is_said_is_how_it_is_read(file: Path) -> None:
    k = len(top(X)[0].nonzero()[0])
    inside = centred() @ ENC + B_ENC
    kept = inside >= np.sort(inside, 1)[:, -k, None]
    for said, expected, note in (
        ("centred", relu(inside), "ReLU, input less the decoder's bias"),
        ("uncentred, relu", relu(X @ ENC + B_ENC), "ReLU, input not centred"),
        (f"topk={k}, centred", relu(inside) * kept, "TopK, input less the decoder's bias"),
    ):
        dictionary = saeaudit.open(file, assumptions=said)
        encoder = make_encoder(dictionary, dtype=torch.float64)
        assert np.allclose(encoder.codes(torch.from_numpy(X)), expected, atol=1e-6)
        assert dictionary.weights.notes == (f"assumed as --assume says: {note}",)
    linear = saeaudit.open(file, assumptions="linear")
    assert linear.codes_unavailable == "a linear encoder, whose codes may be negative"


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("", "'' in '' is unknown"),
        ("centered", "'centered'"),
        ("topk", "'topk'"),
        ("topk=0", "'topk=0'"),
        ("jumprelu", "no thresholds"),
        ("pursuit", "'pursuit'"),
        ("centred,uncentred", "'uncentred'"),
        ("relu,topk=3", "'topk=3'"),
        (f"topk={F + 1}", f"but {F} features"),
    ],
)
def test_what_makes_no_sense_is_refused(said: str, message: str, file: Path) -> None:
    with pytest.raises(AuditError, match=message):
        saeaudit.open(file, assumptions=said)


def test_files_that_say_for_themselves_are_not_assumed_of(tmp_path: Path) -> None:
    with pytest.raises(AuditError, match="is gemma_scope, not plain: nothing to assume"):
        saeaudit.open(layouts.LAYOUTS["gemma_scope"][0](tmp_path), assumptions="centred")
    save_file({"W_dec": t(DEC)}, tmp_path / "bare.safetensors")
    with pytest.raises(AuditError, match="has no encoder: nothing to assume"):
        saeaudit.open(tmp_path / "bare.safetensors", assumptions="relu")
    save_file({"W_enc": t(ENC), "W_dec": t(DEC)}, tmp_path / "unbiased.safetensors")
    with pytest.raises(AuditError, match="no decoder bias"):
        saeaudit.open(tmp_path / "unbiased.safetensors", assumptions="centred")


PLAIN = {"W_enc": t(ENC), "W_dec": t(DEC), "b_enc": t(B_ENC), "b_dec": t(B_DEC)}


@pytest.mark.parametrize(
    ("names", "one", "other"),
    [
        ("b_dec: b_dec and pre_bias", {}, {"pre_bias": t(B_DEC)}),
        ("b_enc: b_enc and latent_bias", {}, {"latent_bias": t(B_ENC)}),
        ("encoder: W_enc and encoder.weight", {}, {"encoder.weight": t(ENC.T)}),
        ("threshold: threshold and log_threshold", {"threshold": t(THRESHOLD)},
         {"log_threshold": t(np.log(THRESHOLD))}),
        ("k: k = 3, top_k = 4", {"k": torch.tensor(3)}, {"top_k": torch.tensor(3)}),
    ],
)  # fmt: skip
def test_two_names_for_one_field_must_agree(
    names: str, one: dict[str, Any], other: dict[str, Any], tmp_path: Path
) -> None:
    file = tmp_path / "a.pt"
    torch.save(PLAIN | one | other, file)
    weights = saeaudit.open(file).weights
    assert weights.encoder is not None and weights.b_enc is not None and weights.b_dec is not None
    assert np.array_equal(weights.encoder(), ENC)
    torch.save(PLAIN | one | {name: value + 1 for name, value in other.items()}, file)
    with pytest.raises(AuditError, match=f"two names for {names}"):
        saeaudit.open(file)


def test_numbered_layers_are_not_two_names(tmp_path: Path) -> None:
    network = {"encoder.0.weight": t(ENC.T), "encoder.2.weight": torch.eye(F)}
    torch.save({"W_dec": t(DEC)} | network, tmp_path / "a.pt")
    assert saeaudit.open(tmp_path / "a.pt").weights.architecture == "decoder-only"


@pytest.mark.parametrize(
    ("k", "says"),
    [
        (torch.tensor([3]), None),
        (torch.tensor(3.0), None),
        (3.0, None),
        (torch.tensor(3.5), "k is 3.5"),
        (torch.tensor(3 + 1j), "a whole number"),
        (torch.tensor(True), "k is True"),
        (True, "k is True"),
        (3.5, "k is 3.5"),
        (torch.tensor([3, 3]), r"of shape \[2\]"),
        (F + 1, f"only {F} features"),
    ],
)
def test_a_stored_k_is_a_whole_number(k: Any, says: str | None, tmp_path: Path) -> None:
    torch.save(PLAIN | {"k": k}, tmp_path / "a.pt")
    if says is None:
        weights = saeaudit.open(tmp_path / "a.pt").weights
        assert (weights.architecture, weights.k) == ("topk", 3)
        return
    with pytest.raises(AuditError, match=says):
        saeaudit.open(tmp_path / "a.pt")


def notes_of(dictionary: saeaudit.Dictionary, x: torch.Tensor) -> list[str]:
    """What mediators and score say of how well the file's readings fit, the same of both."""
    said = []
    statistics = FeatureStatistics(0.5, (0.5, 1.5), (8.0, 4.0))
    for run, inputs in (
        (saeaudit.mediators, MediatorInputs(x)),
        (saeaudit.score, ScoreInputs(x)),
        (saeaudit.score, ScoreInputs(x, features={0: statistics})),
    ):
        notes = Notes()
        list(run(dictionary, inputs, observer=notes))
        said.append([line for line in notes.lines if "shares of the variance" in line])
    assert said[0] == said[1] == said[2]
    return said[0]


def test_activations_say_which_reading_is_better(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    codes = rng.exponential(1, (40, 6)) * (rng.random((40, 6)) < 0.5)
    x = torch.from_numpy(codes + 5.0 + 0.05 * rng.normal(size=codes.shape))
    file = tmp_path / "a.safetensors"
    save_file({"W_enc": t(np.eye(6)), "W_dec": t(np.eye(6)), "b_dec": t(np.full(6, 5.0))}, file)
    (line,) = notes_of(saeaudit.open(file), x)
    assert "on the first 40 activations" in line
    assert line.endswith(": relu,centred is best (--assume relu,centred reads it so)")
    assert notes_of(saeaudit.open(file, assumptions="centred"), x) == []


def told(file: Path, x: torch.Tensor, **options: Any) -> list[str]:
    notes = Notes()
    tell_better_reading(saeaudit.open(file, **options), x, "cpu", notes)
    return notes.lines


def test_a_reading_that_is_not_finite_is_never_best(tmp_path: Path) -> None:
    """Where none is finite nothing is said; where one is NaN the other is best."""
    x = torch.from_numpy(np.random.default_rng(0).exponential(1, (40, 6)))
    base = {"W_enc": t(np.eye(6)), "W_dec": t(np.eye(6)), "threshold": t(np.full(6, 0.5))}
    file = tmp_path / "a.safetensors"
    save_file(base | {"b_dec": t(np.full(6, np.inf))}, file)
    assert told(file, x) == []
    save_file(base | {"b_enc": t(np.full(6, 1e200))}, file)
    assert told(file, x) == []
    encoder, bias = np.eye(6), np.zeros(6)
    encoder[0, 0], bias[0] = np.inf, 100.0  # less the bias its first feature is silent
    save_file({"W_enc": t(encoder), "W_dec": t(np.eye(6)), "b_dec": t(bias)}, file)
    (line,) = told(file, x)
    assert "relu,uncentred nan" in line and ": relu,centred is best" in line


def test_activations_say_what_follows_the_matrix(tmp_path: Path) -> None:
    """Each file is of one activation, leaves it open, and is read as another."""
    rng = np.random.default_rng(0)
    codes = rng.exponential(1, (60, 8)) * (rng.random((60, 8)) < 0.5)
    codes[codes < 0.5] = 0
    noise = np.where(codes > 0, 0, rng.uniform(0, 0.4, codes.shape))
    x = torch.from_numpy(codes + noise)
    eye = {"W_enc": t(np.eye(8)), "W_dec": t(np.eye(8))}
    file = tmp_path / "a.safetensors"
    for tensors, read, better in (
        ({"threshold": t(np.full(8, 2.0))}, "jumprelu", "relu"),
        ({"k": torch.tensor(2), "threshold": t(np.zeros(8))}, "topk=2", "relu"),
        ({"k": torch.tensor(8)}, "topk=8", None),
    ):
        save_file(eye | tensors, file)
        (line,) = told(file, x)
        assert f"variance: {read},uncentred " in line
        if better is None:
            assert line.endswith("is best (as it is read)")
            continue
        assert line.endswith(
            f"{better},uncentred is best (--assume {better},uncentred reads it so)"
        )
        said = f"{better},uncentred"
        assert saeaudit.open(file, assumptions=said).codes_unavailable is None
        assert told(file, x, assumptions=said) == []
    save_file(
        eye | {"b_gate": t(np.zeros(8)), "b_mag": t(np.zeros(8)), "r_mag": t(np.zeros(8))}, file
    )
    assert told(file, x) == []  # gates are no assumption


def test_what_is_said_of_the_activation_leaves_the_centring_open(file: Path) -> None:
    weights = saeaudit.open(file, assumptions="topk=3").weights
    assert list(readings(weights)) == ["topk=3,uncentred", "topk=3,centred"]
    weights = saeaudit.open(file, assumptions="centred").weights
    assert list(readings(weights)) == ["relu,centred"]


def test_every_command_takes_it(cli: Cli, file: Path) -> None:
    np.save(file.parent / "x.npy", X)
    for command in (["scan"], ["mediators", "--activations", "x.npy"],
                    ["score", "--activations", "x.npy", "--explanations", "none"]):  # fmt: skip
        done = cli(*command, file, "--assume", "centred", "--no-progress")
        assert b"assumed as --assume says: ReLU, input less the decoder's bias" in done.stderr
        (told,) = (
            r for r in map(json.loads, done.stdout.splitlines()) if r["type"] == "dictionary"
        )
        assert told["centred"] is True
        refused = cli(*command, file, "--assume", "centered")
        assert refused.returncode == 2 and refused.stderr.count(b"\n") == 1
        assert b"--assume" in refused.stderr
