"""Triples beside near-copies: none is missed, and groups are looked at as such."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.core.budget import Budget, Size
from saeaudit.core.cosines import triples as module
from saeaudit.core.cosines.blocks import FEWEST, MOST, PART, Planes, batches, block_rows, reached
from saeaudit.core.cosines.parallel import sets_beside
from saeaudit.core.cosines.screen import Screen, make_screen
from saeaudit.core.rows import UnitRows, row_norms
from saeaudit.records import dump
from tests.support import oracle
from tests.support.dictionaries import clustered, opened
from tests.support.pretend import PretendCuda, pretend_cuda

SMALL = Budget(entries=4096, exact_bytes=Size(8 * 4096, 8 * 4096), decided=100, tile=13)


def dictionary(seed: int) -> np.ndarray:
    """120 rows: groups of about 5 to 60, of one sign, of both, and of a few turned round."""
    sizes, widths, opposite = (5, 24, 60), (16, 48, 96), (0.0, 0.5, 0.1)
    turned = opposite[(seed + seed // 3) % 3]
    return clustered(120, widths[seed % 3], seed, copies=sizes[seed // 3], opposite=turned)


def lines(rows: np.ndarray, screen: str, budget: Budget | None = None) -> list[str]:
    options = ScanOptions(max_findings=10**7, budget=budget or Budget())
    return [dump(record) for record in scan(opened(rows), options, screen=screen)]


@cache
def brute_force(seed: int, rho: float, gamma: float) -> set[frozenset[int]]:
    return set(oracle.triples(dictionary(seed), rho, gamma))


@pytest.mark.parametrize("seed", range(9))
def test_equals_brute_force_among_copies(seed: int, screen: str) -> None:
    rows = dictionary(seed)
    rho, gamma = ((0.2, 2.0), (0.3, 1.2), (0.05, 1.0), (0.01, 3.0))[seed % 4]
    budget = (Budget(), SMALL, Budget(tile=1), Budget(tile=121))[seed // 2 % 4]
    options = ScanOptions(
        max_residual=rho, min_gain=gamma, screen=screen, budget=budget, max_findings=10**7
    )
    records = [record for record in scan(opened(rows), options) if record.type == "triple"]
    listed = {frozenset(record.features) for record in records}
    want = brute_force(seed, rho, gamma)
    assert not oracle.disputed_triples(rows, listed, want, rho, gamma)


def test_there_are_triples_of_copies() -> None:
    """The dictionaries above try what they are made for."""
    beside = 0
    for seed in range(9):
        cosines = np.abs(oracle.gram(dictionary(seed), np.arange(120))) - np.eye(120)
        for three in map(sorted, brute_force(seed, 0.2, 2.0)):
            beside += cosines[np.ix_(three, three)].max() > 0.86
    assert beside > 30


@pytest.mark.parametrize("seed", (1, 3))
def test_records_do_not_depend_on_screen_tile_or_budget(seed: int) -> None:
    rows = dictionary(seed)
    made = {
        tuple(lines(rows, screen, budget))
        for screen in ("fp32", "bf16", "int8")
        for budget in (Budget(), SMALL, Budget(decided=7, tile=50))
    }
    assert len(made) == 1


def test_a_triple_has_three_features_however_small_its_residual() -> None:
    """A row and its copy, a millionth off, are no triple with one of them twice."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(40, 3))
    rows = np.concatenate([rows, rows + 1e-6 * rng.normal(size=rows.shape)])
    options = ScanOptions(max_residual=1e-9, min_gain=1.0, max_findings=10**7)
    records = [record for record in scan(opened(rows), options) if record.type == "triple"]
    assert records and all(len(set(record.features)) == 3 for record in records)


