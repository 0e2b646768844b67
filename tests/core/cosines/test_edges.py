"""Edges row by row, and how they are sorted."""

from __future__ import annotations

import pytest
import torch

from saeaudit.core.cosines import edges
from saeaudit.core.cosines.edges import Edges, entries_of, rank_entries, sort_keys
from saeaudit.core.cosines.sweep import Hits, select


def some_edges(count: int, number: int) -> Edges:
    generator = torch.Generator().manual_seed(4)
    i, j = torch.triu_indices(count, count, 1)
    drawn = torch.randperm(len(i), generator=generator)[:number]
    cosine = torch.rand(number, generator=generator) * 2 - 1
    crowded = torch.zeros(count, dtype=torch.bool)
    return Edges(i[drawn].int(), j[drawn].int(), cosine, 0.0, crowded)


def test_entries_of_rows_are_those_listed_of_them() -> None:
    listed = some_edges(40, 200)  # of this many some rows have few
    listed = listed._replace(i=listed.i.clamp(min=2), j=listed.j.clamp(min=3))  # and some none
    ranked = rank_entries(listed, 40)
    for rows in ([], [0], [5], [1, 7, 30, 39], list(range(40))):
        wanted = torch.isin(ranked.row, torch.tensor(rows)).nonzero().squeeze(1)
        assert torch.equal(entries_of(ranked, torch.tensor(rows, dtype=torch.int64)), wanted)


@pytest.mark.parametrize("apart", (0, 1 << 20))
@pytest.mark.parametrize("count", (40, (1 << 15) - 1, 1 << 15, (1 << 16) - 1, 1 << 20))
def test_edges_are_listed_in_both_rows_the_largest_first(
    count: int, apart: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(edges, "SORTED_APART", apart)
    listed = some_edges(40, 500)
    shift = count - 40  # many rows ask for wide keys
    ranked = rank_entries(listed._replace(i=listed.i + shift, j=listed.j + shift), count)
    entries: dict[int, list[tuple[float, int]]] = {row: [] for row in range(40)}
    for i, j, cosine in zip(*(column.tolist() for column in listed[:3]), strict=True):
        entries[i].append((abs(cosine), j))
        entries[j].append((abs(cosine), i))
    at = 0
    for row, wanted in entries.items():
        mine = slice(at, at + len(wanted))
        assert ranked.row[mine].tolist() == [row + shift] * len(wanted)
        assert ranked.rank[mine].tolist() == list(range(len(wanted)))
        largest = sorted(wanted, reverse=True)
        assert ranked.magnitude[mine].tolist() == pytest.approx([c for c, _ in largest], abs=2**-16)
        assert sorted(ranked.partner[mine].tolist()) == sorted(j + shift for _, j in wanted)
        of = {j + shift: cosine for cosine, j in wanted}
        listed_as = [of[partner] for partner in ranked.partner[mine].tolist()]
        assert listed_as == pytest.approx(ranked.magnitude[mine].tolist(), abs=2**-16)
        assert ranked.sizes[row + shift] == len(wanted)
        at += len(wanted)
    assert at == len(ranked.row) == int(ranked.sizes.sum())


@pytest.mark.parametrize("apart", (0, 1 << 20))
def test_keys_are_sorted_apart_or_in_place(apart: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edges, "SORTED_APART", apart)
    keys = torch.randint(0, 1 << 60, (5000,), generator=torch.Generator().manual_seed(8))
    keys = torch.cat([keys, keys[:100]])
    wanted = sorted(keys.tolist())
    assert sort_keys(keys).tolist() == wanted
    assert (keys.tolist() == wanted) == (apart == 0)


def test_what_is_dropped_is_not_held() -> None:
    """A huge cluster of near-copies has hits by the million, none of them an edge."""
    hits = Hits(torch.arange(1000), torch.arange(1, 1001), torch.full((1000,), 0.99))
    for keep in (0, 1, 999, 1000):
        kept = select(hits, torch.arange(1000) < keep)
        assert all(
            torch.equal(mine, column[:keep]) for mine, column in zip(kept, hits, strict=True)
        )
        held = [column.untyped_storage().nbytes() for column in kept]
        assert held == [8 * keep, 8 * keep, 4 * keep]
