from __future__ import annotations

import torch

from saeaudit.core.codes.sparse import Signatures, batches


def test_batches_cover_every_token_once() -> None:
    sizes = torch.tensor([3, 0, 7, 1, 7, 2])
    groups = list(batches(sizes, 14))
    assert sorted(torch.cat(groups).tolist()) == list(range(6))
    assert all(len(g) * max(1, int(sizes[g].max())) <= 14 for g in groups)


def test_signatures_tell_sets_apart_but_not_orders() -> None:
    rows = torch.tensor([[3, 7, -1], [7, 3, -1], [3, 7, 8], [3, -1, -1]])
    first, same, more, fewer = Signatures(9, torch.device("cpu")).of(rows, rows >= 0).tolist()
    assert first == same
    assert len({first, more, fewer}) == 3
    (masked,) = Signatures(9, torch.device("cpu")).of(rows[2:3], rows[2:3] < 8).tolist()
    assert masked == first
