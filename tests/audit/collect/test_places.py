"""Every hook against a forward pass by hand, and how a hook is written."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from saeaudit import AuditError
from saeaudit.audit.collect.model import Model
from saeaudit.audit.collect.names import FAMILIES, family_of_model
from saeaudit.audit.collect.places import Place, find_place
from saeaudit.audit.collect.tap import activations_at
from tests.audit.collect.by_hand import by_hand
from tests.support.models import CONFIGS, VOCABULARY

ModelOf = Callable[[str], Model]
TEXT = torch.randint(3, VOCABULARY, (11,), generator=torch.Generator().manual_seed(1))


def run(model: Model, hook: str, ids: Tensor = TEXT, *, centred: bool = False) -> Tensor:
    place = find_place(model.decoder, hook, centred=centred)
    return activations_at(model.decoder, place, ids[None], torch.ones_like(ids)[None])[0]


def same(x: Tensor, expected: Tensor) -> None:
    """Each activation to 1e-5 of its norm, which is some fifty of float32's roundings."""
    error = (x.double() - expected).norm(dim=-1)
    assert x.shape == expected.shape and (error <= 1e-5 * expected.norm(dim=-1)).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_hook_is_what_a_forward_pass_by_hand_gives(name: str, model_of: ModelOf) -> None:
    model = model_of(name)
    hooks, last = by_hand(name, model.decoder, TEXT)
    family = family_of_model(model.decoder.config)
    assert family is not None
    assert hooks.keys() == family.outside.keys() | {
        f"blocks.{layer}.{hook}" for layer in range(3) for hook in family.inside
    }
    for hook, expected in hooks.items():
        same(run(model, hook), expected)
    with torch.no_grad():
        same(model.decoder(input_ids=TEXT[None]).last_hidden_state[0], last)
    if name != "bert":  # whose norm is part of the layer
        assert not torch.allclose(last, hooks["blocks.2.hook_resid_post"], atol=1e-2)


@pytest.mark.parametrize("name", ["gemma2", "gpt2", "bert"])
def test_padding_behind_a_text_changes_nothing(name: str, model_of: ModelOf) -> None:
    model = model_of(name)
    ids = torch.stack([TEXT, torch.cat([TEXT[:6].flip(0), torch.zeros(5, dtype=torch.long)])])
    mask = torch.ones_like(ids)
    mask[1, 6:] = 0
    place = find_place(model.decoder, "blocks.2.hook_out")
    batch = activations_at(model.decoder, place, ids, mask)
    same(batch[0], run(model, str(place)).double())
    same(batch[1, :6], run(model, str(place), ids[1, :6]).double())


def test_centring_takes_the_mean_off_what_is_written(model_of: ModelOf) -> None:
    model = model_of("gpt2")
    for hook in ("blocks.1.hook_resid_pre", "blocks.1.hook_mlp_out", "hook_embed"):
        raw = run(model, hook).double()
        same(run(model, hook, centred=True), raw - raw.mean(-1, keepdim=True))
    for name, hook in (
        ("gpt2", "blocks.1.attn.hook_z"), ("gpt2", "blocks.1.mlp.hook_in"),
        ("llama", "blocks.1.hook_resid_pre"), ("gpt2", "h.1:in"),
    ):  # fmt: skip
        assert not find_place(model_of(name).decoder, hook, centred=True).subtract_mean


@pytest.mark.parametrize(
    ("name", "hook", "place"),
    [
        ("gemma3_text", "model.layers.1.output", "layers.1:out"),
        ("gemma3_text", "model.language_model.layers.2.self_attn.o_proj.input",
         "layers.2.self_attn.o_proj:in"),
        ("llama", " layers.0.mlp ", "layers.0.mlp:out"),
        ("llama", "layers.0.mlp:in", "layers.0.mlp:in"),
        ("gpt2", "transformer.h.2:out", "h.2:out"),
        ("gpt_neox", "gpt_neox.layers.2", "layers.2:out"),
        ("bert", "encoder.layer.1", "encoder.layer.1:out"),
        ("gemma2", "blocks.01.hook_mlp_out", "layers.1.post_feedforward_layernorm:out"),
    ],
)  # fmt: skip
def test_paths_of_modules(name: str, hook: str, place: str, model_of: ModelOf) -> None:
    model = model_of(name)
    assert str(find_place(model.decoder, hook)) == place
    assert str(find_place(model.decoder, place)) == place


