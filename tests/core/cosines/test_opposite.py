from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode

from saeaudit import AuditError
from saeaudit.audit.scan.options import ScanOptions
from saeaudit.audit.scan.run import scan
from saeaudit.core.budget import Budget, Size
from saeaudit.core.cosines.genuine import genuine
from saeaudit.core.cosines.parallel import sets_beside
from saeaudit.core.cosines.screen import make_screen
from saeaudit.core.rows import UnitRows, row_norms
from saeaudit.records import TripleRecord, dump
from tests.support import oracle
from tests.support.dictionaries import opened, opposed


def triples(rows: np.ndarray, **options: object) -> list[TripleRecord]:
    options = {"include_collapsed": True, "max_findings": 10**7, **options}
    return [r for r in scan(opened(rows), ScanOptions(**options)) if r.type == "triple"]


def sets(records: list[TripleRecord]) -> set[frozenset[int]]:
    return {frozenset(record.features) for record in records}


def planted(alpha: float) -> np.ndarray:
    """Random rows of which the third is f2 - alpha f1, the first two at right angles."""
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(200, 64))
    rows[:2] = np.linalg.qr(rows[:2].T)[0].T
    rows[2] = rows[1] - alpha * rows[0]
    return rows


@pytest.mark.parametrize("alpha", (4.8, 5, 8, 30, 99))
def test_every_alpha_to_the_floor(alpha: float, screen: str) -> None:
    (record,) = triples(planted(alpha), screen=screen)
    assert set(record.features) == {0, 1, 2} and record.features[2] == 2
    assert record.exchange == ("always", "always", "always")
    assert record.residual < 1e-12
    assert record.single_residual == pytest.approx(1 / np.hypot(1, alpha), rel=1e-8)


@pytest.mark.parametrize("alpha", (100, 1000, -5, -8, -30, -100))
def test_beyond_the_floor_and_beside_a_duplicate_there_is_none(alpha: float) -> None:
    assert not triples(planted(alpha))


def test_exact_opposites_add_no_triple_but_those_of_the_copies() -> None:
    rows = planted(8)
    rows[100:200] = -rows[:100]
    # Where one of f1 and f3 is turned round they are duplicates.
    want = {frozenset((turned, f2, 2 + turned)) for f2 in (1, 101) for turned in (0, 100)}
    assert sets(triples(rows)) == want


def test_the_sign_of_the_better_single_row_decides() -> None:
    """Cosines of +-3/5 and 4/5 and the like, at thresholds where one row explains the target."""

    def kept(*rows: tuple[float, ...], rho: float = 0.7, gamma: float = 2.0) -> bool:
        three = torch.tensor(rows, dtype=torch.float64)
        units = UnitRows(three, torch.arange(3), row_norms(three))
        return len(genuine(units, torch.tensor([[0, 1, 2]]), rho, gamma).a) == 1

    # The target is the last row, 0.6 away from the first and 0.8 from the second.
    assert not kept((1, 0), (0, 1), (4, 3))
    assert not kept((1, 0), (0, -1), (4, 3))
    assert kept((1, 0), (0, 1), (-4, 3))
    assert kept((1, 0), (0, -1), (-4, 3))
    assert kept((1, 0), (0, 1), (4, 3), rho=0.5)  # one row alone leaves more than that
    assert not kept((1, 0), (0, 1), (1, 1), rho=0.8)  # as near to two rows
    assert not kept((1, 0), (0, 1), (-1, 1), rho=0.8)  # of which the positive one is of use
    assert kept((1, 0), (0, 1), (-1, -1), rho=0.8)
    # s / r is the root of 1.7^2 + 1, or 1.97.
    assert kept((1, 0, 0), (0, 1, 0), (-4, 1.7, 1), gamma=1.97)
    assert not kept((1, 0, 0), (0, 1, 0), (-4, 1.7, 1), gamma=1.98)
    # Below the floor of 0.01 only a residual that is smaller still allows for it.
    assert not kept((1, 0), (0, 1), (-1000, 1))
    assert kept((1, 0), (0, 1), (-1000, 1), rho=0.0005)


