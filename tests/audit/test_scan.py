from __future__ import annotations

from collections import Counter
from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
import torch

from saeaudit import AuditError
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.core.budget import Budget
from saeaudit.records import ScanSummary, dump
from tests.support import oracle
from tests.support.dictionaries import make, opened
from tests.support.notes import Notes


def audited(rows: np.ndarray | torch.Tensor, **options: object):
    records = list(scan(opened(rows), ScanOptions(**options)))
    by_type = {kind: [r for r in records if r.type == kind] for kind in ("pair", "triple", "group")}
    return by_type, records[-1]


class Case(NamedTuple):
    rows: np.ndarray
    tau: float
    rho: float
    gamma: float
    tile: int
    pairs: dict[tuple[int, int], float]
    triples: dict[frozenset[int], float]


@cache
def case(seed: int) -> Case:
    rows = make(seed)
    rng = np.random.default_rng(seed + 1000)
    tau = float(rng.choice([0.5, 0.8, 0.9, 0.99]))
    rho = float(rng.choice([0.05, 0.1, 0.2, 0.3]))
    gamma = float(rng.choice([1.5, 2, 4]))
    tile = int(rng.choice([7, 64, 1024]))
    pairs = oracle.pairs(rows, tau - 1e-8, include_collapsed=True)
    triples = oracle.triples(rows, rho, gamma, include_collapsed=True)
    return Case(rows, tau, rho, gamma, tile, pairs, triples)


def test_equals_brute_force(seed: int, screen: str, device: str) -> None:
    want = case(seed)
    found, summary = audited(
        want.rows, min_cosine=want.tau, max_residual=want.rho, min_gain=want.gamma,
        include_collapsed=True, screen=screen, device=device, max_findings=10**7,
        budget=Budget(tile=want.tile),
    )  # fmt: skip
    got = {r.features: r.cosine for r in found["pair"]}
    assert set(got) <= set(want.pairs)
    for features, cosine in want.pairs.items():
        if features in got:
            assert got[features] == pytest.approx(cosine, abs=2e-9)
        else:  # only within rounding of the threshold
            assert abs(abs(cosine) - want.tau) < 2e-8
    mine = {frozenset(r.features): r.residual for r in found["triple"]}
    assert not oracle.disputed_triples(
        want.rows, set(mine), set(want.triples), want.rho, want.gamma
    )
    for features in set(mine) & set(want.triples):
        # The oracle's determinant loses half its digits near zero.
        assert mine[features] == pytest.approx(want.triples[features], abs=2e-6)
    assert summary.triples == len(mine)
    assert summary.pairs + summary.antipodal_pairs == len(got)


@pytest.mark.parametrize("seed", range(12))
def test_geometry_equals_brute_force(seed: int, screen: str) -> None:
    rows = make(seed)
    _, summary = audited(rows, include_collapsed=True, screen=screen)
    maxima = oracle.row_maxima(rows, include_collapsed=True)
    assert summary.live_features == len(maxima)
    assert summary.coherence == pytest.approx(maxima.max(), abs=2e-9)
    assert summary.babel.k1 == pytest.approx(maxima.max(), abs=2e-9)
    for k, value in ((8, summary.babel.k8), (32, summary.babel.k32)):
        assert value == pytest.approx(oracle.babel(rows, k, include_collapsed=True), rel=1e-7)
    ordered = np.sort(maxima)
    quantiles = summary.max_cosine.quantiles
    assert quantiles.p50 == pytest.approx(ordered[int(np.ceil(len(ordered) / 2)) - 1], abs=2e-9)
    assert quantiles.p95 == pytest.approx(ordered[int(np.ceil(len(ordered) * 0.95)) - 1], abs=2e-9)
    assert sum(summary.max_cosine.histogram) == len(maxima)
    # Whole-number rows have cosines of exactly 1/2: round as the records do.
    bins = np.histogram(np.round(maxima, 9), bins=64, range=(0, 1))[0]
    assert list(summary.max_cosine.histogram) == bins.tolist()


