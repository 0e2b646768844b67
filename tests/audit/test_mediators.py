"""Mediators against an independent reference: numpy least squares, one swap at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from saeaudit import AuditError
from saeaudit import open as open_sae
from saeaudit.audit.mediators.inputs import SAME_DECODER, MediatorInputs, decoder_distance
from saeaudit.audit.mediators.options import MediatorOptions
from saeaudit.audit.mediators.run import mediators
from saeaudit.audit.scan.run import scan
from saeaudit.core.budget import Budget, Size
from saeaudit.core.codes.pursuit import pursue
from saeaudit.core.rows import UnitRows, row_norms
from saeaudit.records import MediatorRecord, TokenRecord, dump, parse
from saeaudit.sources.codes import check_codes
from tests.support.dictionaries import opened, sae
from tests.support.enumeration import exhaustive_nonnegative, lawson_hanson, least_squares
from tests.support.sample import SAMPLE


def looked(dictionary, x=None, findings=(), **options):
    codes = options.pop("codes", None)
    records = list(
        mediators(
            dictionary,
            MediatorInputs(
                None if x is None else torch.as_tensor(x), findings=findings, codes=codes or {}
            ),
            MediatorOptions(**options),
        )
    )  # fmt: skip
    for record in records:
        assert parse(dump(record)).type == record.type
    tokens = [r for r in records if isinstance(r, TokenRecord)]
    found = [r for r in records if isinstance(r, MediatorRecord)]
    return tokens, found, records[-1]


# --- the dictionary alone ------------------------------------------------------------------------


@pytest.mark.parametrize("alpha", [3.0, 0.5, -0.5])
@pytest.mark.parametrize("unit", [False, True])
def test_the_post_s_own_example(alpha: float, unit: bool) -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(3, 6))
    rows[0] /= np.linalg.norm(rows[0])
    rows[1] /= np.linalg.norm(rows[1])
    rows[2] = rows[1] - alpha * rows[0]
    norm = np.linalg.norm(rows[2])
    if unit:
        rows[2] /= norm
    dictionary = opened(rows)
    triple = [r for r in scan_all(dictionary) if r.type == "triple"]
    _, found, summary = looked(dictionary, findings=triple)
    assert summary.exchanges == len(found) and summary.tokens == 0
    (record,) = (r for r in found if {c.feature for c in r.codes} == {0, 1})
    assert [(c.feature, c.value) for c in record.codes] == [(0, 1.0), (1, 1.0)]
    value = {c.feature: c.value for c in record.alternative}
    if alpha > -1:
        assert value == pytest.approx({0: 1 + alpha, 2: norm if unit else 1.0}, abs=1e-6)
    assert record.error == pytest.approx(0, abs=1e-9)
    if alpha > -1:  # f1 goes from 1 to 1 + alpha, f2 from 1 to 0, and f3 enters with its norm
        assert record.change == pytest.approx((abs(alpha) + 1 + norm) / 2, rel=1e-6)
    assert record.valid == ("always" if alpha >= 0 else "z[1] / z[0] <= 2")


def scan_all(dictionary):
    return list(scan(dictionary))


def test_conditions_say_when_an_exchange_holds() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(2, 8))
    rows = np.stack([a, b, 0.4 * a + 0.9 * b])
    dictionary = opened(rows)
    triple = [r for r in scan_all(dictionary) if r.type == "triple"]
    _, found, _ = looked(dictionary, findings=triple)
    record = next(r for r in found if {c.feature for c in r.codes} == {0, 1})
    left, right = record.valid.split(" <= ")
    removed, other = (int(part.strip("z[] ")) for part in left.split("/"))
    assert removed == record.removed[0]
    for ratio in (0.5 * float(right), 2 * float(right)):
        z = {removed: ratio, other: 1.0}
        target = sum(z[f] * rows[f] for f in z)
        codes, error = least_squares(rows[[other, 2]], target)
        assert error < 1e-20
        assert (codes >= 0).all() == (ratio < float(right))


def test_pairs_exchange_one_for_the_other() -> None:
    rows = np.eye(4)[[0, 0, 1]] * np.array([[2.0], [5.0], [1.0]])
    dictionary = opened(rows, threshold=torch.tensor([0.1, 0.3, 0.5]), architecture="jumprelu")
    pairs = [r for r in scan(dictionary) if r.type == "pair"]
    _, (record,), _ = looked(dictionary, findings=pairs)
    assert (record.removed, record.added, record.moved) == ((0,), (1,), 1.0)
    assert record.change == pytest.approx(2), "all of one leaves, as much of the other enters"
    assert [(c.feature, c.value) for c in record.alternative] == [(1, pytest.approx(0.4))]
    assert record.attainable is True


def test_a_scan_of_another_sae_is_noticed() -> None:
    dictionary = opened(np.eye(5)[[0, 0, 1, 2, 3]])
    pairs = [r for r in scan(opened(np.eye(8)[[0, 1, 2, 3, 4, 5, 5, 6]])) if r.type == "pair"]
    with pytest.raises(AuditError, match="no feature 5 among 5"):
        looked(dictionary, findings=pairs)


# --- activations ---------------------------------------------------------------------------------


def test_the_sample_agrees_with_least_squares_per_swap() -> None:
    dictionary = open_sae("sample")
    x = SAMPLE[:12]
    tokens, found, summary = looked(dictionary, x, max_alternatives=2)
    decoder = dictionary.weights.decoder.double().numpy()
    centre = dictionary.weights.b_dec.double().numpy()
    encode = make(dictionary)
    ratios = []
    for token in tokens[:4]:
        target = x[token.token].double().numpy() - centre
        z = encode(x[token.token])
        support = np.flatnonzero(z)
        assert token.l0 == len(support)
        error = ((target - z @ decoder) ** 2).sum()
        least = least_squares(decoder[support], target)[1]
        assert token.encoder_error == pytest.approx(error, rel=1e-6)
        assert token.refit_error == pytest.approx(least, rel=1e-8)
        ratios.append(least / error)
        unsigned = 0
        for i in range(len(support)):
            rest = decoder[np.delete(support, i)]
            basis = np.linalg.qr(rest.T)[0]
            left = target - basis @ (basis.T @ target)
            apart = 1 - ((decoder @ basis) ** 2).sum(1)
            gain = (decoder @ left) ** 2 / np.maximum(apart, 1e-12)
            gain[support] = -np.inf
            unsigned += int(((left**2).sum() - gain <= least).sum())
        counts = {(a.mode, a.epsilon): a for a in token.alternatives}
        assert counts["refit", 0.0].unsigned == unsigned
        assert counts["refit", 0.0].count <= unsigned
    assert summary.refit_gap == pytest.approx(
        np.mean([t.refit_error / t.encoder_error for t in tokens])
    )
    for record in found:
        rows = [c.feature for c in record.alternative]
        target = x[record.token].double().numpy() - centre
        if record.mode == "reconstruction":
            target = encode(x[record.token]) @ decoder
        codes = np.array([c.value for c in record.alternative])
        assert (codes > 0).all()
        assert record.error == pytest.approx(
            ((target - codes @ decoder[rows]) ** 2).sum(), rel=1e-6
        )
        assert record.error <= (1 + record.epsilon) ** 2 * record.reference_error * (1 + 1e-9)
        assert set(record.added) <= set(rows) and len(rows) == record.l0
        assert not set(record.removed) & set(rows)
    assert {record.mode for record in found} >= {"accuracy", "refit"}


def make(dictionary):
    from saeaudit.audit.codes import make_encoder

    encoder = make_encoder(dictionary)
    return lambda x: encoder.codes(x[None].float())[0].double().numpy()


def test_tokens_with_no_feature_and_with_one() -> None:
    rows = np.eye(4)[[0, 1, 2, 3, 0]].astype(float)
    rows[4] += 0.2 * np.eye(4)[1]
    encoder = np.eye(4)[:, [0, 1, 2, 3, 0]] * np.array([1, 1, 1, 1, 0.0])
    dictionary = sae(rows, encoder)
    tokens, _, _ = looked(dictionary, [[0.0, 0, 0, 0], [1.0, 0.05, 0, 0]], epsilons=(0,))
    assert [t.l0 for t in tokens] == [0, 2]
    assert all(a.count == 0 for a in tokens[0].alternatives)
    assert tokens[0].best_error_ratio is None and tokens[0].log2_size == 0
    tokens, _, _ = looked(dictionary, [[0.0, 0, 2.0, 0]], epsilons=(0,))
    assert tokens[0].l0 == 1 and tokens[0].refit_error == 0


def test_attainable_compares_with_thresholds() -> None:
    rows = np.eye(3)[[0, 0, 1]] * np.array([[1.0], [4.0], [1.0]])
    encoder = np.eye(3)[:, [0, 0, 1]] * np.array([1.0, 0.0, 1.0])
    weights = {"architecture": "jumprelu", "threshold": torch.tensor([0.2, 0.5, 0.2])}
    dictionary = sae(rows, encoder, **weights)
    _, found, _ = looked(dictionary, [[3.0, 0, 0], [1.0, 0, 0]], epsilons=(0,))
    at = {(r.token, r.mode): r for r in found}
    assert at[0, "accuracy"].alternative[0].value == pytest.approx(0.75)
    assert at[0, "accuracy"].attainable is True
    assert at[1, "accuracy"].attainable is False, "0.25 is below 0.5"
    assert at[0, "reconstruction"].error_ratio == pytest.approx(0, abs=1e-12)


def test_moved_is_the_share_of_what_leaves_and_change_that_of_all() -> None:
    rows = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 2], [0, 0, 1]])
    encoder = np.diag([1, 1, 0.5]).T @ np.eye(3, 4)
    dictionary = sae(rows, encoder)
    _, found, summary = looked(dictionary, [[3.0, 1, 4]], epsilons=(0,), min_change=0.9)
    accurate = [r for r in found if r.mode == "accuracy"]
    assert [(r.removed, r.added) for r in accurate] == [((2,), (3,))]
    assert accurate[0].moved == pytest.approx(4 / 8), "codes times norms: 3 + 1 + 4"
    assert accurate[0].change == pytest.approx(8 / 8), "4 leaves, and 4 enters"
    assert not looked(dictionary, [[3.0, 1, 4]], epsilons=(0,), min_change=1.1)[1]
    by = {c.change: c.fraction for c in summary.non_unique[0].by_change}
    assert by[0.5] == 1.0


@pytest.mark.parametrize("alpha", [3.0, 0.5])
def test_change_grows_with_alpha_where_moved_does_not(alpha: float) -> None:
    """The post's f3 = f2 - alpha f1, beside features that the exchange does not touch."""
    rows = np.eye(6)[[0, 1, 1, 2, 3]]
    rows[2] = rows[1] - alpha * rows[0]
    z = np.array([1.31, 1.37, 0, 5, 5])
    encoder = np.eye(6)[:, [0, 1, 5, 2, 3]]
    tokens, found, _ = looked(sae(rows, encoder), np.array([z @ rows]), epsilons=(0.0,))
    norm = np.hypot(1, alpha)
    (record,) = (r for r in found if r.mode == "refit" and r.removed == (1,))
    values = {c.feature: c.value for c in record.alternative}
    assert values == pytest.approx({0: 1.31 + 1.37 * alpha, 2: 1.37, 3: 5, 4: 5})
    assert record.moved == pytest.approx(1.37 / 12.68)
    assert record.change == pytest.approx(1.37 * (alpha + 1 + norm) / 12.68)
    assert tokens[0].refit_change == pytest.approx(0, abs=1e-6)


