"""What `import saeaudit` offers: SAEs in memory, records as frames and tables, Python's words."""

from __future__ import annotations

import copy
import html.parser
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import get_args

import numpy as np
import polars
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import saeaudit
from saeaudit import AuditError
from saeaudit.audit.codes import make_encoder
from saeaudit.errors import in_python
from saeaudit.records import Record, dump
from tests.support.records import EVIL, RUN

F, D = 24, 10
DRAWN = torch.Generator().manual_seed(3)
W_DEC = torch.randn(F, D, generator=DRAWN)
W_DEC[1] = 0.9 * W_DEC[0]
W_ENC = torch.randn(D, F, generator=DRAWN)
B_ENC, B_DEC = torch.randn(F, generator=DRAWN), torch.randn(D, generator=DRAWN)
X = torch.randn(7, D, generator=DRAWN)
PAGE = Path(__file__).parents[1] / "docs" / "python.md"


def pairs(target: object) -> list[tuple[int, ...]]:
    return [record.features for record in saeaudit.scan(target) if record.type == "pair"]


class Tied(nn.Module):
    """A TopK of a training loop, in nn.Linear's layout and on the graph."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(D, F), nn.Linear(F, D)
        self.k = 3
        with torch.no_grad():
            self.decoder.weight.copy_(W_DEC.T)
            self.encoder.weight.copy_(W_ENC.T)
            self.encoder.bias.copy_(B_ENC)
            self.decoder.bias.copy_(B_DEC)


class Lens:
    """What SAELens's SAE has: `cfg.to_dict`, `state_dict`, a hook that changes what is saved."""

    def __init__(self, **changes: object) -> None:
        config = {"architecture": "jumprelu", "d_in": D, "d_sae": F, "apply_b_dec_to_input": True,
                  "normalize_activations": "none", "metadata": {}} | changes  # fmt: skip
        self.cfg = SimpleNamespace(to_dict=lambda: config)
        self.log_threshold = nn.Parameter(torch.full((F,), -1.0))

    def state_dict(self) -> dict[str, torch.Tensor]:
        return {"W_dec": nn.Parameter(W_DEC), "W_enc": W_ENC, "b_enc": B_ENC, "b_dec": B_DEC,
                "log_threshold": self.log_threshold}  # fmt: skip

    def process_state_dict_for_saving(self, state: dict[str, torch.Tensor]) -> None:
        state["threshold"] = state.pop("log_threshold").exp()


@pytest.mark.parametrize(
    "target",
    [W_DEC, nn.Parameter(W_DEC), W_DEC.numpy(), W_DEC.tolist(), Tied(), Tied().state_dict(),
     {"W_dec": W_DEC.numpy()}, Lens(), saeaudit.from_tensors(W_DEC)],
    ids=["tensor", "parameter", "array", "lists", "module", "state", "arrays", "saelens",
         "dictionary"],
)  # fmt: skip
def test_whatever_is_in_memory_is_opened_and_scanned(target: object) -> None:
    assert pairs(target) == [(0, 1)]
    assert saeaudit.open(target, name="step 5").d_sae == F


def test_a_path_and_a_target_are_scanned_too(tmp_path: Path) -> None:
    save_file({"W_dec": W_DEC}, tmp_path / "a.safetensors")
    assert pairs(tmp_path / "a.safetensors") == pairs(str(tmp_path / "a.safetensors")) == [(0, 1)]
    again = [dump(record) for record in saeaudit.scan("sample")]
    assert again == [dump(record) for record in saeaudit.scan(saeaudit.open("sample"))]
    inputs = saeaudit.MediatorInputs(torch.randn(5, 384, generator=DRAWN))
    assert next(saeaudit.mediators("sample", inputs)).sae == "sample"


def codes(dictionary: saeaudit.Dictionary) -> torch.Tensor:
    return make_encoder(dictionary, dtype=torch.float64).codes(X.double())


def test_an_sae_in_memory_has_the_codes_of_its_formula() -> None:
    x, w, b, bias = X.double(), W_ENC.double(), B_ENC.double(), B_DEC.double()
    before, threshold = (x - bias) @ w + b, torch.full((F,), 0.7)
    relu = saeaudit.from_tensors(W_DEC, W_ENC, b_enc=B_ENC, b_dec=B_DEC, centred=True)
    assert torch.allclose(codes(relu), before.relu())
    jump = saeaudit.from_tensors(W_DEC, W_ENC.numpy(), b_enc=B_ENC, threshold=threshold)
    plain = x @ w + b
    assert torch.allclose(codes(jump), plain * (plain > threshold.double()))
    shared = saeaudit.from_tensors(W_DEC, W_ENC, b_enc=B_ENC.tolist(), threshold=0.7)
    assert torch.equal(codes(shared), codes(jump)) and shared.weights.unstated == ("centring",)
    topk = saeaudit.open(Tied())
    least = plain.topk(3).values.min(1, keepdim=True).values
    assert torch.allclose(codes(topk), (plain * (plain >= least)).relu())
    assert topk.weights.architecture == "topk" and topk.weights.decoder.requires_grad is False
    said = saeaudit.open(Tied(), assumptions="centred,relu")
    assert torch.allclose(codes(said), before.relu())


