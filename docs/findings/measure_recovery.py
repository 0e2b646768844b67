"""Whether encoders, pursuits and scores return the features that activations were made of."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from findings.measure_ties import (
    PER_DOCUMENT,
    Bundle,
    Resampling,
    Row,
    near,
    non_uniqueness,
    pursued,
    settled,
    with_control,
)
from torch import Tensor

from saeaudit.audit.codes import active_codes
from saeaudit.core.codes.fits import Fit, Supports
from saeaudit.core.rows import UnitRows
from tests.support.planted import TRIPLES, WAYS, Source, hits, source

AS_MADE = 16
"""Features of the pursued codes that activations are made of."""
SOURCES = 10
"""Planted sources."""
TOKENS, MEASURED = 4000, 400
"""Tokens of a source; prices are fitted on those that are not measured."""
RATES = (0.0, 0.15, 0.3, 0.4, 0.5)
"""Shares of the tokens on which a planted encoder writes the other code of a triple."""
TRAINED = 5
"""Sources on which encoders are trained."""
STEPS, BATCH, RATE = 600, 512, 3e-3
"""Of Adam."""
PENALTY = 0.05
"""On the L1 norm of codes."""


def agreement(rows: Tensor, other: Tensor) -> Tensor:
    """Jaccard index ``[N]`` of the features ``rows [N, k]`` and ``other [N, m]``; -1 is none."""
    shared = ((rows[:, :, None] == other[:, None, :]) & (rows >= 0)[:, :, None]).sum((1, 2))
    union = (rows >= 0).sum(1) + (other >= 0).sum(1) - shared
    return shared / union.clamp(min=1)


def of_encoder(bundle: Bundle, report: Callable[[str], None]) -> list[Row]:
    """The SAE's codes beside pursuits of as many features, each as it is and settled."""
    units, target = bundle.sample, bundle.target
    _, encoded = active_codes(bundle.encoder.codes(bundle.x))
    supports = {"encoder": encoded, "pursuit": pursued(units, target, (encoded >= 0).sum(1))}
    ends = {name: settled(units, target, rows) for name, rows in supports.items()}
    mean = bundle.resampling.mean
    lines: list[Row] = []
    for codes, of_codes in (("as it is", supports), ("settled", ends)):
        for name, rows in of_codes.items():
            report(f"{name}, {codes}")
            line: Row = {"name": name, "codes": codes}
            line["agreement"] = mean(agreement(rows, encoded))
            line["agreement_settled"] = mean(agreement(rows, ends["encoder"]))
            swaps = near(units, target, rows, bundle.thresholds)
            lines.append(line | non_uniqueness(bundle, swaps)[0])
    return lines


def of_known_codes(bundle: Bundle, report: Callable[[str], None]) -> list[Row]:
    """Features returned where activations are made of codes on the SAE's rows, with residuals.

    The codes are the encoder's, or pursued ones; the residual of each is another document's, or
    there is none. The control has random rows in place of the SAE's, and no encoder.
    """
    _, encoded = active_codes(bundle.encoder.codes(bundle.x))
    sized = torch.full((len(bundle.x),), AS_MADE)
    truths = {"encoder": encoded, "pursuit": pursued(bundle.sample, bundle.target, sized)}
    lines: list[Row] = []
    for made_of, truth in truths.items():
        for noise in (False, True):
            for name, units in with_control(bundle.sample).items():
                report(f"known codes: {made_of}, {name}, {'with' if noise else 'no'} residuals")
                made = made_activations(bundle, units, truth, noise=noise)
                lines.append(
                    {"made_of": made_of, "noise": noise, "dictionary": name}
                    | returned(bundle, units, truth, made)
                )
    return lines


def made_activations(bundle: Bundle, units: UnitRows, truth: Tensor, *, noise: bool) -> Tensor:
    """Targets ``[N, d]``: least-squares codes on the SAE's rows, decoded by `units`."""
    fit = Fit(Supports(bundle.sample, truth), bundle.target)
    decoded = (fit.codes[:, None, :] @ Supports(units, truth).vectors).squeeze(1)
    return decoded + fit.residual.roll(PER_DOCUMENT, 0) if noise else decoded


