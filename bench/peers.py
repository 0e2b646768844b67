"""What others offer for the same question: pairs of rows with a cosine of at least `TAU`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

TAU = 0.9
Pairs = set[tuple[int, int]]


def with_faiss(rows: torch.Tensor, floor: float) -> Pairs:
    """Positive cosines only: half of what saeaudit looks at."""
    import faiss

    faiss.omp_set_num_threads(torch.get_num_threads())
    units = (rows / rows.norm(dim=1, keepdim=True)).cpu().numpy()
    index = faiss.IndexFlatIP(units.shape[1])
    index.add(units)
    limits, cosines, labels = index.range_search(units, floor)
    row = np.repeat(np.arange(len(units)), np.diff(limits).astype(int))
    keep = (cosines >= TAU) & (row < labels)
    return set(zip(row[keep].tolist(), labels[keep].tolist(), strict=True))


def with_sklearn(rows: torch.Tensor, floor: float) -> Pairs:
    """Positive cosines only."""
    from sklearn.neighbors import NearestNeighbors

    units = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    model = NearestNeighbors(algorithm="brute", metric="cosine", n_jobs=-1).fit(units)
    pairs = set()
    for start in range(0, len(units), 2048):
        near = model.radius_neighbors(units[start : start + 2048], 1 - TAU, return_distance=False)
        for row, partners in enumerate(near, start):
            pairs |= {(row, int(j)) for j in partners if j > row}
    return pairs


def with_torch(
    rows: torch.Tensor, floor: float, dtype: torch.dtype = torch.float32, slack: float = 1e-3
) -> Pairs:
    """A plain loop that thresholds \\|cosine\\| and refines in float64."""
    units = (rows / rows.norm(dim=1, keepdim=True)).to(dtype)
    pairs = set()
    for start in range(0, len(units), 1024):
        cosines = units[start : start + 1024] @ units.T
        near = (cosines.abs() >= TAU - slack).nonzero()
        i, j = near[:, 0] + start, near[:, 1]
        i, j = i[i < j], j[i < j]
        exact = torch.nn.functional.cosine_similarity(rows[i].double(), rows[j].double())
        hit = exact.abs() >= TAU
        pairs |= set(zip(i[hit].tolist(), j[hit].tolist(), strict=True))
    return pairs


def with_tf32(rows: torch.Tensor, floor: float) -> Pairs:
    torch.set_float32_matmul_precision("high")
    try:
        return with_torch(rows, floor, slack=5e-3)
    finally:
        torch.set_float32_matmul_precision("highest")


def with_bf16(rows: torch.Tensor, floor: float) -> Pairs:
    return with_torch(rows, floor, torch.bfloat16, slack=2e-2)


Peers = dict[str, Callable[[torch.Tensor, float], Pairs]]
ON_CPU: Peers = {
    "faiss range_search": with_faiss,
    "scikit-learn radius_neighbors": with_sklearn,
    "torch float32 loop": with_torch,
}
ON_CUDA: Peers = {
    "torch float32 loop": with_torch,
    "torch TF32 loop": with_tf32,
    "torch bfloat16 loop": with_bf16,
    "faiss range_search on the CPU": with_faiss,
}


def agree(peer: str, theirs: Pairs, ours: Pairs, rows: torch.Tensor) -> None:
    """Fail where a peer has other pairs; all but the torch loops see positive cosines alone."""
    positive = {p for p in ours if float(rows[p[0]] @ rows[p[1]]) > 0}
    wanted = ours if peer.startswith("torch") else positive
    assert theirs == wanted, f"{peer} disagrees: {theirs ^ wanted}"