@pytest.mark.parametrize("seed", (1, 2, 4, 5, 11))
def test_records_do_not_depend_on_screen_or_tile(seed: int) -> None:
    rows = make(seed)
    lines = {
        (screen, tile): [
            dump(record)
            for record in scan(
                opened(rows), ScanOptions(budget=Budget(tile=tile), min_cosine=0.6), screen=screen
            )
        ]
        for screen in ("fp32", "bf16", "int8")
        for tile in (1 if len(rows) < 60 else 13, 40, len(rows), len(rows) + 1)
    }
    first = next(iter(lines.values()))
    assert all(other == first for other in lines.values())


def test_large_enough_for_several_tiles(screen: str) -> None:
    rng = np.random.default_rng(3)
    rows = rng.normal(size=(2500, 96)).astype(np.float32)
    rows[2400:] = rows[:100] + 0.3 * rng.normal(size=(100, 96)).astype(np.float32)
    rows[2300:2400] = 2 * rows[200:300] - rows[300:400]
    found, summary = audited(rows, screen=screen, min_cosine=0.8, max_residual=0.1)
    assert {r.features for r in found["pair"]} == set(oracle.pairs(rows, 0.8))
    planted = {frozenset((200 + n, 300 + n, 2300 + n)) for n in range(100)}
    assert planted <= {frozenset(r.features) for r in found["triple"]}
    maxima = oracle.row_maxima(rows)
    assert summary.max_cosine.quantiles.min == pytest.approx(maxima.min(), abs=2e-9)
    assert summary.babel.k32 == pytest.approx(oracle.babel(rows, 32), rel=1e-8)


@pytest.mark.parametrize("seed", (1, 4))
def test_order_and_scale_of_rows_do_not_matter(seed: int) -> None:
    rows = make(seed).astype(np.float64)
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(rows))
    options = {"include_collapsed": True, "min_cosine": 0.7, "max_findings": 10**7}
    plain, _ = audited(rows, **options)
    moved, _ = audited(rows[order] * 10 ** rng.uniform(-3, 3, (len(rows), 1)), **options)
    for kind in ("pair", "triple"):
        back = {frozenset(int(order[f]) for f in r.features) for r in moved[kind]}
        assert back == {frozenset(r.features) for r in plain[kind]}


@pytest.mark.parametrize("dtype", (torch.float32, torch.float16, torch.bfloat16, torch.float64))
def test_every_dtype(dtype: torch.dtype, screen: str) -> None:
    rows = torch.from_numpy(make(3)).clamp(-1e3, 1e3).to(dtype)
    found, _ = audited(rows, min_cosine=0.8, screen=screen)
    assert {r.features for r in found["pair"]} == set(oracle.pairs(rows.double().numpy(), 0.8))


def test_unusable_rows_are_listed_and_left_out() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 8)).astype(np.float32)
    rows[3] = 0
    rows[5, 2] = np.nan
    rows[6, 0] = -np.inf
    rows[7] = rows[8] = 1e-6
    rows[10] = rows[9]
    records = list(scan(opened(rows)))
    first = records[0]
    assert (first.zero_rows, first.nonfinite_rows, first.collapsed_rows) == ((3,), (5, 6), (7, 8))
    assert [r.features for r in records if r.type == "pair"] == [(9, 10)]
    assert records[-1].live_features == 35
    kept, summary = audited(rows, include_collapsed=True)
    assert {r.features for r in kept["pair"]} == {(7, 8), (9, 10)}
    assert summary.live_features == 37


def test_the_collapsed_rule_is_doubted_where_it_takes_too_much() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(1000, 256)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)

    def summary(scale: list[float], **options: bool) -> tuple[ScanSummary, list[str]]:
        scaled = rows.copy()
        scaled[: len(scale)] *= np.array(scale, np.float32)[:, None]
        notes = Notes()
        *_, last = scan(opened(scaled), ScanOptions(**options), observer=notes)
        return last, notes.lines

    for scale, fraction, doubt in (
        ([], 0.0, None),
        ([1e-6] * 100, 0.1, None),
        ([1e-6] * 101, 0.101, "10.1% of the rows that are not zero are collapsed"),
        ([1e4] * 20, 0.98, "98.0% of the rows that are not zero are collapsed"),
        ([1e4] * 5, 0.0, None),
        ([0] * 500 + [1e-6] * 60, 0.12, "12.0% of"),
        ([150] * 20 + [0.1] * 50, 0.05, "the 99th percentile of the norms is 150 times the median"),
        ([150] * 20, 0.0, None),
        ([90] * 20 + [0.01] * 50, 0.05, None),
    ):
        last, notes = summary(scale)
        assert last.collapsed_fraction == fraction
        assert (last.collapsed_doubt or "").startswith(doubt or ""), scale
        assert (last.collapsed_doubt is None) == (doubt is None), scale
        assert len(notes) == (doubt is not None)
        assert all("--include-collapsed" in note and doubt in note for note in notes)
        kept, notes = summary(scale, include_collapsed=True)
        assert (kept.collapsed_fraction, kept.collapsed_doubt, notes) == (0.0, None, [])
        assert kept.live_features == 1000 - scale.count(0)