def test_the_refit_s_own_change_is_that_of_an_encoder_that_shrinks() -> None:
    dictionary = sae(np.eye(3), 0.8 * np.eye(3))
    tokens, _, summary = looked(dictionary, [[1.0, 2, 1], [0.0, 1, 0]], epsilons=(0.0,))
    assert [t.refit_change for t in tokens] == pytest.approx([0.2, 0.2])
    assert summary.mean_refit_change == pytest.approx(0.2)


def test_what_is_relative_to_a_refit_of_zero_is_null() -> None:
    rows = np.array([[1.0, 0], [-1.0, 0]])
    dictionary = sae(rows, np.array([[-1.0, 0], [0, 0]]))
    (token,), found, _ = looked(dictionary, [[-1.0, 0]], epsilons=(0.0,))
    assert token.refit_change is None
    accurate = next(a for a in token.alternatives if a.mode == "accuracy")
    assert (accurate.count, accurate.change) == (1, None)
    record = next(r for r in found if r.mode == "accuracy")
    assert (record.added, record.moved, record.change) == ((1,), 1.0, None)


def test_a_row_that_does_not_enter_is_no_alternative_to_a_feature_that_can_go() -> None:
    """Without feature 1 the error is within the encoder's: any row "replaces" it by a code of 0."""
    rows = np.concatenate([np.eye(4)[:2], -np.eye(4)[:3], np.eye(4)[[3]]])
    encoder = np.concatenate([0.5 * np.eye(4)[:, :2], np.zeros((4, 4))], 1)
    tokens, found, summary = looked(sae(rows, encoder), [[4.0, 0.5, 0, 0.1]], epsilons=(0.0,))
    (token,) = tokens
    by = {a.mode: a for a in token.alternatives}
    assert list(by) == ["refit", "accuracy", "reconstruction"]
    assert (by["accuracy"].count, by["accuracy"].droppable) == (1, 1)
    assert (by["refit"].count, by["refit"].droppable) == (0, 0)
    assert token.log2_size == 1
    assert [(r.removed, r.added) for r in found] == [((1,), (5,))]
    accurate = next(n for n in summary.non_unique if n.mode == "accuracy")
    assert (accurate.droppable_fraction, accurate.mean_droppable) == (1, 1)


