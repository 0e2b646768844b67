"""Scores against sources whose codes are known, and against exhaustive search."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from saeaudit import AuditError
from saeaudit import open as open_sae
from saeaudit.audit.disagreement import Disagreement
from saeaudit.audit.mediators.inputs import MediatorInputs
from saeaudit.audit.mediators.options import MediatorOptions
from saeaudit.audit.mediators.run import mediators
from saeaudit.audit.scan.run import scan
from saeaudit.audit.score.api import score
from saeaudit.audit.score.inputs import ScoreInputs
from saeaudit.audit.score.options import ScoreOptions
from saeaudit.audit.tokens import draw_tokens
from saeaudit.core.codes.canonical import canonicalise
from saeaudit.core.codes.choose import Chooser, Group
from saeaudit.core.codes.codelength import Counts, Prices
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.quantise import Grid
from saeaudit.core.rows import UnitRows, row_norms
from saeaudit.records import ChoiceRecord, Pick, ScoreSummary, dump, parse
from saeaudit.sources.activations import (
    parted_by,
    read_activations,
    read_tokens,
    sample_activations,
)
from saeaudit.sources.explanations import (
    Explanations,
    find_explanations,
    find_features,
    load_explanations,
)
from saeaudit.sources.neuronpedia import Explanation, FeatureStatistics, read_features
from tests.support.dictionaries import sae
from tests.support.entropy import TOKENS, binary, source
from tests.support.enumeration import least_squares
from tests.support.notes import Notes
from tests.support.planted import found
from tests.support.sample import FILES, SAMPLE

GIVEN = ("features", "mediators", "explanations", "documents")


def scored(dictionary, x=None, **rest):
    given = {k: rest.pop(k) for k in GIVEN if k in rest}
    notes = Notes()
    records = list(
        score(
            dictionary, ScoreInputs(None if x is None else torch.as_tensor(x), **given),
            ScoreOptions(**rest), notes,
        )
    )  # fmt: skip
    for record in records:
        assert parse(dump(record)).type == record.type
    summary = records[-1]
    assert isinstance(summary, ScoreSummary)
    return [r for r in records if isinstance(r, ChoiceRecord)], summary, notes.lines


def said(texts: dict[int, str], features: int, second: dict[int, str] | None = None):
    labels = {i: Explanation(text, "kind", "model", None) for i, text in texts.items()}
    both = {
        i: (labels[i], Explanation(text, "kind", "other", None))
        for i, text in (second or {}).items()
    }
    made = Explanations("here", labels, both, 0)
    return Disagreement(made, list(range(features)), method="tfidf")


@pytest.mark.parametrize("kind", ["geometric", "uniform"])
def test_true_entropy_of_an_identity_sae(kind: str) -> None:
    codes, width, entropy = source(kind, np.random.default_rng(7))
    features = codes.shape[1]
    _, summary, _ = scored(
        sae(np.eye(features), np.eye(features)), codes.astype(np.float32),
        bin_width=width, max_tokens=1,
    )  # fmt: skip
    assert summary.bits_per_token == pytest.approx(entropy, rel=0.01)
    assert summary.bits_interval is not None
    assert summary.bits_interval.low < summary.bits_per_token < summary.bits_interval.high
    left_out = sum(s.count for s in summary.skipped)  # geometric values have a long tail
    assert summary.tokens + summary.fitted_tokens + left_out == TOKENS and left_out <= 3
    assert summary.gate_bits + summary.value_bits == pytest.approx(summary.bits_per_token)


def test_the_sample_from_activations_and_from_histograms() -> None:
    files = sample_activations("sample")
    assert files is not None
    dictionary, x = open_sae("sample"), read_activations([files[0]], 384).activations[:]
    _, summary, notes = scored(dictionary, x, max_tokens=1)
    assert len(notes) == 1 and "fewer than 50 times" in notes[0]
    assert summary.bin_width_by == "share"
    assert summary.added_error == pytest.approx(0.01, abs=0.0015)
    assert summary.fvu is not None and summary.fvu == pytest.approx(0.2, abs=0.02)
    own = summary.fvu * float(x[:1000].double().var(0, correction=0).sum())
    formula = math.sqrt(12 * 0.01 * own / summary.mean_l0)
    assert 0.5 * formula < summary.bin_width < formula  # really quantising costs more than that
    assert summary.bits_per_token < summary.bound_bits_per_token
    place = find_features("sample")
    assert place is not None
    _, other, _ = scored(dictionary, x, features=read_features(place))
    assert other.fitted_on == "histograms"
    assert other.bin_width == pytest.approx(summary.bin_width, rel=0.05)
    assert other.bits_per_token == pytest.approx(summary.bits_per_token, rel=0.05)
    assert other.fitted_tokens == pytest.approx(300_000, rel=0.01)
    _, alone, _ = scored(dictionary, features=read_features(place))
    assert alone.bin_width_by == "histograms"
    assert alone.bits_per_token > other.bits_per_token


def test_distortion_is_reached() -> None:
    files = sample_activations("sample")
    assert files is not None
    dictionary, x = open_sae("sample"), read_activations([files[0]], 384).activations[:]
    _, summary, notes = scored(dictionary, x, max_tokens=1, distortion=0.25)
    reached = f"quantised to an error of {summary.fvu_quantised:.4g} of the variance"
    assert sum(reached in line and "--distortion 0.25" in line for line in notes) == 1
    assert summary.fvu_quantised == pytest.approx(0.25, abs=0.01)
    with pytest.raises(AuditError, match=r"no less than 0\.1"):
        scored(dictionary, x, distortion=0.1)


def nonnegative(rows: np.ndarray, target: np.ndarray) -> tuple[float, np.ndarray]:
    """Least squared error with codes >= 0, and the codes, over every subset of the rows."""
    best, found = float(target @ target), np.zeros(len(rows))
    for size in range(1, len(rows) + 1):
        for subset in map(list, itertools.combinations(range(len(rows)), size)):
            codes, error = least_squares(rows[subset], target)
            if (codes >= -1e-10).all() and error < best:
                best, found = error, np.zeros(len(rows))
                found[subset] = codes
    return best, found


def random_case(seed: int, features: int = 14, width: int = 6, k: int = 3):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(features, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    units = UnitRows(
        torch.from_numpy(rows), torch.arange(features), row_norms(torch.from_numpy(rows))
    )
    grid = Grid(0.2, torch.zeros(features, dtype=torch.float64))
    counts = Counts(grid)
    for half in (0, 1):
        index = torch.from_numpy(rng.integers(features, size=2000))
        scale = torch.from_numpy(rng.uniform(0.2, 2, features))[index]
        counts.add(index, torch.from_numpy(rng.exponential(1, 2000)) * scale, 3000, half=half)
    prices = Prices(counts, 4), Prices(counts, 2), Prices(counts, 1)
    support = rng.choice(features, k, False)
    codes = np.sort(rng.exponential(1, k))[::-1].copy()
    target = 1.1 * codes @ rows[support] + 0.3 * rng.normal(size=width)
    return rows, units, prices, support, codes, target


def case_of(seed: int):
    rows, units, prices, support, codes, target = random_case(seed)
    fit = Fit(Supports(units, torch.from_numpy(support)[None]), torch.from_numpy(target)[None])
    error = torch.tensor([np.square(target - codes @ rows[support]).sum()])
    group = Group(fit.supports.rows, torch.from_numpy(codes)[None], error)
    return rows, fit, group, Chooser(units, prices, 1.0), torch.ones(len(rows), dtype=torch.bool)


@pytest.mark.parametrize("seed", range(20))
def test_the_least_error_is_the_least_of_all_swaps(seed: int) -> None:
    rows, fit, group, chooser, enter = case_of(seed)
    support, target = fit.supports.rows[0].numpy(), fit.target[0].numpy()
    alternatives = chooser.alternatives(fit, group, enter)
    (decision,) = chooser.decide(group, alternatives.candidates)
    least, used = nonnegative(rows[support], target)
    taken, swaps = set(support[used > 1e-9].tolist()), 0
    for place, entering in itertools.product(range(len(support)), range(len(rows))):
        if entering in support:
            continue
        trial = support.copy()
        trial[place] = entering
        error, best = nonnegative(rows[trial], target)
        swaps += error <= float(group.error) and best[place] > 1e-9
        if error < least:
            least, taken = error, set(trial[best > 1e-9].tolist())
    assert int(alternatives.counts[0]) == swaps
    candidates, number = alternatives.candidates, decision.picks["error"]
    assert float(candidates.error[number]) == pytest.approx(least)
    assert set(candidates.rows[number][candidates.codes[number] > 0].tolist()) == taken


def test_canonical_codes_are_never_longer_and_no_less_accurate() -> None:
    shorter = 0
    for seed in range(12):
        rows, fit, group, chooser, enter = case_of(seed)
        canonical = canonicalise(chooser, fit, group, enter)
        candidates = chooser.alternatives(fit, group, enter).candidates
        bits = chooser.prices[0].codes(candidates.rows, candidates.codes)[candidates.priced]
        assert float(canonical.bits) <= float(bits.min()) + 1e-6
        assert int(canonical.l0) <= len(group.rows[0])
        active = canonical.codes[0] > 0
        decoded = canonical.codes[0][active].numpy() @ rows[canonical.rows[0][active].numpy()]
        error = np.square(fit.target[0].numpy() - decoded).sum()
        assert error <= float(group.error) * (1 + 1e-8)
        priced = float(chooser.prices[0].codes(canonical.rows, canonical.codes))
        assert priced == pytest.approx(float(canonical.bits))
        # The path leads from the reference's features to the code's.
        features = set(group.rows[0].tolist())
        for step in canonical.paths[0]:
            assert features >= set(step.removed) and not features & set(step.added)
            features = features - set(step.removed) | set(step.added)
        assert features == set(canonical.rows[0][active].tolist())
        assert (float(canonical.bits) < float(canonical.bits_before)) == bool(canonical.paths[0])
        shorter += bool(canonical.paths[0])
    assert shorter > 6


def test_mdl_finds_true_codes_more_often_than_other_ways() -> None:
    runs = [found(seed, tokens=3000, measured=200) for seed in range(3)]
    mean = {way: np.mean([run[way] for run in runs]) for way in runs[0]}
    for other in ("l1", "l2"):
        assert mean["mdl"] > mean[other] + 0.1
    assert mean["mdl"] > mean["encoder"] == mean["least error"]  # of equal errors the encoder's


def worked_example() -> tuple[np.ndarray, dict[int, FeatureStatistics]]:
    rows = np.zeros((4, 8))
    rows[0, 0] = rows[1, 1] = 1
    rows[2] = (rows[1] - 3 * rows[0]) / 10**0.5
    rows[3, 5] = 1
    centres = tuple(0.25 + 0.5 * np.arange(12))
    heights = [1000 * math.exp(-(c**2) / 32) for c in centres]
    stats = {}
    for i, frequency in enumerate((1e-2, 1e-2, 1e-3, 1e-2)):
        scale = 1_000_000 * frequency / sum(heights)
        stats[i] = FeatureStatistics(frequency, centres, tuple(h * scale for h in heights))
    return rows, stats


def test_the_worked_example() -> None:
    rows, stats = worked_example()
    choices, summary, _ = scored(sae(rows), features=stats, bin_width=0.5)
    choice = next(c for c in choices if [x.feature for x in c.codes] == [0, 1])
    assert [x.value for x in choice.alternative] == pytest.approx([4, 3.1623], abs=5e-5)
    assert (choice.l1.reference, choice.l1.alternative) == (2, pytest.approx(7.162, abs=5e-4))
    assert (choice.l2.reference, choice.l2.alternative) == (2, pytest.approx(26))
    # Half-normal values with sigma 4 (at bin centres 1.25, 4.25 and 3.25) and the gates.
    values = ((4.25**2 - 1.25**2) + (3.25**2 - 1.25**2)) / (32 * math.log(2))
    assert choice.bits.alternative is not None and choice.bits.reference is not None
    difference = choice.bits.alternative - choice.bits.reference
    assert difference == pytest.approx(values + 3.335, abs=0.02)
    assert choice.margin_bits == pytest.approx(difference)
    assert choice.chosen == "encoder" and choice.encoder_excess_bits == 0
    assert choice.picks.mdl == Pick((), ())
    # Histograms do not say which counts are of one text: nothing can be drawn anew.
    assert choice.resolved is choice.wins is None and summary.resolved_fraction is None
    assert summary.resolved_unavailable and "histograms" in summary.resolved_unavailable
    assert summary.fitted_on == "histograms" and summary.tokens == 0


def test_mdl_can_disagree_with_l1_and_l2() -> None:
    rows, stats = worked_example()
    often = stats[2]
    wide = tuple(h * 300 for h in often.bin_heights)
    stats[2] = FeatureStatistics(0.3, often.bin_centres, wide)
    choices, summary, _ = scored(sae(rows), features=stats, bin_width=0.5)
    choice = next(c for c in choices if [x.feature for x in c.codes] == [0, 1])
    assert choice.picks.l1 == choice.picks.l2 == Pick((), ())
    assert choice.picks.mdl == Pick((1,), (2,)) and choice.chosen == "other"
    assert choice.bits.reference is not None and choice.bits.alternative is not None
    shorter = choice.bits.reference - choice.bits.alternative
    assert choice.encoder_excess_bits == pytest.approx(shorter) and shorter > 0
    # A handful of examples makes no share.
    assert summary.agreement is not None and summary.agreement.l1 is None
    assert summary.chosen_shares is not None and summary.chosen_shares.other is None


def test_joint_gates_of_an_exchange() -> None:
    """Twins that fire together: independent gates double the price of naming both."""
    rng = np.random.default_rng(0)
    rows = np.eye(6)[:4].copy()
    rows[2] = (rows[1] - 0.5 * rows[0]) / np.linalg.norm([1, 0.5])
    on = np.zeros((4000, 4))
    on[:, 0] = on[:, 1] = rng.random(4000) < 0.1
    on[:, 3] = rng.random(4000) < 0.3
    codes = on * rng.exponential(1, on.shape)
    encoder = np.zeros((6, 4))
    encoder[:4, :] = np.eye(4)
    encoder[2] = 0
    dictionary = sae(rows, encoder)
    findings = [r for r in scan(dictionary) if r.type in ("pair", "triple")]
    records = list(mediators(dictionary, MediatorInputs(findings=findings)))
    x = codes[:, [0, 1]] @ rows[:2] + codes[:, [3]] @ rows[[3]]
    choices, _, _ = scored(dictionary, x, mediators=records, bin_width=0.1)
    choice = next(c for c in choices if [z.feature for z in c.codes] == [0, 1])
    assert choice.joint_bits is not None and choice.joint_bits.reference is not None
    together = -math.log2(codes[800:, 0].astype(bool).mean())
    apart = choice.bits.reference - choice.joint_bits.reference
    assert apart == pytest.approx(together + 0.9 * 0.152 - 0.137, abs=0.2)
    # f3 never fires: its code has no price.
    assert choice.bits.alternative is None and choice.picks.mdl == Pick((), ())


def test_mediators_given_are_the_ones_that_are_priced() -> None:
    files = sample_activations("sample")
    assert files is not None
    dictionary, x = open_sae("sample"), read_activations([files[0]], 384).activations[:]
    options = MediatorOptions(epsilons=(0.0,), max_tokens=6, max_alternatives=2)
    records = list(mediators(dictionary, MediatorInputs(x), options))
    choices, summary, _ = scored(dictionary, x, mediators=records)
    assert 0 < len(choices) <= 6
    assert all(c.priced <= 2 < c.alternative_count for c in choices)
    (one, *_) = (r for r in records if r.type == "mediator" and r.mode == "accuracy")
    mine = next(c for c in choices if c.token == one.token)
    assert [z.value for z in mine.codes] == pytest.approx([z.value for z in one.codes])
    assert mine.picks.encoder == Pick((), ())
    assert mine.gap_bits is None and mine.bits.support is None
    assert summary.choices == 6
    with pytest.raises(AuditError, match="holds records of another"):
        scored(dictionary, x, mediators=[_renamed(records[0])])


def test_records_of_a_feature_that_is_not_live_are_refused() -> None:
    rows = np.eye(6)[[0, 0, 1, 2, 3, 4]]
    rows[5] = 0
    dictionary = sae(rows, np.eye(6, 6)[:, [0, 0, 1, 2, 3, 4]])
    pairs = [r for r in scan(dictionary) if r.type == "pair"]
    example = next(
        r for r in mediators(dictionary, MediatorInputs(findings=pairs)) if r.type == "mediator"
    )
    dead = replace(example, features=(0, 5))
    x = np.abs(np.random.default_rng(0).normal(size=(400, 6)))
    with pytest.raises(AuditError, match="feature 5 is zero or not finite, so not live"):
        scored(dictionary, x, mediators=[dead], bin_width=0.1)


def _renamed(record):
    return replace(record, sae="another")


def test_disagreement_is_calibrated() -> None:
    dictionary = open_sae("sample")
    place = find_explanations("sample")
    files = sample_activations("sample")
    assert place is not None and files is not None
    texts = Disagreement(load_explanations(place, 2048), range(2048), method="export")
    assert texts.coverage == 1 and texts.calibrated_by == "self"
    assert texts.separation is not None and 0.9 < texts.separation.low
    assert texts.of([3], [3]) == [pytest.approx(0)]
    assert texts.percentile(-1.0) == 0 and texts.percentile(2.0) == 1
    choices, summary, _ = scored(
        dictionary,
        read_activations([files[0]], 384).activations[:],
        explanations=texts,
        max_tokens=20,
    )
    assert summary.disagreements is not None
    assert summary.disagreements.similarity_method == "export"
    chance, excess = summary.incoherence_chance, summary.incoherence_excess
    assert summary.incoherence is not None and chance is not None and excess is not None
    assert excess.value == pytest.approx(summary.incoherence - chance.value)
    shares = [s.fraction for s in summary.incoherence_by_moved]
    assert shares == sorted(shares, reverse=True) and shares[0] <= summary.incoherence
    one = next(c for c in choices if c.disagreement is not None)
    assert one.explanations is not None and one.explanations.added[0] == texts.text(one.added[0])


def test_tfidf_of_labels_that_share_no_words_is_refused() -> None:
    place, files = find_explanations("sample"), sample_activations("sample")
    assert place is not None and files is not None
    texts = Disagreement(load_explanations(place, 2048), range(2048), method="tfidf")
    assert 0.5 < texts.percentile(1.0) < 0.55  # most pairs share no word, and are tied there
    _, summary, _ = scored(
        open_sae("sample"),
        read_activations([files[0]], 384).activations[:],
        explanations=texts,
        max_tokens=3,
    )
    assert summary.incoherence is summary.incoherence_chance is summary.incoherence_excess is None
    assert summary.incoherence_by_moved == ()
    reason = summary.incoherence_unavailable
    assert reason and "differ by 1.00, and by tfidf no labels differ more" in reason


def test_features_with_two_explanations_calibrate() -> None:
    words = ["red", "green", "blue", "sea", "hill", "road", "bird", "stone"]
    texts = {i: f"{words[i % 8]} {words[i // 8 % 8]}s thing{i}" for i in range(64)}
    second = {i: f"{words[i % 8]} other{i}" for i in range(30)}
    made = said(texts, 128, second)
    assert made.calibrated_by == "self" and made.coverage == 0.5
    assert len(made.self_) == 30 and 0 < sum(made.self_) / 30 < 1
    assert made.level >= made.self_[len(made.self_) // 2]
    assert made.of([0, 0], [1, 100])[1] is None


def test_missing_explanations_are_never_agreement() -> None:
    made = said({0: "red sea", 1: "green hill"}, 4)
    assert made.of([0, 2], [1, 3]) == [pytest.approx(1), None]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bin_width": 0.0}, "positive"),
        ({"bin_width": math.nan}, "positive"),
        ({"distortion": -1.0}, "positive"),
        ({"margin": -1.0}, "at least 0"),
        ({"bin_width": 0.1, "distortion": 0.3}, "both fix"),
    ],
)
def test_options(change: dict[str, float], message: str) -> None:
    with pytest.raises(AuditError, match=message):
        ScoreOptions(**change)  # type: ignore[arg-type]


def test_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(30, 8))
    dictionary = sae(rows)
    x = np.random.default_rng(1).normal(size=(40, 8))
    with pytest.raises(AuditError, match="prices need"):
        scored(dictionary)
    with pytest.raises(AuditError, match="too few tokens: 9"):
        scored(dictionary, x[:9])
    with pytest.raises(AuditError, match="too few tokens"):
        scored(sae(rows, -10 + 0 * np.linalg.pinv(rows)), x[:8], bin_width=0.1)
    _, _, notes = scored(dictionary, x + 100 * np.arange(8), bin_width=1.0)
    assert any("probably of another layer" in note for note in notes)
    bad = x.copy()
    bad[35, 0] = np.nan
    with pytest.raises(AuditError, match="activation 35 is not finite"):
        scored(dictionary, bad)
    with pytest.raises(AuditError, match="leave no error"):
        scored(sae(np.eye(8), np.eye(8)), np.abs(x))
    stats = {31: FeatureStatistics(0.1, (1.0, 2.0), (3.0, 4.0))}
    with pytest.raises(AuditError, match="another SAE"):
        scored(dictionary, features=stats)
    for centres, heights in (
        ((1.0, math.nan), (3.0, 4.0)), ((-1e308, 1e308), (3.0, 4.0)), ((1.0, 2.0), (1e308, 1e308)),
    ):  # fmt: skip
        with pytest.raises(AuditError, match="not finite"):
            scored(dictionary, features={1: FeatureStatistics(0.1, centres, heights)})
    with pytest.raises(AuditError, match="no feature's frequency"):
        scored(dictionary, features={1: FeatureStatistics(0.0, (), ())})
    assert binary(np.array([0.5]))[0] == 1


def test_one_token_is_explained_alone() -> None:
    dictionary, x = open_sae("sample"), SAMPLE[:1000]
    fitted = int(draw_tokens(1000, None, 0).others[0])
    (choice,), summary, _ = scored(dictionary, x, explain=fitted)
    assert choice.token == fitted and choice.alternative_count
    # Its block is measured, and its shares are not the sample's.
    assert summary.tokens == 200 and summary.fitted_tokens == 800
    assert summary.choices == 0 and summary.non_unique_fraction is None
    assert summary.agreement is None and summary.incoherence is None
    for token, message in ((1000, "no token 1000 among 1,000"), (50, "token 50 has a norm over")):
        with pytest.raises(AuditError, match=message):
            scored(dictionary, with_outlier(50), explain=token)
    with pytest.raises(AuditError, match="document of token 3 has most of the activations"):
        documents = torch.tensor([0] * 60 + list(range(1, 41)))
        scored(sae(np.eye(4)), np.eye(4)[[0] * 100], documents=documents, explain=3, bin_width=1)


def with_outlier(token: int) -> torch.Tensor:
    x = SAMPLE[:1000].float()
    x[token] *= 100
    return x


def test_outliers_are_neither_measured_nor_fitted_on() -> None:
    x = SAMPLE[:600].float()
    x[::50] *= 100
    choices, summary, notes = scored(open_sae("sample"), x, max_tokens=3)
    (skipped,) = summary.skipped
    assert (skipped.reason, skipped.count) == ("norm", 12)
    assert skipped.positions == tuple(range(0, 600, 50))
    assert summary.tokens + summary.fitted_tokens == 588 and summary.fvu < 0.3
    assert any("12 activations left out with a norm over 10 times" in line for line in notes)
    assert len(choices) == 3
    keep = scored(open_sae("sample"), x, max_tokens=1, keep_outliers=True)[1]
    # Dense ones are not measured, whose Gram matrices would take gigabytes.
    assert [s.reason for s in keep.skipped] == ["l0"] and keep.fitted_tokens > 470


def test_whole_documents_are_measured_and_the_same_as_by_mediators() -> None:
    assert FILES is not None
    dictionary, x = open_sae("sample"), SAMPLE[:1000]
    documents = parted_by(read_tokens(FILES[1], len(SAMPLE))[:1000])
    assert documents is not None
    choices, summary, _ = scored(dictionary, x, documents=documents, max_tokens=8, seed=2)
    assert summary.drawn_by == "documents"
    measured = draw_tokens(1000, documents, 2).measured
    assert not set(documents[measured].tolist()) & set(
        documents[draw_tokens(1000, documents, 2).others].tolist()
    )
    looked = [
        r.token
        for r in mediators(
            dictionary,
            MediatorInputs(x, documents=documents),
            MediatorOptions(max_tokens=8, seed=2, max_alternatives=0),
        )
        if r.type == "token"
    ]
    assert looked == [c.token for c in choices] and set(looked) <= set(measured.tolist())


def test_tokens_whose_alternatives_are_not_written_count() -> None:
    dictionary, x = open_sae("sample"), SAMPLE[:1000]
    options = MediatorOptions(epsilons=(0.0,), max_tokens=40, min_change=1000.0)
    records = list(mediators(dictionary, MediatorInputs(x), options))
    assert not any(r.type == "mediator" for r in records)
    counts = [a for r in records if r.type == "token" for a in r.alternatives]
    some = [a.count > 0 for a in counts if a.mode == "accuracy"]
    assert len(some) == 40
    assert sum(some) > 12
    choices, summary, _ = scored(dictionary, x, mediators=records)
    assert not choices and summary.choices == 40
    assert summary.non_unique_fraction == sum(some) / 40
    assert summary.resolved_fraction is None


def test_records_without_other_codes_are_refused() -> None:
    dictionary = open_sae("sample")
    with pytest.raises(AuditError, match="mediators: holds no other codes of sample"):
        scored(dictionary, SAMPLE[:50], mediators=list(scan(dictionary)))


def test_the_errors_of_records_are_not_believed() -> None:
    dictionary, x = open_sae("sample"), SAMPLE[:1000]
    options = MediatorOptions(epsilons=(0.0,), max_tokens=3)
    records = list(mediators(dictionary, MediatorInputs(x), options))
    assert len(scored(dictionary, x, mediators=records)[0]) == 3
    for name in ("alternative", "codes"):
        forged = [
            replace(r, **{name: tuple(replace(c, value=0.75) for c in getattr(r, name))})
            if r.type == "mediator" else r
            for r in records
        ]  # fmt: skip
        with pytest.raises(AuditError, match="leave an error of"):
            scored(dictionary, x, mediators=forged)


def test_bins_that_cannot_be_told_apart_are_refused() -> None:
    with pytest.raises(AuditError, match="more bins than"):
        scored(open_sae("sample"), SAMPLE[:200], bin_width=1e-9)


def test_tokens_of_mediators_that_are_not_measured_are_said_to_be() -> None:
    dictionary, x = open_sae("sample"), SAMPLE[:1000]
    options = MediatorOptions(epsilons=(0.0,), max_tokens=12, max_alternatives=0, seed=1)
    records = list(mediators(dictionary, MediatorInputs(x), options))
    tokens = [r.token for r in records if r.type == "token"]
    measured = set(draw_tokens(1000, None, 0).measured.tolist())
    within = [token for token in tokens if token in measured]
    assert 0 < len(within) < len(tokens)
    _, summary, notes = scored(dictionary, x, mediators=records)
    assert summary.choices == len(within)
    assert any(f"{len(within)} of 12 tokens of --mediators are among" in line for line in notes)
    records = [r for r in records if r.type != "token" or r.token not in measured]
    with pytest.raises(AuditError, match=r"none of its .* tokens is among the 200 measured"):
        scored(dictionary, x, mediators=records)