def prepared(rows: np.ndarray | Tensor, budget: Budget | None = None) -> UnitRows:
    rows = torch.as_tensor(rows)
    return UnitRows(rows, torch.arange(len(rows)), row_norms(rows), budget or Budget())


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_every_pair_is_in_one_block_of_few_rows(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    count, width = data.draw(st.integers(2, 200)), data.draw(st.sampled_from((4, 48, 300)))
    few = rng.integers(2, count + 1)
    i, j = np.triu_indices(few, 1)
    pick = rng.random(len(i)) < data.draw(st.sampled_from((0.005, 0.05, 1.0)))
    renamed = torch.from_numpy(rng.permutation(count))
    i, j = renamed[i[pick]], renamed[j[pick]]
    want = sorted(zip(i.tolist(), j.tolist(), strict=True))
    units = prepared(rng.normal(size=(count, width)))
    covered = []
    for batch in batches(units, i, j, data.draw(st.integers(1, 300))):
        ends = batch.rows.flatten()[batch.place]
        assert bool(batch.used.flatten()[batch.place].all())
        assert bool((batch.place // batch.rows.shape[1] == batch.block).all())
        assert int(batch.used.sum(1).max()) <= max(FEWEST, min(MOST, width // PART))
        assert all(len(rows.unique()) == len(rows) for rows in map(
            Tensor.__getitem__, batch.rows, batch.used))  # fmt: skip
        covered += list(zip(*ends.tolist(), strict=True))
    assert sorted(covered) == want


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_rows_near_a_plane_are_reached(data: st.DataObject) -> None:
    """Whatever a third row's share of a pair's plane is: where that much is asked for, it is kept.

    Among the copies are exact ones, and pairs a millionth apart.
    """
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    width, spread = data.draw(st.integers(3, 60)), data.draw(st.sampled_from((1e-6, 1e-3, 0.3)))
    group = rng.normal(size=width) + spread * rng.normal(size=(7, width))
    group[6] = group[5]
    pair = rng.choice(6, 2, replace=False)
    plane = np.linalg.qr(group[pair].T)[0]
    third = plane @ rng.normal(size=2)
    third += data.draw(st.sampled_from((0.0, 0.3, 1.0))) * rng.normal(size=width)
    units = prepared(np.concatenate([group, [third], rng.normal(size=(5, width))]))
    (batch,) = batches(units, torch.arange(6), torch.arange(1, 7), 100)
    rows = block_rows(units, batch)
    gram = rows @ rows.mT
    place = [batch.rows[0].tolist().index(row) for row in pair]
    share = np.square(plane.T @ third).sum() / np.square(third).sum()
    planes = Planes(torch.tensor([0]), gram[0, place[:1], place[1]], torch.tensor([share]))
    fine = make_screen(units, "fp32", torch.device("cpu"))
    assert 7 in reached(fine, rows, gram, planes).tolist()


def test_groups_are_decided_together(monkeypatch: pytest.MonkeyPatch, screen: str) -> None:
    """Rows are read a few times each, and not for every pair with every neighbour of its group."""
    rows = clustered(2000, 128, 4)
    pairs = len(oracle.pairs(rows, 0.85))
    assert pairs > 4000
    gathered = 0
    raw = UnitRows.raw

    def counted(self: UnitRows, index: Tensor) -> Tensor:
        nonlocal gathered
        gathered += len(index)
        return raw(self, index)

    monkeypatch.setattr(UnitRows, "raw", counted)
    listed = lines(rows, screen)
    assert any('"triple"' in line for line in listed)
    # Two for the cosine of each pair that is reported, and for whole rows.
    assert gathered < 2 * pairs + 20 * len(rows)


def test_cuda_takes_few_steps_for_many_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes, in a number of operations that does not grow with the groups."""
    operations = []
    for count in (400, 1600):
        dictionary = opened(clustered(count, 48, 2, opposite=0.2))
        want = [dump(r) for r in scan(dictionary, ScanOptions(screen="fp32"))]
        with pretend_cuda(monkeypatch):
            options = ScanOptions(screen="fp32", device="cuda:0")
            assert [dump(r) for r in scan(dictionary, options)] == want
        operations.append(PretendCuda.operations)
    assert operations[1] < 1.25 * operations[0]


def test_pairs_with_complete_lists_are_not_multiplied_with_all_rows(
    monkeypatch: pytest.MonkeyPatch, screen: str
) -> None:
    """Every row has a partner at 0.86; the third rows of two such pairs have cosines below 0.25."""
    rng = np.random.default_rng(1)
    rows = rng.normal(size=(800, 1024))
    rows[1::2] = rows[::2] + 0.6 * rows[1::2]
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    rows[700], rows[702] = unit[0] - unit[1], unit[2] - unit[3]
    beside = []

    def counted(fine: Screen, i: Tensor, j: Tensor, rho: float, gamma: float) -> Tensor:
        beside.append(len(i))
        return sets_beside(fine, i, j, rho, gamma)

    monkeypatch.setattr(module, "sets_beside", counted)
    records = scan(opened(rows), ScanOptions(), screen=screen)
    triples = {frozenset(record.features) for record in records if record.type == "triple"}
    assert beside == [0]
    assert triples == {frozenset((0, 1, 700)), frozenset((2, 3, 702))}