def test_the_summary_leads_with_the_refit_and_says_what_is_attainable() -> None:
    rows = np.eye(3)[[0, 0, 1]] * np.array([[1.0], [4.0], [1.0]])
    encoder = np.eye(3)[:, [0, 0, 1]] * np.array([1.0, 0.0, 1.0])
    weights = {"architecture": "jumprelu", "threshold": torch.tensor([0.2, 0.5, 0.2])}
    x = [[3.0, 0, 0], [1.0, 0, 0]]
    tokens, _, summary = looked(sae(rows, encoder, **weights), x, epsilons=(0,))
    assert [n.mode for n in summary.non_unique] == ["refit", "accuracy", "reconstruction"]
    assert [n.attainable_fraction for n in summary.non_unique] == [0.5, 0.5, 0.5]
    assert [t.alternatives[0].attainable for t in tokens] == [True, False], "0.25 is below 0.5"
    _, _, without = looked(sae(rows, encoder), x, epsilons=(0,))
    assert [n.attainable_fraction for n in without.non_unique] == [None] * 3


def part_of_the_sample(x: torch.Tensor, count: int):
    """The sample's SAE with the features that are active on some activations, and the first."""
    full = open_sae("sample").weights
    encode = make(open_sae("sample"))
    active = np.flatnonzero(np.stack([encode(row) for row in x]).any(0))
    rest = np.setdiff1d(np.arange(len(full.decoder)), active)
    chosen = np.sort(np.concatenate([active, rest])[:count])
    return sae(
        full.decoder[chosen].double().numpy(), full.encoder()[:, chosen].double().numpy(),
        architecture="jumprelu", b_enc=full.b_enc[chosen], b_dec=full.b_dec,
        threshold=full.threshold[chosen],
    )  # fmt: skip