def test_a_crowd_of_twins_is_a_group() -> None:
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(300, 16)).astype(np.float32)
    rows[100:160] = rows[100]
    rows[10] = -rows[11]
    found, summary = audited(rows, max_findings=50)
    assert summary.pairs == 60 * 59 // 2
    assert summary.antipodal_pairs == 1
    assert not summary.complete
    (group,) = found["group"]
    assert group.features == tuple(range(100, 160))
    assert group.cosine_min == group.cosine_max == 1.0
    assert [r.features for r in found["pair"]] == [(10, 11)]
    assert summary.duplicate_fraction == pytest.approx(59 / 300)
    assert summary.babel.k32 == 32.0


def test_counts_stay_exact_when_pairs_cannot_be_held() -> None:
    rng = np.random.default_rng(1)
    rows = np.repeat(rng.normal(size=(40, 24)), 12, axis=0) + 0.02 * rng.normal(size=(480, 24))
    full, summary = audited(rows, include_collapsed=True)
    budget = Budget(pairs=100, edges=4000, tile=64)
    _, small = audited(rows, include_collapsed=True, budget=budget)
    for name in ("pairs", "antipodal_pairs", "features_in_pairs", "duplicate_fraction",
                 "coherence", "babel", "max_cosine", "triples"):  # fmt: skip
        assert getattr(small, name) == getattr(summary, name), name
    assert not small.complete
    assert Counter(r.type for r in full["group"]) == {"group": 40}


def test_encoder_cosines_and_norm_ratios() -> None:
    rng = np.random.default_rng(4)
    rows = rng.normal(size=(20, 16))
    rows[2] = 3 * rows[1]
    encoder = torch.from_numpy(rng.normal(size=(16, 20)))
    dictionary = opened(rows, encoder=lambda: encoder, architecture="standard")
    (pair,) = (r for r in scan(dictionary) if r.type == "pair")
    a, b = encoder[:, 1].numpy(), encoder[:, 2].numpy()
    assert pair.encoder_cosine == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    assert pair.norm_ratio == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_cosine", 0), ("min_cosine", 1.1), ("max_residual", -0.1), ("max_residual", 0.9),
     ("min_gain", 0.5), ("max_findings", -1), ("min_cosine", float("nan"))],
)  # fmt: skip
def test_impossible_options(name: str, value: float) -> None:
    with pytest.raises(AuditError, match="out of range"):
        ScanOptions(**{name: value})


@pytest.mark.parametrize("noise", (0.0, 1e-7, 1e-4, 1e-2))
def test_geometry_of_a_crowd_of_near_copies(noise: float, screen: str) -> None:
    rng = np.random.default_rng(5)
    rows = rng.normal(size=(260, 40))
    rows[:200] = rows[0] + noise * rng.normal(size=(200, 40))
    _, summary = audited(rows, screen=screen, budget=Budget(tile=64))
    maxima = np.sort(np.round(oracle.row_maxima(rows), 9))
    quantiles = summary.max_cosine.quantiles
    assert quantiles.p05 == pytest.approx(maxima[12], abs=2e-9)
    assert quantiles.p50 == pytest.approx(maxima[129], abs=2e-9)
    assert summary.coherence == pytest.approx(maxima[-1], abs=2e-9)
    assert summary.babel.k32 == pytest.approx(oracle.babel(rows, 32), rel=1e-8)
    assert summary.pairs == len(oracle.pairs(rows, 0.9))
