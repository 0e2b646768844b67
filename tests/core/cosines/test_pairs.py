from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from saeaudit.core.budget import Budget
from saeaudit.core.cosines.pairs import PairFinder, join
from saeaudit.core.cosines.screen import make_screen
from saeaudit.core.cosines.sweep import sweep
from saeaudit.core.rows import UnitRows, row_norms


@given(st.lists(st.tuples(st.integers(0, 29), st.integers(0, 29)), max_size=40))
def test_join_finds_components(links: list[tuple[int, int]]) -> None:
    component = torch.arange(30)
    for start in range(0, len(links), 7):
        part = torch.tensor(links[start : start + 7])
        join(component, part[:, 0], part[:, 1])
    parent = list(range(30))

    def root(n: int) -> int:
        return n if parent[n] == n else root(parent[n])

    for a, b in links:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    assert component.tolist() == [root(n) for n in range(30)]


def test_whether_pairs_are_listed_depends_on_how_many_there_are(screen: str) -> None:
    """Not on how many hits lie near the threshold, of which int8 has many."""
    rows = torch.randn(64, 31, generator=torch.Generator().manual_seed(0))
    unit = (rows.double() / row_norms(rows)[:, None]).numpy()
    gram = unit @ unit.T
    wanted = [(i, j) for i in range(64) for j in range(i + 1, 64) if abs(gram[i, j]) >= 0.4]
    negative = sum(gram[pair] < 0 for pair in wanted)
    assert len(wanted) > 10 and 0 < negative < len(wanted)
    for most in (1, len(wanted) - 1, len(wanted), len(wanted) + 1, 2000):
        units = UnitRows(rows, torch.arange(64), row_norms(rows), Budget(pairs=most, tile=10))
        ready = make_screen(units, screen, torch.device("cpu"))
        finder = PairFinder(ready, 0.4)
        for hits in sweep(ready, 0.4, torch.zeros(64)):
            finder.add(hits)
        pairs = finder.finish()
        assert pairs.listed == (len(wanted) <= most)
        listed = list(zip(pairs.i.tolist(), pairs.j.tolist(), strict=True))
        assert listed == (wanted if pairs.listed else [])
        assert (pairs.duplicates, pairs.antipodal) == (len(wanted) - negative, negative)
        members = {row for pair in wanted for row in pair}
        assert pairs.member.nonzero().flatten().tolist() == sorted(members)