def test_saelens_in_memory_is_what_it_saves(tmp_path: Path) -> None:
    sae = Lens()
    opened = saeaudit.from_saelens(sae, name="step 7")
    state = sae.state_dict()
    sae.process_state_dict_for_saving(state)
    save_file({name: tensor.detach() for name, tensor in state.items()},
              tmp_path / "sae_weights.safetensors")  # fmt: skip
    (tmp_path / "cfg.json").write_text(json.dumps(sae.cfg.to_dict()))
    saved = saeaudit.open(tmp_path)
    assert torch.equal(codes(opened), codes(saved)) and opened.weights.architecture == "jumprelu"
    kept = [field for field in vars(saved.weights) if field not in ("encoder", "notes")]
    for field in kept:
        one, other = getattr(opened.weights, field), getattr(saved.weights, field)
        same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
        assert same, field
    assert "log_threshold" in sae.state_dict(), "the SAE itself is as it was"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: saeaudit.from_tensors(W_DEC, W_ENC.T), "(W_enc.T has)"),
        (lambda: saeaudit.from_tensors(W_DEC, W_ENC[:, 1:]), "one feature a column"),
        (lambda: saeaudit.from_tensors(W_DEC, W_ENC, b_enc=B_DEC), "b_enc has shape [10]"),
        (lambda: saeaudit.from_tensors(W_DEC, "words"), "W_enc is no tensor"),
        (lambda: saeaudit.from_tensors(W_DEC, W_ENC, k=0), "k is 0"),
        (lambda: saeaudit.from_tensors(W_DEC, W_ENC.to(torch.complex64)), "floats were expected"),
        (lambda: saeaudit.from_tensors(W_DEC, W_ENC, centred=True), "there is no b_dec"),
        (lambda: saeaudit.from_tensors(W_DEC, W_ENC, architecture="relu"), "known: standard"),
        (lambda: saeaudit.from_tensors(W_DEC, W_ENC.to("meta")), "no data"),
        (lambda: saeaudit.open(W_DEC.to_sparse()), "sparse"),
        (lambda: saeaudit.open(nn.Linear(F, D, device="meta")), "no data"),
        (lambda: saeaudit.open(W_DEC, assumptions="centred"), "nothing to assume"),
        (lambda: saeaudit.open({"W_dec": torch.ones(F, 2, D)}), "several layers"),
        (lambda: saeaudit.from_saelens(Tied()), "saeaudit.from_tensors takes any"),
        (lambda: saeaudit.from_saelens(Lens(d_sae="many")), "d_sae is 'many'"),
        (lambda: saeaudit.open(3), "an object of type int cannot be opened"),
        (lambda: saeaudit.open({"a": W_DEC, "b": W_DEC}), "no obvious decoder"),
        (lambda: saeaudit.open(nn.Linear(2, 3)), "no obvious decoder"),
        (lambda: saeaudit.open(Tied(), assumptions="centered"), "assumptions: 'centered'"),
        (lambda: list(saeaudit.scan("nowhere.npz")), "nowhere.npz"),
        (lambda: saeaudit.ScanOptions(min_cosine=3), "min_cosine"),
        (lambda: saeaudit.ScanOptions(triples=((1, 2),)), "triples: (1, 2) is not 3 feature"),
        (lambda: saeaudit.ScanOptions(pairs=((1, 2, 3),)), "pairs: (1, 2, 3) is not 2 feature"),
        (lambda: list(saeaudit.mediators("sample", torch.ones(2, 3))), "of type Tensor (Medi"),
        (lambda: list(saeaudit.score("sample", torch.ones(2, 3))), "of type Tensor (Score"),
        (lambda: saeaudit.ScoreOptions(bin_width=1.0, distortion=0.1), "bin_width and distortion"),
        (lambda: list(saeaudit.score("sample", saeaudit.ScoreInputs(), saeaudit.ScoreOptions(
            control="shuffled-labels"))), "(explanations)"),
        (lambda: saeaudit.read("nowhere.jsonl"), "cannot be read"),
    ],
)  # fmt: skip
def test_errors_speak_of_arguments(call, says: str) -> None:
    with pytest.raises(AuditError) as caught:
        call()
    assert says in str(caught.value)
    assert not re.search(r"(?<![\w/])--[a-z]", str(caught.value))


def test_options_and_arguments_are_told_apart() -> None:
    error = AuditError("is dead", where="--triple 1,2,3", hint="--include-collapsed keeps it")
    assert error.line() == "--triple 1,2,3: is dead (--include-collapsed keeps it)"
    assert str(error) == "triples 1,2,3: is dead (include_collapsed=True keeps it)"
    for kept in ("saeaudit fetch a --features", "(`saeaudit mediators a --scan -`)",
                 "models--google--gemma: damaged", "a -- b"):  # fmt: skip
        assert in_python(kept) == kept