def returned(bundle: Bundle, units: UnitRows, truth: Tensor, made: Tensor) -> Row:
    """How many of the true features each way returns, and whether others fit better."""
    ways = {"pursuit": pursued(units, made, (truth >= 0).sum(1))}
    ways["settled"] = settled(units, made, ways["pursuit"])
    if units is bundle.sample:
        x = made if bundle.encoder.b_dec is None else made + bundle.encoder.b_dec
        ways["encoder"] = active_codes(bundle.encoder.codes(x))[1]
    thresholds = bundle.thresholds.amax().expand(units.count)
    better = near(units, made, truth, thresholds).count[:, 0] > 0
    line: Row = {"better": bundle.resampling.mean(better)}
    shared = {way: agreement(truth, rows) for way, rows in ways.items()}
    for way, indices in shared.items():
        line[way] = bundle.resampling.mean(indices)
        line[f"{way}_all"] = bundle.resampling.mean(indices == 1)
    line["settled - pursuit"] = bundle.resampling.mean(shared["settled"] - shared["pursuit"])
    return line


def of_planted(report: Callable[[str], None]) -> list[Row]:
    """True codes taken of planted triples, by how often the encoder is wrong, and trained ones."""
    lines: list[Row] = []
    for rate in RATES:
        report(f"planted: an encoder wrong on {rate:.0%}")
        made = [source(seed, TOKENS, rate) for seed in range(SOURCES)]
        lines.append({"encoder_is": f"wrong on {100 * rate:.0f} %"} | taken(made))
    for name, penalty in (("L1", PENALTY), ("BatchTopK", None)):
        trained = []
        for seed in range(TRAINED):
            report(f"planted: training {name}, source {seed}")
            exact = source(seed, TOKENS, 0.0)
            trained.append(exact._replace(written=train(exact, penalty)))
        lines.append({"encoder_is": f"trained, {name}"} | taken(trained))
    return lines


def taken(sources: list[Source]) -> Row:
    """Shares of tokens on which each way takes the true code."""
    right = [hits(made, MEASURED) for made in sources]
    of_source = torch.arange(len(sources)).repeat_interleave(MEASURED)
    mean = Resampling(of_source).mean
    usual = torch.from_numpy(np.concatenate([made.usual[:MEASURED] for made in sources])).double()
    shares = {
        way: torch.from_numpy(np.concatenate([of[way] for of in right])).double() for way in WAYS
    }
    line: Row = {way: mean(hit) for way, hit in shares.items()}
    line["mdl - l1"] = mean(shares["mdl"] - shares["l1"])
    line["mdl - encoder"] = mean(shares["mdl"] - shares["encoder"])
    line["mdl, usual"] = mean(shares["mdl"] * usual, usual)
    f3 = np.concatenate([made.codes[:MEASURED, 2 * TRIPLES : 3 * TRIPLES] for made in sources])
    with_f3 = torch.from_numpy((f3 > 0).any(1)).double()
    line["encoder, f3"] = mean(shares["encoder"] * with_f3, with_f3)
    line["mdl, unusual"] = mean(shares["mdl"] * (1 - usual), 1 - usual)
    return line


def train(made: Source, penalty: float | None) -> np.ndarray:
    """Codes ``[tokens, F]`` of an encoder trained on a source, its decoder fixed at the true rows.

    It begins at the decoder's transpose.

    Args:
        made: the source.
        penalty: on the L1 norm of ReLU codes; None for BatchTopK at the source's mean L0.
    """
    generator = torch.Generator().manual_seed(SOURCES)
    decoder, x = made.decoder.float(), made.activations.float()
    mean_l0 = float((made.codes > 0).sum(1).mean())
    weight, bias = decoder.clone().requires_grad_(), torch.zeros(len(decoder), requires_grad=True)

    def encode(x: Tensor) -> Tensor:
        codes = (x @ weight.T + bias).relu()
        if penalty is not None:
            return codes
        kept = codes.flatten().topk(round(mean_l0 * len(x))).values[-1]
        return codes * (codes >= kept)

    optimiser = torch.optim.Adam([weight, bias], lr=RATE)
    for _ in range(STEPS):
        batch = x[torch.randint(len(x), (BATCH,), generator=generator)]
        codes = encode(batch)
        loss = (codes @ decoder - batch).square().sum(1).mean()
        loss = loss + (penalty or 0.0) * codes.sum(1).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    written = encode(x).detach().double()
    # An L1 encoder leaves traces on features that are not there.
    kept = written.flatten().topk(round(mean_l0 * len(x))).values[-1]
    return (written * (written >= kept)).numpy()
