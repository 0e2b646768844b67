"""Mediators against an independent reference: numpy least squares, one swap at a time."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from saeaudit import AuditError
from saeaudit import open as open_sae
from saeaudit.audit.mediators.inputs import MediatorInputs
from saeaudit.audit.mediators.options import MediatorOptions
from saeaudit.audit.mediators.run import mediators
from saeaudit.audit.scan.run import scan
from saeaudit.core.budget import Budget, Size
from saeaudit.core.codes.pursuit import pursue
from saeaudit.core.rows import UnitRows, row_norms
from saeaudit.records import MediatorRecord, TokenRecord, dump, parse
from saeaudit.sources.activations import read_activations, sample_activations
from tests.support.dictionaries import opened, sae
from tests.support.enumeration import exhaustive_nonnegative, least_squares


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


@pytest.mark.parametrize("alpha", [3.0, 0.5, 0.01, -0.5])
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
    assert record.valid == ("always" if alpha >= 0 else "z[1] / z[0] <= 2")


def scan_all(dictionary):
    from saeaudit.audit.scan.options import ScanOptions

    return list(scan(dictionary, ScanOptions(triples=((0, 1, 2),))))


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
    x = read_activations(sample_activations("sample")[0], 384)[:12]
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
        assert set(record.added) & set(rows) <= set(record.added)
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


def test_moved_is_the_share_of_what_leaves() -> None:
    rows = np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, 2], [0, 0, 1]])
    encoder = np.diag([1, 1, 0.5]).T @ np.eye(3, 4)
    _, found, summary = looked(sae(rows, encoder), [[3.0, 1, 4]], epsilons=(0,), min_moved=0.4)
    accurate = [r for r in found if r.mode == "accuracy"]
    assert [(r.removed, r.added) for r in accurate] == [((2,), (3,))]
    assert accurate[0].moved == pytest.approx(4 / 8), "codes times norms: 3 + 1 + 4"
    by = {m.moved: m.fraction for m in summary.non_unique[0].by_moved}
    assert by[0.33] == 1.0


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
        assert 2**a.log2_size <= passing + 1 and 2**b.log2_size <= passing + 1
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
    x = read_activations(sample_activations("sample")[0], 384)[:20]
    encode = make(dictionary)
    own = np.stack([encode(row) for row in x])
    weaker = torch.from_numpy(np.where(own > np.median(own[own > 0]), own, 0))
    codes = {"omp": None, "same": lambda a, b: torch.from_numpy(own[a:b]),
             "half": lambda a, b: weaker[a:b]}  # fmt: skip
    _, _, summary = looked(dictionary, x, codes=codes, max_alternatives=0)
    by = {e.name: e for e in summary.encoders}
    assert list(by) == ["encoder", "omp", "same", "half"]
    assert by["same"].support_agreement == 1 and by["same"].fvu == pytest.approx(by["encoder"].fvu)
    assert by["half"].mean_l0 == pytest.approx(by["encoder"].mean_l0 / 2, abs=1)
    assert by["omp"].fvu < by["encoder"].fvu_refit < by["encoder"].fvu
    assert by["omp"].fvu == pytest.approx(by["omp"].fvu_refit)
    assert 0 < by["omp"].support_agreement < 1


def test_what_cannot_be_used_is_refused() -> None:
    rows = np.eye(3)
    with pytest.raises(AuditError, match="activation 1 is not finite"):
        looked(sae(rows), [[1.0, 0, 0], [np.nan, 0, 0]])
    with pytest.raises(AuditError, match="there is no encoder"):
        looked(opened(rows), [[1.0, 0, 0]])
    with pytest.raises(AuditError, match="a transcoder"):
        looked(sae(rows, maps_elsewhere=True), [[1.0, 0, 0]])
    with pytest.raises(AuditError, match="token 0, feature 2: a code of -1"):
        codes = {"bad": lambda a, b: torch.tensor([[0.0, 0.0, -1.0]])}
        from saeaudit.sources.activations import check_codes

        looked(sae(rows), [[1.0, 0, 0]], codes={"bad": lambda a, b: check_codes(
            codes["bad"](a, b), "bad")})  # fmt: skip
    for wrong in ({"epsilons": (-0.1,)}, {"swaps": 0}, {"min_moved": 2.0}):
        with pytest.raises(AuditError, match="is not in"):
            MediatorOptions(**wrong)


def test_batches_and_budgets_change_nothing() -> None:
    small = Budget(swap_cells=Size(1 << 14, 1 << 14))
    dictionary = open_sae("sample")
    x = read_activations(sample_activations("sample")[0], 384)[:9]
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
