from __future__ import annotations

import torch

from saeaudit.core.codes.sparse import batches


def test_batches_cover_every_token_once() -> None:
    sizes = torch.tensor([3, 0, 7, 1, 7, 2])
    groups = list(batches(sizes, 14))
    assert sorted(torch.cat(groups).tolist()) == list(range(6))
    assert all(len(g) * max(1, int(sizes[g].max())) <= 14 for g in groups)