@pytest.mark.parametrize("number", [2, 19, 39], ids=["two idle", "one idle", "none idle"])
def test_every_swap_of_a_sample_token_agrees_with_a_solver(number: int) -> None:
    """Counts, droppable features, the farthest code and attainability, a swap at a time."""
    x = SAMPLE[[number]]
    dictionary = part_of_the_sample(x, 100)
    (token,), _, _ = looked(dictionary, x)
    decoder = dictionary.weights.decoder.double().numpy()
    norms = np.linalg.norm(decoder, axis=1)
    unit = decoder / norms[:, None]
    least = dictionary.weights.threshold.double().numpy() * norms
    target = x[0].double().numpy() - dictionary.weights.b_dec.double().numpy()
    support = np.flatnonzero(make(dictionary)(x[0]))
    assert len(support) == token.l0
    refit, _ = lawson_hanson(unit[support], target)
    without = [lawson_hanson(unit[np.delete(support, i)], target)[1] for i in range(len(support))]
    swaps, sets = [], []
    for i in range(len(support)):
        for j in np.setdiff1d(np.arange(len(unit)), support):
            rows = np.where(np.arange(len(support)) == i, j, support)
            codes, error = lawson_hanson(unit[rows], target)
            if codes[i] <= 1e-9 * np.linalg.norm(refit):
                continue
            away = np.abs(codes - refit)
            away[i] = codes[i] + refit[i]
            full = (codes > 1e-9).all()
            swaps.append((error, away.sum() / refit.sum() if full else -1.0, codes > least[rows]))
            sets.append(frozenset(rows[codes > 1e-9]))
    references = {"refit": token.refit_error, "accuracy": token.encoder_error}
    for a in token.alternatives:
        if a.mode == "reconstruction":
            continue
        limit = (1 + a.epsilon) ** 2 * references[a.mode] * (1 + 1e-12)
        passing = [swap for swap in swaps if swap[0] <= limit]
        assert a.count == len(passing)
        assert a.droppable == sum(error <= limit for error in without)
        farthest = max((far for _, far, _ in passing), default=-1.0)
        assert (a.change or -1.0) == pytest.approx(farthest, rel=1e-6)
        assert a.attainable == any(attains.all() for *_, attains in passing)
        if (a.mode, a.epsilon) == ("accuracy", 0.0):
            distinct = {s for s, (error, *_) in zip(sets, swaps, strict=True) if error <= limit}
            assert np.log2(1 + len(distinct)) - 0.5 < token.log2_size
            assert token.log2_size <= np.log2(1 + len(distinct)) + 1e-12
            assert (number == 2) == (len(distinct) < a.count)


