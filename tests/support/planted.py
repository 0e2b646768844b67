"""A source with known codes in a dictionary with planted exact triples.

docs/findings.md says how often each way of choosing finds the true code, docs/score.md in short.

Rows f3 = (f2 - a f1) / n are exact, so (z1, z2, 0) and (z1 + a z2, 0, n z2) decode alike. In half
of the triples the source uses f1 and f2, in the other half f1 and f3; in each the third fires one
time in eight. An encoder writes down the other code of a triple in 30 % of the tokens, and prices
are fitted on what it writes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch

from saeaudit.core.codes.choose import Chooser, Group
from saeaudit.core.codes.codelength import Counts, Prices
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.codes.quantise import Grid
from saeaudit.core.rows import UnitRows, row_norms

TRIPLES = 12
OTHERS = 40
WIDTH = 128
WAYS = ("mdl", "l1", "l2", "least error", "encoder")


class Source(NamedTuple):
    decoder: torch.Tensor
    codes: np.ndarray
    written: np.ndarray
    usual: np.ndarray
    activations: torch.Tensor


def source(seed: int, tokens: int, wrong: float = 0.3) -> Source:
    rng = np.random.default_rng(seed)
    basis = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0][: 2 * TRIPLES + OTHERS]
    alpha = rng.choice([0.5, 1.0, 2.0], TRIPLES)
    f1, f2 = basis[:TRIPLES], basis[TRIPLES : 2 * TRIPLES]
    norm = np.sqrt(1 + alpha**2)
    f3 = (f2 - alpha[:, None] * f1) / norm[:, None]
    rows = np.concatenate([f1, f2, f3, basis[2 * TRIPLES :]])
    codes = np.zeros((tokens, len(rows)))
    token = np.arange(tokens)
    triple = rng.integers(TRIPLES, size=tokens)
    usual = np.where(triple % 2 == 0, 1, 2)  # f2 in one half of the triples, f3 in the other
    third = np.where(rng.random(tokens) < 0.125, 3 - usual, usual)
    codes[token, triple] = rng.gamma(4.0, 0.5, tokens)
    codes[token, triple + TRIPLES * third] = rng.gamma(4.0, 0.5, tokens)
    # (z1, 0, z3) has an f2 counterpart only where z1 is large enough for it.
    needs = alpha[triple] / norm[triple] * codes[token, triple + 2 * TRIPLES]
    codes[token, triple] += needs
    on = rng.random((tokens, OTHERS)) < 0.05
    codes[:, 3 * TRIPLES :] = on * rng.gamma(4.0, 0.5, on.shape)
    written = codes.copy()
    flip = token[rng.random(tokens) < wrong]
    t, a, n = triple[flip], alpha[triple[flip]], norm[triple[flip]]
    z1, z2, z3 = (codes[flip, t + TRIPLES * p] for p in range(3))
    forward = z2 > 0
    written[flip, t] = np.where(forward, z1 + a * z2, z1 - a / n * z3)
    written[flip, t + TRIPLES] = np.where(forward, 0.0, z3 / n)
    written[flip, t + 2 * TRIPLES] = np.where(forward, n * z2, 0.0)
    noise = 0.02 * rng.normal(size=(tokens, WIDTH))
    x = torch.from_numpy(codes @ rows + noise)
    return Source(torch.from_numpy(rows), codes, written, third == usual, x)


def found(seed: int, tokens: int = 4000, measured: int = 400) -> dict[str, float]:
    """Share of tokens on which each way of choosing takes the true code's features."""
    return {way: hit.mean() for way, hit in hits(source(seed, tokens), measured).items()}


def hits(made: Source, measured: int) -> dict[str, np.ndarray]:
    """Whether each way of choosing takes the true code's features, on each token measured.

    Prices are fitted on what the encoder writes on the others.
    """
    units = UnitRows(made.decoder, torch.arange(len(made.decoder)), row_norms(made.decoder))
    counts = Counts(Grid(0.25, torch.zeros(len(made.decoder), dtype=torch.float64)))
    for half, part in enumerate(np.array_split(made.written[measured:], 2)):
        token, index = part.nonzero()
        values = torch.from_numpy(part[token, index])
        counts.add(torch.from_numpy(index), values, len(part), half=half)
    prices = Prices(counts, 4), Prices(counts, 2), Prices(counts, 1)
    chooser = Chooser(units, prices, 1.0)
    written = torch.from_numpy(made.written[:measured])
    codes, rows = written.topk(int((written > 0).sum(1).max()), dim=1)
    rows = torch.where(codes > 0, rows, -1)
    fit = Fit(Supports(units, rows), made.activations[:measured])
    group = Group(rows, fit.positive.codes, fit.positive.error)
    enter = torch.ones(units.count, dtype=torch.bool)
    candidates = chooser.alternatives(fit, group, enter).candidates
    right = {way: np.zeros(measured, dtype=bool) for way in WAYS}
    start = 0
    sizes = torch.bincount(candidates.token, minlength=measured).tolist()
    for n, decision in enumerate(chooser.decide(group, candidates)):
        truth = set(made.codes[n].nonzero()[0].tolist())
        picks = {way: decision.picks[key] for way, key in zip(
            WAYS[:-1], ("bits", "l1", "l2", "error"), strict=True)} | {"encoder": -1}  # fmt: skip
        for way, pick in picks.items():
            if pick < 0:
                taken = set(rows[n][group.codes[n] > 0].tolist())
            else:
                one = start + pick
                taken = set(candidates.rows[one][candidates.codes[one] > 0].tolist())
            right[way][n] = taken == truth
        start += sizes[n]
    return right
