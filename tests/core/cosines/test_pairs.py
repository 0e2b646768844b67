from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from saeaudit.core.cosines.pairs import join


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