def test_chains_count_no_more_than_there_is() -> None:
    rng = np.random.default_rng(5)
    rows = np.abs(rng.normal(size=(9, 4)))
    x = rng.random((3, 4)) @ np.diag([1, 2, 1, 1])
    encoder = np.maximum(rng.normal(size=(4, 9)), 0) * (np.arange(9) < 3)
    dictionary = sae(rows, 0.3 * encoder)
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    one, _, _ = looked(dictionary, x, epsilons=(0.05,))
    two, _, _ = looked(dictionary, x, epsilons=(0.05,), swaps=3, beam=50)
    for n, (a, b) in enumerate(zip(one, two, strict=True)):
        assert b.log2_size >= a.log2_size - 1e-12
        k = a.l0
        limit = 1.05**2 * a.encoder_error
        passing = sum(
            exhaustive_nonnegative(unit[list(s)], x[n].astype(np.float32)) <= limit * (1 + 1e-6)
            for s in itertools.combinations(range(9), k)
        )
        # Supports of the encoder's own size, itself among them or beside them.
        assert 2**a.log2_size <= passing + 1 + 1e-9 and 2**b.log2_size <= passing + 1 + 1e-9
    assert any(b.log2_size > a.log2_size + 1 for a, b in zip(one, two, strict=True))


@pytest.mark.parametrize("nonnegative", [False, True])
def test_pursuits_equal_a_plain_loop(nonnegative: bool) -> None:
    rng = np.random.default_rng(2)
    rows, targets = rng.normal(size=(30, 8)), rng.normal(size=(4, 8))
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    decoder = torch.from_numpy(rows)
    units = UnitRows(decoder, torch.arange(30), row_norms(decoder))
    sizes = torch.tensor([3, 0, 4, 2])
    found, codes = pursue(
        units, torch.from_numpy(targets), sizes, torch.ones(30, dtype=torch.bool),
        nonnegative=nonnegative,
    )  # fmt: skip
    for b, size in enumerate(sizes.tolist()):
        chosen: list[int] = []
        left = targets[b]
        for _ in range(size):
            score = unit @ left
            score = score if nonnegative else np.abs(score)
            score[chosen] = -np.inf
            chosen.append(int(score.argmax()))
            if nonnegative:
                error = exhaustive_nonnegative(unit[chosen], targets[b])
                best = next(
                    (s, c)
                    for r in range(len(chosen), -1, -1)
                    for s in itertools.combinations(range(len(chosen)), r)
                    for c, e in [least_squares(unit[[chosen[p] for p in s]], targets[b])]
                    if (c >= -1e-12).all() and e <= error + 1e-12
                )
                values = np.zeros(len(chosen))
                values[list(best[0])] = best[1]
            else:
                values = least_squares(unit[chosen], targets[b])[0]
            left = targets[b] - values @ unit[chosen]
        assert found[b, :size].tolist() == chosen
        assert (found[b, size:] == -1).all()
        if size:
            assert codes[b, :size].numpy() == pytest.approx(values, abs=1e-7)


