"""Controls: codes by a pursuit written again in numpy, and what a null does away with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from saeaudit import AuditError, MediatorOptions, ScoreOptions, mediators, score
from saeaudit.audit.codes import Coder
from saeaudit.audit.control import pursuing, random_decoder, trials
from saeaudit.audit.disagreement import Disagreement
from saeaudit.audit.mediators.inputs import MediatorInputs
from saeaudit.audit.score.incoherence import permute_labels
from saeaudit.audit.score.inputs import ScoreInputs
from saeaudit.dictionary import Dictionary
from saeaudit.records import (
    ChoiceRecord,
    DictionaryRecord,
    MediatorsSummary,
    ScoreSummary,
    TokenRecord,
    dump,
    parse,
)
from saeaudit.sources.explanations import Explanations
from saeaudit.sources.neuronpedia import Explanation
from tests.support.dictionaries import sae
from tests.support.enumeration import lawson_hanson
from tests.support.notes import Notes

FEATURES, WIDTH, TOKENS = 40, 12, 300


def made(seed: int = 0, **weights: object) -> tuple[Dictionary, torch.Tensor]:
    """An SAE with biases, a zero row and a collapsed one, and activations of its rows."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(FEATURES, WIDTH)) * 10 ** rng.uniform(-0.5, 0.5, (FEATURES, 1))
    rows[3], rows[5] = 0, rows[5] * 1e-6
    bias = torch.from_numpy(rng.normal(size=WIDTH))
    dictionary = sae(
        rows, rows.T / (rows**2).sum(1).clip(1e-9), b_dec=bias, subtract_b_dec=True,
        architecture="topk", k=4, **weights,
    )  # fmt: skip
    codes = rng.exponential(1, (TOKENS, FEATURES)) * (rng.random((TOKENS, FEATURES)) < 0.1)
    return dictionary, torch.from_numpy(codes @ rows) + bias


