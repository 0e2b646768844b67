"""Options of the libraries that change codes: each is applied, or refused with its reason."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.codes import make_encoder
from saeaudit.dictionary import MOST_FEATURES, Dictionary
from saeaudit.errors import WeightsError
from saeaudit.weights.find import find_listed, find_weights
from tests.weights import layouts
from tests.weights.layouts import (
    B_DEC,
    B_ENC,
    B_GATE,
    B_MAG,
    DEC,
    ENC,
    R_MAG,
    THRESHOLD,
    D,
    F,
    X,
    centred,
    gate,
    jump,
    relu,
    t,
    top,
)  # fmt: skip

PRE = X @ ENC.astype(float) + B_ENC


def codes(target: Path) -> np.ndarray:
    encoder = make_encoder(saeaudit.open(target), dtype=torch.float64)
    return encoder.codes(torch.from_numpy(X)).numpy()


def decoded(target: Path) -> np.ndarray:
    encoder = make_encoder(saeaudit.open(target), dtype=torch.float64)
    x = torch.from_numpy(X)
    return encoder.decode(encoder.codes(x), x).numpy()


def refused(target: Path, reason: str) -> Dictionary:
    """Scanned by its decoder, and refused for codes with one line."""
    dictionary = saeaudit.open(target)
    assert dictionary.codes_unavailable is not None and reason in dictionary.codes_unavailable
    with pytest.raises(AuditError, match="scan shows") as caught:
        make_encoder(dictionary)
    assert "\n" not in caught.value.line()
    first, *_, last = saeaudit.scan(dictionary)
    assert (first.type, last.type) == ("dictionary", "summary")
    assert first.codes_unavailable == dictionary.codes_unavailable
    return dictionary


def add(file: Path, **tensors: Any) -> None:
    """More tensors in a safetensors file, or fewer where None."""
    merged = load_file(file) | {name: t(v) for name, v in tensors.items() if v is not None}
    save_file({n: v for n, v in merged.items() if tensors.get(n, 0) is not None}, file)


def saelens(root: Path, **config: Any) -> Path:
    return layouts.saelens(root, **config).parent


OLD = {"metadata": {}, "apply_b_dec_to_input": False}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        ({"architecture": "abstopk", "k": 3}, "negative"),
        ({"architecture": "temporal"}, "tokens before"),
        ({"architecture": "quantum"}, "'quantum' is not known"),
        ({"normalize_activations": "zscore"}, "'zscore'"),
        ({"normalize_activations": "covariance_whitening"}, "whitened"),
        ({"architecture": "transcoder", "apply_b_dec_to_input": False}, "a transcoder"),
        ({**OLD, "activation_fn_str": "tanh-relu"}, "'tanh-relu'"),
        ({**OLD, "architecture": "jumprelu", "activation_fn_str": "topk"}, "'topk'"),
        ({"architecture": "topk"}, "no k"),
    ],
)
def test_saelens_that_has_no_codes(config: dict[str, Any], reason: str, tmp_path: Path) -> None:
    refused(saelens(tmp_path, **config), reason)


def test_a_missing_threshold_or_gate_is_named(tmp_path: Path) -> None:
    folder = saelens(tmp_path / "a", architecture="jumprelu")
    add(folder / "sae_weights.safetensors", threshold=None)
    refused(folder, "no threshold")
    folder = saelens(tmp_path / "b", architecture="gated")
    add(folder / "sae_weights.safetensors", b_mag=None)
    refused(folder, "no b_mag")


def test_matching_pursuit(tmp_path: Path) -> None:
    folder = saelens(tmp_path, architecture="matching_pursuit", max_iterations=3)
    add(folder / "sae_weights.safetensors", W_enc=None, b_enc=None)
    expected = np.zeros((len(X), F))
    for row, left in enumerate(centred()):
        for _ in range(3):
            best = int((DEC @ left).argmax())
            value = max(float(DEC[best] @ left), 0.0)
            repeated = value == 0 or expected[row, best] > 0
            expected[row, best] += value
            left = left - value * DEC[best]
            if repeated:
                break
    assert np.allclose(codes(folder), expected, atol=1e-6)
    assert np.allclose(decoded(folder), expected @ DEC + B_DEC, atol=1e-6)


def test_scales_of_fine_tuning_are_applied_or_refused(tmp_path: Path) -> None:
    scales = np.linspace(0.5, 2, F).astype(np.float32)
    folder = saelens(tmp_path, **OLD, finetuning_scaling_factor=True)
    add(folder / "sae_weights.safetensors", finetuning_scaling_factor=scales)
    assert np.allclose(codes(folder), relu(PRE), atol=1e-6)
    assert np.allclose(decoded(folder), (relu(PRE) * scales) @ DEC + B_DEC, atol=1e-5)
    config = json.loads((folder / "cfg.json").read_text()) | {"finetuning_scaling_factor": False}
    (folder / "cfg.json").write_text(json.dumps(config))
    refused(folder, "does not say that it is used")
    add(folder / "sae_weights.safetensors", finetuning_scaling_factor=np.ones(F, np.float32))
    assert np.allclose(decoded(folder), relu(PRE) @ DEC + B_DEC, atol=1e-5)


def test_a_checkpoint_is_scaled_by_the_file_beside_it(tmp_path: Path) -> None:
    folder = saelens(tmp_path, normalize_activations="expected_average_only_in")
    assert "sqrt(d)" in saeaudit.open(folder).weights.notes[0]
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 2.5}')
    expected = relu((2.5 * X - B_DEC) @ ENC + B_ENC)
    assert np.allclose(codes(folder), expected, atol=1e-5)
    assert np.allclose(decoded(folder), (expected @ DEC + B_DEC) / 2.5, atol=1e-5)
    dictionary = saeaudit.open(folder)
    assert dictionary.weights.notes == ()
    assert [Path(f.path).name for f in dictionary.source.files][2] == "activation_scaler.json"
    (folder / "activation_scaler.json").write_text(
        '{"scaling_factor": null, "has_whitening": true}'
    )
    assert "whitened" in refused(folder, "whitened").weights.notes[0]


def cached(root: Path, repository: str, path: str) -> Path:
    return root / f"models--{repository.replace('/', '--')}" / "snapshots" / "0a" / path


def test_what_publishers_say_elsewhere(tmp_path: Path) -> None:
    gpt2 = "sae_group_gpt2_blocks.10.hook_mlp_out_24576:v0"
    for repository, folder, config, scale, normalise in (
        ("tommmcgrath/gpt2-small-mlp-out-saes", gpt2, {"normalize_activations": True},
         0.3619728926727644, "none"),
        ("JoshEngels/Mistral-7B-Residual-Stream-SAEs", "mistral_7b_layer_8", {}, 1.0,
         "constant_norm"),
    ):  # fmt: skip
        written = saelens(tmp_path / "written", **config)
        place = cached(tmp_path, repository, folder)
        place.parent.mkdir(parents=True)
        written.rename(place)
        weights = saeaudit.open(place).weights
        assert (weights.input_scale, weights.output_scale) == (scale, scale)
        assert weights.normalise == normalise
        assert weights.notes == ()
    file = layouts.llama_scope_r1(cached(tmp_path, "fnlp/Llama-Scope-R1-Distill", ""))
    weights = saeaudit.open(file.parent).weights
    assert weights.input_scale == weights.output_scale > 5


def test_embeddings_are_seen_in_their_own_scale(tmp_path: Path) -> None:
    file = layouts.gemma_scope(tmp_path)
    folder = tmp_path / "embedding/width_4k/average_l0_6"
    folder.mkdir(parents=True)
    file.rename(folder / "params.npz")
    expected = jump(X / np.sqrt(D), THRESHOLD)
    assert np.allclose(codes(folder), expected, atol=1e-6)
    assert np.allclose(decoded(folder), (expected @ DEC + B_DEC) * np.sqrt(D), atol=1e-5)


def test_a_path_does_not_make_a_transcoder(tmp_path: Path) -> None:
    for write in (layouts.gemma_scope, layouts.gemma_scope_2):
        file = write(tmp_path / "my transcoders" / write.__name__)
        assert not saeaudit.open(file).weights.maps_elsewhere
    released = cached(tmp_path, "google/gemma-scope-2b-pt-transcoders", "")
    assert saeaudit.open(layouts.gemma_scope(released)).weights.maps_elsewhere
    site = layouts.gemma_scope_2(tmp_path).parent
    (site / "config.json").unlink()
    place = tmp_path / "transcoder_all" / "layer_1_width_16k_l0_small"
    place.parent.mkdir()
    site.rename(place)
    assert saeaudit.open(place).weights.maps_elsewhere


def test_groupmax_and_signed(tmp_path: Path) -> None:
    file = layouts.sparsify(tmp_path)
    config_file = file.parent / "cfg.json"
    config = json.loads(config_file.read_text())
    config_file.write_text(json.dumps(config | {"activation": "groupmax", "k": 3}))
    pre = relu(centred() @ ENC + B_ENC).reshape(len(X), 3, -1)
    largest = pre * (pre == pre.max(-1, keepdims=True))
    assert np.allclose(codes(file.parent), largest.reshape(len(X), F), atol=1e-6)
    for change, reason in (
        ({"activation": "groupmax", "k": 5}, "do not divide"),
        ({"activation": "softmax"}, "'softmax'"),
        ({"signed": True}, "negative"),
    ):
        config_file.write_text(json.dumps(config | change))
        refused(file.parent, reason)


def test_checkpoints_of_dictionary_learning(tmp_path: Path) -> None:
    """Their configuration is one folder up; a folder holds several."""
    final = layouts.dl_autoencoder(tmp_path)
    for step in (10, 2):
        file = final.parent / "checkpoints" / f"ae_{step}.pt"
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(final.read_bytes())
        assert saeaudit.open(file).weights.format == "dictionary_learning"
        assert np.allclose(codes(file), relu(centred() @ ENC + B_ENC), atol=1e-6)
    here = "resid_post_layer_8/trainer_0"
    named = [here, f"{here}/checkpoints/ae_2.pt", f"{here}/checkpoints/ae_10.pt"]
    assert [sae.name for sae in find_weights(tmp_path)] == named
    names = [p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()]
    listed = find_listed(names)
    assert [one.name for one in listed] == named
    assert {one.beside for one in listed} == {(f"{here}/config.json",)}


def test_the_tensors_tell_the_class(tmp_path: Path) -> None:
    file = layouts.dl_new(tmp_path)
    config = file.parent / "config.json"
    config.write_text(config.read_text().replace("AutoEncoderNew", "AutoEncoder"))
    assert "AutoEncoderNew" in saeaudit.open(file).weights.notes[0]
    assert np.allclose(codes(file), relu(PRE), atol=1e-6)


@pytest.mark.parametrize("write", (layouts.dl_autoencoder, layouts.dl_gated, layouts.dl_matryoshka))
def test_dictionary_learning_without_its_configuration(write: Any, tmp_path: Path) -> None:
    file = write(tmp_path)
    whole = codes(file)
    alone = tmp_path / "sae.pt"
    file.rename(alone)
    weights = saeaudit.open(alone).weights
    assert (weights.format, weights.subtract_b_dec) == ("dictionary_learning", True)
    assert np.array_equal(codes(alone), whole)


def test_what_two_classes_save_is_noted(tmp_path: Path) -> None:
    file = layouts.dl_batchtopk(tmp_path)
    state = torch.load(file)
    torch.save({"state_dict": state, "act_mean": t(B_DEC)}, tmp_path / "a.pt")
    notes = saeaudit.open(tmp_path / "a.pt").weights.notes
    assert "AutoEncoderTopK has too" in notes[0] and notes[1].endswith("not used: act_mean")
    assert np.array_equal(codes(tmp_path / "a.pt"), codes(file))
    torch.save({**state, "threshold": torch.tensor(-1.0)}, tmp_path / "a.pt")
    assert saeaudit.open(tmp_path / "a.pt").weights.architecture == "topk"
    assert np.allclose(codes(tmp_path / "a.pt"), top(centred()), atol=1e-6)


def plain(path: Path, **tensors: Any) -> Path:
    file = path / "a.safetensors"
    save_file({name.replace("__", "."): t(value) for name, value in tensors.items()}, file)
    return file


def test_plain_files_say_what_they_can(tmp_path: Path) -> None:
    base = {"W_enc": ENC, "W_dec": DEC, "b_dec": B_DEC}
    linear = {"encoder__weight": ENC.T, "decoder__weight": DEC.T, "latent_bias": B_ENC}
    for tensors, expected, assumed in (
        ({**base, "b_enc": B_ENC}, relu(PRE), "ReLU, input not centred"),
        ({**base, "b_gate": B_GATE, "b_mag": B_MAG, "r_mag": R_MAG}, gate(X), "gated"),
        ({**base, "b_enc": B_ENC, "log_threshold": np.log(THRESHOLD)}, jump(X, THRESHOLD),
         "JumpReLU"),
        ({**base, "b_enc": B_ENC, "threshold": THRESHOLD[:1]}, jump(X, THRESHOLD[0]), "JumpReLU"),
        ({**linear, "pre_bias": B_DEC}, relu(centred() @ ENC + B_ENC), "ReLU, input less"),
    ):  # fmt: skip
        file = plain(tmp_path, **tensors)
        assert np.allclose(codes(file), expected, atol=1e-6)
        (note,) = saeaudit.open(file).weights.notes
        assert f"assumed from its tensors: {assumed}" in note


def test_vectors_are_checked_at_the_door(tmp_path: Path) -> None:
    base = {"W_enc": ENC, "W_dec": DEC, "b_dec": B_DEC}
    for name in ("b_gate", "b_mag", "r_mag"):
        gates = {"b_gate": B_GATE, "b_mag": B_MAG, "r_mag": R_MAG} | {name: B_GATE[:7]}
        with pytest.raises(AuditError, match=f"{name} has shape"):
            saeaudit.open(plain(tmp_path, **base, **gates))
    folder = saelens(tmp_path / "a")
    add(folder / "sae_weights.safetensors", b_enc=np.stack([B_ENC, B_ENC]))
    with pytest.raises(AuditError, match="b_enc has shape"):
        saeaudit.open(folder)
    add(folder / "sae_weights.safetensors", b_enc=B_ENC[None])
    assert np.allclose(codes(folder), relu(centred() @ ENC + B_ENC), atol=1e-6)
    with pytest.raises(AuditError, match="k is -1"):
        saeaudit.open(plain(tmp_path, **base, k=np.int64(-1)))


def test_more_features_than_triples_can_be_keyed_for(tmp_path: Path) -> None:
    rows = np.lib.format.open_memmap(
        tmp_path / "a.npy", mode="w+", dtype=np.float16, shape=(MOST_FEATURES + 1, 1)
    )
    rows[:2] = 1
    with pytest.raises(AuditError, match="at most 2,097,151"):
        saeaudit.open(tmp_path / "a.npy")


def test_overcomplete(tmp_path: Path) -> None:
    state = {
        "encoder.final_block.0.weight": t(ENC.T), "encoder.final_block.0.bias": t(B_ENC),
        "dictionary._weights": t(DEC), "dictionary.multiplier": torch.tensor(0.5),
    }  # fmt: skip
    file = tmp_path / "a.pt"
    torch.save(state, file)
    dictionary = refused(file, "do not say")
    assert dictionary.weights.format == "overcomplete"
    assert np.allclose(dictionary.weights.decoder, DEC * np.exp(0.5), atol=1e-6)
    assert dictionary.encoder is not None and np.array_equal(dictionary.encoder, ENC)
    mixing = np.eye(F, 7, dtype=np.float32)
    points = np.random.default_rng(1).normal(size=(7, D)).astype(np.float32)
    state = {
        "dictionary.W": t(mixing), "dictionary.C": t(points), "dictionary.Relax": t(DEC),
        "dictionary.multiplier": torch.tensor(0.0), "encoder.mlp_blocks.0.0.weight": t(ENC),
        "encoder.final_block.0.weight": t(ENC.T),
    }  # fmt: skip
    torch.save(state, file)
    dictionary = refused(file, "more than a matrix")
    assert np.allclose(dictionary.weights.decoder, mixing @ points + DEC, atol=1e-6)
    assert dictionary.encoder is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dictionary.C": None}, "dictionary.Relax without dictionary.C, which"),
        ({"dictionary.C": np.ones((6, D))}, "does not make the"),
        ({"dictionary.C": np.ones((7, D)).astype(np.float16)}, "of several types"),
        ({"dictionary.Relax": np.ones((4, 3, D))}, r"Relax has shape \[4, 3, 5\]; a matrix"),
        ({"dictionary.multiplier": np.ones(3)}, r"multiplier has shape \[3\]"),
    ],
)
def test_parts_of_overcomplete_that_do_not_fit(
    change: dict[str, np.ndarray | None], message: str, tmp_path: Path
) -> None:
    parts: dict[str, np.ndarray | None] = {
        "dictionary.W": np.eye(F, 7), "dictionary.C": np.ones((7, D)), "dictionary.Relax": DEC,
    }  # fmt: skip
    state = {
        name: t(part if part.dtype == np.float16 else part.astype(np.float32))
        for name, part in (parts | change).items()
        if part is not None
    }
    torch.save(state, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match=message):
        saeaudit.open(tmp_path / "a.pt")


def pursued(rows: np.ndarray, steps: int) -> np.ndarray:
    codes = np.zeros((len(X), F))
    for code, left in zip(codes, X.copy(), strict=True):
        for _ in range(steps):
            best = int((rows @ left).argmax())
            value = float(rows[best] @ left)
            code[best] += value
            left -= value * rows[best]
    return codes


def test_what_overcomplete_leaves_open_can_be_said(tmp_path: Path) -> None:
    unit = DEC / np.linalg.norm(DEC, axis=1, keepdims=True)
    rows = {"dictionary._weights": t(unit), "dictionary.multiplier": torch.tensor(0.0)}
    linear = {"encoder.final_block.0.weight": t(ENC.T), "encoder.final_block.0.bias": t(B_ENC)}
    tied = {"encoder.tied_to._weights": t(unit), "encoder.bias": t(B_ENC)}
    for state, said, expected in (
        (rows | linear, "relu", relu(PRE)),
        (rows | linear, "topk=3", top(X)),
        (rows | tied, "relu", relu(X @ unit.T.astype(float) + B_ENC)),
        (rows | linear | {"thresholds": t(np.log(THRESHOLD))}, None, jump(X, THRESHOLD)),
        (rows, "pursuit=4", pursued(unit, 4)),
    ):
        torch.save(state, tmp_path / "a.pt")
        dictionary = saeaudit.open(tmp_path / "a.pt", assumptions=said)
        assert dictionary.codes_unavailable is None
        encoder = make_encoder(dictionary, dtype=torch.float64)
        assert np.allclose(encoder.codes(torch.from_numpy(X)), expected, atol=1e-5)
        (note,) = dictionary.weights.notes
        assert note.startswith("assumed as --assume says: " if said else "assumed from its tensors")
    torch.save(rows | linear | {"Q": torch.arange(4.0)}, tmp_path / "a.pt")
    with pytest.raises(AuditError, match="nothing to assume"):
        saeaudit.open(tmp_path / "a.pt", assumptions="relu")


def test_square_encoders_are_the_right_way_round(tmp_path: Path) -> None:
    """As many features as the width: the shapes say nothing, the families do."""
    square = ENC[:, :D]
    vectors = {"b_dec": B_DEC, "b_enc": B_ENC[:D]}
    for name, tensors in (
        ("sae.safetensors", {"W_dec": DEC[:D], "encoder.weight": square.T, "b_dec": B_DEC}),
        ("layer_4.safetensors", {"W_dec": DEC[:D], "W_enc": square.T, **vectors}),
        ("a.safetensors", {"W_dec": DEC[:D], "W_enc": square, **vectors}),
        ("b.safetensors", {"W_dec": DEC[:D], "encoder.weight": square.T, **vectors}),
        ("c.safetensors", {"decoder.weight": DEC[:D].T, "encoder.weight": square.T, **vectors}),
    ):
        save_file({key: t(value) for key, value in tensors.items()}, tmp_path / name)
        if name == "sae.safetensors":
            (tmp_path / "cfg.json").write_text(json.dumps({"d_in": D, "num_latents": D, "k": 2}))
        dictionary = saeaudit.open(tmp_path / name)
        assert dictionary.encoder is not None
        assert np.array_equal(dictionary.encoder, square), name
        assert np.array_equal(dictionary.weights.decoder, DEC[:D])


def test_temporal(tmp_path: Path) -> None:
    dictionary = refused(layouts.temporal(tmp_path), "depend on the tokens before")
    assert np.array_equal(dictionary.weights.decoder, DEC)
    assert dictionary.encoder is not None and np.array_equal(dictionary.encoder, ENC)
    assert [sae.name for sae in find_weights(tmp_path)] == ["layer_12/temporal"]


def test_top_k_without_k_is_still_scanned(tmp_path: Path) -> None:
    file = layouts.qwen_scope(tmp_path)
    assert np.allclose(codes(file), top(X), atol=1e-6)
    alone = tmp_path / "elsewhere" / file.name
    alone.parent.mkdir()
    file.rename(alone)
    refused(alone, "no k")


def test_a_reason_hides_none_of_the_others(tmp_path: Path) -> None:
    dictionary = saeaudit.open(saelens(tmp_path))
    bare = replace(dictionary, weights=replace(dictionary.weights, encoder=None))
    assert bare.codes_unavailable == "there is no encoder in this file"


@pytest.mark.parametrize("count", [D, F])
def test_an_encoder_named_w_enc_beside_a_linear_decoder(count: int, tmp_path: Path) -> None:
    """A square one is what its name says, as those are whose lengths tell, and that is noted."""
    state = {"decoder.weight": t(DEC[:count].T), "W_enc": t(ENC[:, :count])}
    save_file(state, tmp_path / "a.safetensors")
    dictionary = saeaudit.open(tmp_path / "a.safetensors")
    assert np.array_equal(dictionary.weights.decoder, DEC[:count])
    assert dictionary.encoder is not None and np.array_equal(dictionary.encoder, ENC[:, :count])
    said = [note for note in dictionary.weights.notes if "square encoder [5, 5] is [d, F]" in note]
    assert len(said) == (count == D)