@pytest.mark.parametrize(
    ("name", "hook", "says"),
    [
        ("llama", "layers.9.mlp", "no module 'layers.9.mlp' .*layers.N.mlp.* N from 0 to 2"),
        ("llama", "layers.1.mpl", "did you mean layers.1.mlp"),
        ("llama", "blocks.7.hook_resid_post", "no module 'layers.7:out', which 'blocks.7"),
        ("llama", "blocks.1.hook_mlp_in", "no place is known .*blocks.N.ln2.hook_normalized"),
        ("gpt_neox", "blocks.1.hook_resid_mid", "no place is known"),
        ("llama", "", "no module ''"),
        ("llama", ":in", "no module ':in'"),
        ("llama", "model", "no module 'model'"),
        ("llama", "layers.1.mlp:sideways", "no module"),
        ("llama", "a" * 10_000, "no module"),
        ("llama", "hook_" + "." * 10_000, "no place"),
    ],
)
def test_unknown_hooks(name: str, hook: str, says: str, model_of: ModelOf) -> None:
    with pytest.raises(AuditError, match=says) as caught:
        find_place(model_of(name).decoder, hook)
    assert len(caught.value.line()) < 1000


def test_other_kinds_of_models_have_modules_alone(model_of: ModelOf) -> None:
    decoder = model_of("llama").decoder
    assert "unheard_of" not in FAMILIES
    other = nn.ModuleDict({"layers": decoder.get_submodule("layers")})
    other.config = type("Config", (), {"model_type": "unheard_of"})()
    assert str(find_place(other, "layers.1")) == "layers.1:out"
    with pytest.raises(AuditError, match=r"of type unheard_of .a module's path"):
        find_place(other, "blocks.1.hook_resid_post")


class Layers(nn.Module):
    """Three layers that count; the second gives what it is told to."""

    def __init__(self, second: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.unused = nn.Linear(4, 4)
        self.passes = 0
        for layer in self.layers:
            layer.register_forward_pre_hook(self.count)
        self.layers[1].register_forward_hook(lambda _, __, out: second(out))

    def count(self, *_: object) -> None:
        self.passes += 1

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        x = input_ids[..., None].float().expand(*input_ids.shape, 4)
        for layer in self.layers:
            x = layer(x)
        return x


def test_tuples_and_tensors_and_no_step_further() -> None:
    ids = TEXT[None]
    for second in (lambda out: out, lambda out: (out, None)):
        model = Layers(second)
        x = activations_at(model, Place("layers.1", "out"), ids, torch.ones_like(ids))
        assert x.shape == (1, 11, 4) and not x.requires_grad and model.passes == 2
        assert len(model.layers[1]._forward_hooks) == 1
        activations_at(model, Place("layers.1", "in"), ids, torch.ones_like(ids))
        assert model.passes == 4


@pytest.mark.parametrize(
    ("second", "place", "says"),
    [
        (lambda out: {"a": out}, Place("layers.1", "out"), "no vector for each token: dict"),
        (lambda out: out[:, -1], Place("layers.1", "out"), r"each token: \(1, 4\) for tokens"),
        (lambda out: out, Place("unused", "in"), "does not go through this module"),
    ],
)
def test_places_without_activations(second: Callable, place: Place, says: str) -> None:
    model, ids = Layers(second), TEXT[None]
    with pytest.raises(AuditError, match=says):
        activations_at(model, place, ids, torch.ones_like(ids))
    assert not model.get_submodule(place.module)._forward_pre_hooks or place.module != "unused"