def test_other_encoders_are_compared_on_one_decoder() -> None:
    dictionary = open_sae("sample")
    x = SAMPLE[:20]
    encode = make(dictionary)
    own = np.stack([encode(row) for row in x])
    weaker = torch.from_numpy(np.where(own > np.median(own[own > 0]), own, 0))
    codes = {"omp": None, "same": lambda n: torch.from_numpy(own)[n], "half": lambda n: weaker[n]}
    _, _, summary = looked(dictionary, x, codes=codes, max_alternatives=0)
    by = {e.name: e for e in summary.encoders}
    assert list(by) == ["encoder", "omp", "same", "half"]
    assert by["same"].support_agreement == 1 and by["same"].fvu == pytest.approx(by["encoder"].fvu)
    assert by["half"].mean_l0 == pytest.approx(by["encoder"].mean_l0 / 2, abs=1)
    assert by["omp"].fvu < by["encoder"].fvu_refit < by["encoder"].fvu
    assert by["omp"].fvu == pytest.approx(by["omp"].fvu_refit)
    assert 0 < by["omp"].support_agreement < 1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_an_sae_s_own_codes_are_no_more_accurate(dtype: torch.dtype) -> None:
    dictionary = open_sae("sample")
    x = SAMPLE[:40]
    encode = make(dictionary)
    kept = torch.stack([torch.from_numpy(encode(row)) for row in x]).to(dtype)
    codes = {"kept": lambda n: kept[n].double(), "nnomp": None}
    _, _, summary = looked(dictionary, x, codes=codes, max_alternatives=0)
    by = {e.name: e.more_accurate for e in summary.encoders}
    assert by["encoder"] == by["kept"] == 0 and by["nnomp"] > 0.9


def test_decoders_are_the_same_or_not() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 6)).astype(np.float32)
    first = opened(rows)
    assert decoder_distance(opened(torch.from_numpy(rows).bfloat16()), first) < SAME_DECODER
    assert decoder_distance(opened(1.02 * rows), first) == pytest.approx(0.02, rel=1e-3)
    assert decoder_distance(opened(rows[::-1].copy()), first) > 1
    broken = rows.copy()
    broken[3, 2] = np.nan
    assert not decoder_distance(opened(broken), first) <= SAME_DECODER
    assert decoder_distance(opened(broken), opened(broken)) == 0


def test_what_cannot_be_used_is_refused() -> None:
    rows = np.eye(3)
    with pytest.raises(AuditError, match="activation 1 is not finite"):
        looked(sae(rows), [[1.0, 0, 0], [np.nan, 0, 0]])
    with pytest.raises(AuditError, match="there is no encoder"):
        looked(opened(rows), [[1.0, 0, 0]])
    with pytest.raises(AuditError, match="a transcoder"):
        looked(sae(rows, maps_elsewhere=True), [[1.0, 0, 0]])
    with pytest.raises(AuditError, match="token 0, feature 2: a code of -1"):
        bad = torch.tensor([[0.0, 0.0, -1.0]])
        looked(sae(rows), [[1.0, 0, 0]], codes={"bad": lambda n: check_codes(bad[n], "bad", n)})
    for wrong in ({"epsilons": (-0.1,)}, {"swaps": 0}, {"min_change": -1.0}):
        with pytest.raises(AuditError, match="is not in"):
            MediatorOptions(**wrong)


def test_batches_and_budgets_change_nothing() -> None:
    small = Budget(swap_cells=Size(1 << 14, 1 << 14))
    dictionary = open_sae("sample")
    x = SAMPLE[:9]
    together = [dump(r) for r in mediators(dictionary, MediatorInputs(x), MediatorOptions())]
    apart = []
    for n in range(9):
        apart += [
            dump(r).replace('"token":0', f'"token":{n}')
            for r in mediators(
                dictionary, MediatorInputs(x[n : n + 1]), MediatorOptions(budget=small)
            )
            if r.type in ("token", "mediator")
        ]
    assert together[1:-1] == apart