@cache
def brute_force(seed: int, rho: float, gamma: float) -> set[frozenset[int]]:
    return set(oracle.triples(opposed(seed), rho, gamma, include_collapsed=True))


@pytest.mark.parametrize("seed", range(12))
def test_equals_brute_force_beside_opposite_pairs(seed: int, screen: str) -> None:
    rows = opposed(seed)
    rho, gamma = (0.2, 0.3, 0.05, 0.005)[seed % 4], (2.0, 1.5, 1.1)[seed % 3]
    budget = Budget(tile=(7, 64, 1024)[seed % 3])
    listed = triples(rows, max_residual=rho, min_gain=gamma, screen=screen, budget=budget)
    want = brute_force(seed, rho, gamma)
    assert not oracle.disputed_triples(rows, sets(listed), want, rho, gamma)


def test_there_is_a_good_share_beside_opposite_pairs() -> None:
    """The dictionaries above try what they are made for."""
    records = [record for seed in range(4) for record in triples(opposed(seed))]
    assert sum(record.single_residual <= 0.2 for record in records) > 50


SMALL = Budget(entries=4096, exact_bytes=Size(8 * 4096, 8 * 4096), decided=2000, tile=13)


@pytest.mark.parametrize("seed", (2, 5))
def test_records_do_not_depend_on_screen_tile_or_budget(seed: int) -> None:
    rows = opposed(seed)
    lines = {
        tuple(
            dump(record) for record in scan(opened(rows), ScanOptions(budget=budget), screen=name)
        )
        for name in ("fp32", "bf16", "int8")
        for budget in (Budget(), SMALL, Budget(entries=1, exact_bytes=Size(1, 1), tile=300))
    }
    assert len(lines) == 1


def facing_crowds(width: int) -> np.ndarray:
    """200 rows: 64 of about one direction, 64 of about its opposite, and others."""
    rng = np.random.default_rng(7)
    rows = rng.normal(size=(200, width))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[:128] = np.repeat([[1], [-1]], 64, axis=0) * (rows[199] + 0.03 * rows[:128])
    return rows


class Largest(TorchFunctionMode):
    """Takes down the size of the largest tensor that is made."""

    size = 0

    def __torch_function__(self, operation, types, arguments=(), options=None):
        out = operation(*arguments, **(options or {}))
        for tensor in out if isinstance(out, (tuple, list)) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.size = max(self.size, tensor.numel())
        return out


def test_thousands_of_opposite_pairs_are_looked_at_in_batches() -> None:
    rows = facing_crowds(8)
    listed = sets(triples(rows, budget=SMALL))
    want = set(oracle.triples(rows, 0.2, 2.0))
    assert len(want) > 1000
    assert not oracle.disputed_triples(rows, listed, want, 0.2, 2.0)


def test_opposite_pairs_take_no_more_memory_than_the_budget_says() -> None:
    rows = torch.from_numpy(facing_crowds(48))
    units = UnitRows(rows, torch.arange(200), row_norms(rows), SMALL)
    fine = make_screen(units, "fp32", torch.device("cpu"))
    i, j = (axis.reshape(-1) for axis in torch.meshgrid(
        torch.arange(64), torch.arange(64, 128), indexing="ij"))  # fmt: skip
    with Largest() as largest:
        sets_beside(fine, i, j, 0.2, 2.0)
    # Both rows of every pair; 200 cosines for each of the 128 rows would be 25,600 numbers.
    assert largest.size <= 2 * len(i)


def test_too_many_opposite_pairs_are_said_to_be_too_many() -> None:
    budget = Budget(combinations=64 * 64)
    with pytest.raises(
        AuditError, match="combinations of nearly parallel pairs and third features"
    ):
        triples(facing_crowds(48), budget=budget)


def test_opposite_pairs_are_kept_where_edges_are_dropped() -> None:
    """Within a budget of edges that only duplicates and exact opposites pass."""
    rows = np.concatenate([planted(30), np.repeat([[1.0], [-1.0]], 40, axis=0) * np.eye(64)[5]])
    assert len(oracle.pairs(rows, 0.9)) > 3000
    assert sets(triples(rows, budget=Budget(edges=2000))) == {frozenset((0, 1, 2))}