def test_what_is_typed_shows_itself_in_one_line() -> None:
    zero = torch.cat([W_DEC, torch.zeros(2, D)])
    dictionary = saeaudit.from_tensors(zero, name=EVIL)
    inputs = saeaudit.MediatorInputs(torch.zeros(5, 4), ["a"] * 5, findings=[RUN])
    records = saeaudit.Records(saeaudit.scan(dictionary))
    for value in (dictionary, dictionary.weights, inputs, records, saeaudit.ScoreInputs()):
        assert len(repr(value).splitlines()) == 1 and len(repr(value)) < 300
        assert "\x1b" not in repr(value)
    assert repr(dictionary).endswith(": 26 features x 10, decoder-only, float32, 2 zero>")
    assert repr(inputs) == (
        "MediatorInputs(activations=<float32 [5, 4]>, tokens=<list of 5>, findings=<list of 1>)"
    )
    assert repr(saeaudit.Records([RUN])) == "<1 record: 1 run>"
    assert repr(saeaudit.Records()) == "<0 records>"


class Cells(html.parser.HTMLParser):
    """Reads a table's cells, and which tags there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags, self.texts = set(), []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: object) -> None:
        assert not attrs
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_notebooks_get_tables_that_texts_cannot_leave() -> None:
    dictionary = saeaudit.from_tensors(W_DEC, name=f"<script>{EVIL}")
    records = saeaudit.Records([*saeaudit.scan(dictionary)] * 9)
    for value in (dictionary, records):
        cells = Cells(value._repr_html_())
        assert cells.tags <= {"table", "thead", "tbody", "tr", "th", "td", "p"}
        assert any(text.startswith("<script>a") for text in cells.texts)
    assert cells.texts[-1] == f"… {len(records) - 20} more"
    assert any("features 0 and 1: decoder cosine 1.000" in text for text in cells.texts)


def test_records_are_read_and_framed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = list(saeaudit.scan("sample/stitched"))
    file = tmp_path / "scan.jsonl"
    file.write_text("".join(f"{dump(record)}\n" for record in made))
    records = saeaudit.read(file)
    assert [dump(r) for r in records] == [dump(r) for r in made]
    frame = saeaudit.to_frame(records, "polars")
    assert isinstance(frame, polars.DataFrame) and frame.height == len(records)
    assert frame.columns[0] == "type"
    duplicates = frame.filter(polars.col("kind") == "duplicate")
    assert duplicates["cosine"].to_list() == [
        r.cosine for r in made if r.type == "pair" and r.kind == "duplicate"
    ]
    assert saeaudit.to_frame([], "polars").height == 0
    monkeypatch.delitem(sys.modules, "pandas", raising=False)
    assert isinstance(saeaudit.to_frame(records), polars.DataFrame), "the one that is imported"
    pandas = ModuleType("pandas")
    pandas.DataFrame = lambda rows: rows
    monkeypatch.setitem(sys.modules, "pandas", pandas)
    assert saeaudit.to_frame(records)[0]["type"] == "dictionary"
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(AuditError, match="pip install pandas"):
        saeaudit.to_frame(records, "pandas")


def test_every_record_type_is_exported() -> None:
    for kind in get_args(Record):
        assert getattr(saeaudit, kind.__name__) is kind and kind.__name__ in saeaudit.__all__
    assert all(hasattr(saeaudit, name) for name in saeaudit.__all__)
    with pytest.raises(AttributeError, match="no attribute 'scna'"):
        saeaudit.scna  # noqa: B018


def test_numbers_are_those_that_rules_name() -> None:
    *_, summary = saeaudit.scan(W_DEC)
    numbers = saeaudit.numbers(summary)
    assert (numbers["pairs"], numbers["live_features"]) == (1.0, 24.0)
    assert numbers["max_cosine.quantiles.p50"] == summary.max_cosine.quantiles.p50
    assert all(isinstance(value, float) and np.isfinite(value) for value in numbers.values())


def recipe() -> dict[str, object]:
    """What the page's recipe for loggers defines."""
    (code,) = (
        block
        for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.M | re.S)
        if "def log_to_wandb" in block
    )
    names: dict[str, object] = {}
    exec(code, names)
    return names


def test_the_recipe_logs_what_a_scan_finds() -> None:
    logged: list[tuple[dict[str, float], int]] = []
    run = SimpleNamespace(log=lambda values, step: logged.append((values, step)))
    scalars: dict[str, float] = {}
    writer = SimpleNamespace(add_scalar=lambda name, value, step: scalars.update({name: value}))
    names = recipe()
    module, before = Tied(), copy.deepcopy(Tied().state_dict())
    names["log_to_wandb"](run, module, 3)
    names["log_to_tensorboard"](writer, W_DEC, 3)
    ((values, step),) = logged
    assert step == 3 and values["audit/pairs"] == 1.0
    assert {name: value for name, value in scalars.items() if value != values[name]} == {}
    assert before.keys() == module.state_dict().keys() and module.decoder.weight.requires_grad
    for name in ("audit/duplicate_fraction", "audit/dead_fraction", "audit/random_control.p50"):
        assert name in values


def test_the_page_names_every_function() -> None:
    page = PAGE.read_text()
    for name in saeaudit.__all__:
        if inspect.isfunction(getattr(saeaudit, name)):
            assert f"`{name}(" in page, name