def plain_pursuit(rows: np.ndarray, target: np.ndarray, k: int) -> np.ndarray:
    """Non-negative orthogonal matching pursuit of one target; codes in the rows' scale."""
    norms = np.linalg.norm(rows, axis=1)
    usable = norms > 1e-3 * np.sort(norms[norms > 0])[-1 - len(norms) // 100]
    unit = rows / np.where(usable, norms, np.inf)[:, None]
    chosen: list[int] = []
    values = np.zeros(0)
    for _ in range(k):
        correlation = unit @ (target - values @ unit[chosen])
        correlation[[*chosen, *np.flatnonzero(~usable)]] = -np.inf
        if correlation.max() <= 1e-9 * np.linalg.norm(target):
            break
        chosen.append(int(correlation.argmax()))
        values, _ = lawson_hanson(unit[chosen], target)
    codes = np.zeros(len(rows))
    codes[chosen] = values / norms[chosen]
    return codes


def of_sae(records: list, name: str) -> list:
    return [record for record in records if getattr(record, "sae", "") == name]


@pytest.mark.parametrize("options", [{}, {"input_scale": 3.0, "output_scale": 3.0}])
def test_pursued_codes_are_those_of_a_plain_loop(options: dict[str, float]) -> None:
    dictionary, x = made(**options)
    coder = Coder(pursuing(dictionary, 4), "cpu")
    encoded = coder.encode(x, torch.arange(40))
    rows = dictionary.weights.decoder.double().numpy()
    target = x.numpy() * options.get("output_scale", 1) - dictionary.weights.b_dec.numpy()
    live = coder.units.live.numpy()
    for n in range(40):
        codes = plain_pursuit(rows, target[n], 4)
        norms = np.linalg.norm(rows[live], axis=1)
        assert encoded.codes[n].numpy() == pytest.approx(codes[live] * norms, abs=1e-6)
        assert codes[3] == codes[5] == 0


def test_a_pursuit_ends_where_there_is_no_more_to_explain() -> None:
    rows = np.eye(6)
    dictionary = sae(rows)
    x = torch.tensor([[2.0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 0, 0], [-1, -1, 0, 0, 0, 0]])
    encoded = Coder(pursuing(dictionary, 5), "cpu").encode(x, torch.arange(3))
    assert encoded.l0.tolist() == [2, 0, 0]


def test_random_rows_have_the_norms_and_the_gaps_of_the_decoder() -> None:
    dictionary, _ = made()
    first, second = (random_decoder(pursuing(dictionary, 4), seed) for seed in (0, 1))
    assert first.norms.numpy() == pytest.approx(dictionary.norms.numpy(), rel=1e-6)
    assert first.zero_rows.tolist() == [3] and first.collapsed_rows.tolist() == [5]
    assert not torch.equal(first.weights.decoder, second.weights.decoder)
    cosines = (first.weights.decoder * dictionary.weights.decoder).sum(1) / dictionary.norms**2
    assert float(cosines[first.live()].abs().max()) < 0.9
    assert not dictionary.weights.decoder.equal(first.weights.decoder)


@pytest.mark.parametrize("control", ["random-decoder", "permuted-tokens"])
def test_mediators_of_a_control_stand_beside_its_yardstick(control) -> None:
    dictionary, x = made()
    texts = [str(n) for n in range(TOKENS)]
    watching = Notes()
    options = MediatorOptions(control=control, seed=2, max_tokens=0)
    records = list(mediators(dictionary, MediatorInputs(x, texts), options, watching))
    assert all(parse(dump(record)).type == record.type for record in records)
    described = [r for r in records if isinstance(r, DictionaryRecord)]
    summaries = [r for r in records if isinstance(r, MediatorsSummary)]
    names = ["rows (pursuit)", f"rows ({control})"]
    assert [r.control for r in described] == [r.control for r in summaries] == ["pursuit", control]
    assert [r.sae for r in described] == [r.sae for r in summaries] == names
    assert {getattr(r, "sae", None) for r in records} == set(names)
    assert not watching.lines
    usual = list(mediators(dictionary, MediatorInputs(x), replace(options, control=None)))
    (plain,) = (r for r in usual if isinstance(r, MediatorsSummary))
    assert plain.control is None and plain.sae == "rows" and plain.mean_l0 is not None
    assert [r.k for r in described] == [round(plain.mean_l0)] * 2
    assert [r.architecture for r in described] == ["nnomp"] * 2
    # The figures of both are those of a pursuit in numpy, on what was put in place.
    measured = list(trials(dictionary, MediatorInputs(x, texts), control, options, "cpu"))
    for (of, inputs), summary in zip(measured, summaries, strict=True):
        assert inputs.activations is not None
        rows, on = of.weights.decoder.double().numpy(), inputs.activations.numpy()
        on = on - dictionary.weights.b_dec.numpy()
        left = [v - plain_pursuit(rows, v, described[0].k) @ rows for v in on]
        fvu = np.square(left).sum() / np.square(on - on.mean(0)).sum()
        assert summary.fvu_encoder == pytest.approx(fvu, rel=1e-6)
    tokens = [[r.text for r in of_sae(records, n) if isinstance(r, TokenRecord)] for n in names]
    permuted = control == "permuted-tokens"
    assert tokens == [texts, [None] * TOKENS if permuted else texts]
    assert list(mediators(dictionary, MediatorInputs(x, texts), options)) == records


def test_permuted_tokens_are_harder_to_explain_and_outliers_stay_out() -> None:
    dictionary, x = made()
    x = x.clone()
    x[11] *= 1000
    options = MediatorOptions(control="permuted-tokens", max_tokens=0)
    records = list(mediators(dictionary, MediatorInputs(x), options))
    pursuit, control = (r for r in records if isinstance(r, MediatorsSummary))
    assert pursuit.fvu_encoder and control.fvu_encoder
    assert control.fvu_encoder > 1.3 * pursuit.fvu_encoder
    for summary in (pursuit, control):
        (skipped,) = summary.skipped
        assert (skipped.reason, skipped.positions) == ("norm", (11,))
    _, (_, inputs) = trials(dictionary, MediatorInputs(x), "permuted-tokens", options, "cpu")
    assert inputs.activations is not None and float(inputs.activations.abs().median()) < 10
    assert inputs.activations[11].equal(x[11])


def test_score_of_a_control() -> None:
    dictionary, x = made()
    x = x.repeat(4, 1)
    for control in ("random-decoder", "permuted-tokens"):
        options = ScoreOptions(control=control, max_tokens=10)
        records = list(score(dictionary, ScoreInputs(x), options))
        assert all(parse(dump(record)).type == record.type for record in records)
        pursuit, null = (r for r in records if isinstance(r, ScoreSummary))
        assert (pursuit.control, null.control) == ("pursuit", control)
        assert pursuit.fvu is not None and null.fvu is not None and null.fvu > pursuit.fvu


def labelled(features: int) -> Disagreement:
    """Labels of two words that count, one of a dozen and one of its own."""
    labels = {n: Explanation(f"topic{n % 12} thing{n}", "k", "m", None) for n in range(features)}
    explanations = Explanations("here", labels, {}, 0)
    return Disagreement(explanations, list(labels), method="tfidf")


def test_shuffled_labels_are_dealt_among_features_of_like_rates() -> None:
    rng = np.random.default_rng(6)
    explained, rates = labelled(160), dict(enumerate(rng.exponential(1, 160).tolist()))
    before, after = (permute_labels(explained, rates, shuffled=deal) for deal in (False, True))
    shuffled = after.explained
    # What the labelled run's null says of its first permutation, this says as a whole run.
    assert torch.equal(before.texts[1], after.texts[0])
    assert explained.place == {n: n for n in range(160)}
    places = [shuffled.place[n] for n in range(160)]
    assert sorted(places) == list(range(160)) and sum(map(int.__eq__, places, range(160))) < 20
    ranks = np.argsort(np.argsort([rates[n] for n in range(160)]))
    groups = [list(group) for group in np.array_split(np.arange(160), 3)]
    for feature, place in shuffled.place.items():
        assert any({ranks[feature], ranks[place]} <= set(group) for group in groups)
        assert shuffled.text(feature) == explained.text(place)
    assert shuffled.level == explained.level


def test_score_with_shuffled_labels_changes_the_labels_alone() -> None:
    dictionary, x = made()
    inputs = ScoreInputs(x.repeat(4, 1), explanations=labelled(FEATURES))
    options = ScoreOptions(max_tokens=40)
    *usual, real = score(dictionary, inputs, options)
    *choices, null = score(dictionary, inputs, replace(options, control="shuffled-labels"))
    assert isinstance(real, ScoreSummary) and isinstance(null, ScoreSummary)
    assert (null.sae, null.control) == ("rows (shuffled-labels)", "shuffled-labels")
    labels = {"disagreements", "control", "sae", *(n for n in vars(real) if "incoherence" in n)}
    changed = {n for n, value in vars(real).items() if getattr(null, n) != value}
    assert {"disagreements", "control", "sae"} <= changed <= labels
    said = [[r.explanations for r in records if isinstance(r, ChoiceRecord)]
            for records in (usual, choices)]  # fmt: skip
    assert len(said[0]) == len(said[1]) == 40 and said[0] != said[1]


def test_what_does_not_go_with_a_control_is_refused() -> None:
    dictionary, x = made()
    for inputs, why in (
        (MediatorInputs(), "needs activations"),
        (MediatorInputs(x, codes={"file": lambda n: x[n]}), "files of codes"),
    ):
        with pytest.raises(AuditError, match=why):
            list(mediators(dictionary, inputs, MediatorOptions(control="random-decoder")))
    given = MediatorInputs(x, codes={"omp": None})
    assert list(mediators(dictionary, given, MediatorOptions(control="random-decoder")))
    for control in ("random-decoder", "shuffled-labels"):
        with pytest.raises(AuditError, match="are of the SAE"):
            list(score(dictionary, ScoreInputs(x, mediators=[]), ScoreOptions(control=control)))
    with pytest.raises(AuditError, match="are of the SAE"):
        list(score(dictionary, ScoreInputs(features={}), ScoreOptions(control="random-decoder")))
    with pytest.raises(AuditError, match="no labels to shuffle"):
        list(score(dictionary, ScoreInputs(x), ScoreOptions(control="shuffled-labels")))
    with pytest.raises(AuditError, match="explain shows codes of the SAE"):
        ScoreOptions(control="shuffled-labels", explain=3)


def test_more_activations_than_are_held_are_not_permuted(monkeypatch) -> None:
    dictionary, x = made()
    monkeypatch.setattr("saeaudit.audit.control.MOST_BYTES", 8 * x.numel() - 1)
    options = MediatorOptions(control="permuted-tokens")
    with pytest.raises(AuditError, match="GiB; at most"):
        list(mediators(dictionary, MediatorInputs(x), options))
