"""Numbers in pages that no run gives: what the code's constants are, and what is no measurement.

A phrase with a constant is made from it, so that the page cannot say another one. The others have
their reason in the heading that they stand under.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from saeaudit import dictionary
from saeaudit.audit import codes, disagreement, misfit, tokens
from saeaudit.audit.collect import options as collecting
from saeaudit.audit.score import incoherence, prices, split
from saeaudit.cli import exits, targets
from saeaudit.core import calibration, similarity
from saeaudit.core.codes import cheapest, choose, codelength, resamples, tolerances
from saeaudit.formats import interface
from saeaudit.records import CHANGED, MOVED
from saeaudit.sources import arrow, explanations
from saeaudit.sources.collected import manifest
from saeaudit.vocabulary import (
    BEAM,
    COLLECTED,
    EPSILONS,
    MAGNITUDE_BINS,
    MARGIN,
    MAX_ALTERNATIVES,
    MAX_CHOICES,
    MAX_FINDINGS,
    MAX_RESIDUAL,
    MAX_TOKENS,
    MIN_COSINE,
    MIN_GAIN,
    NEAR,
    SEED,
    SWAPS,
)

_PAIR = 8 + 4 * resamples.RESAMPLES
"""Bytes of an int64 key and a float32 count in each resample."""


def _listed(shares: Sequence[float], end: str) -> str:
    """Shares in words: "1, 5 or 10 %"."""
    *most, last = (f"{100 * share:.0f}" for share in shares)
    return f"{', '.join(most)} {end} {last} %"


def _exponent(value: float) -> str:
    """A small number: "1e-9"."""
    return f"{value:.0e}".replace("e-0", "e-")


def _bits(alpha: float, sigma: float) -> str:
    """What values of f1 add in the post's example, where they are half-normal."""
    return f"{(alpha**2 + 2 * alpha) / (2 * sigma**2 * math.log(2)):.2f}"


OPTIONS = (
    f"| {SEED} | of the draw", "exit 1 where a number of the summary does this",
    "| off | exit 0 although the policy is broken",
    f"(the screen, {interface.WIDTH} columns wide)",
    f"fetch more than {targets.LARGE // 10**9} GB, or more than the disk has",
)  # fmt: skip
README = (
    # Requirements, a licence, signs, and signals by their numbers.
    "Python 3.11 or newer", "Apache-2.0", "no code ≥ 0 can use",
    "| 143, 129 | ended by SIGTERM or SIGHUP |",
    f"({MAX_CHOICES} tokens)", f"|cosine| ≥ {MIN_COSINE.default:g}.",
    f"within {MAX_RESIDUAL.default:g} of the plane", f"nor to within {MAX_RESIDUAL.default:g},",
    "| 0 | ran, and the policy (if any) holds |",
    f"| {exits.BROKEN} | ran, and the policy is broken |", f"| {exits.FAILED} | could not answer",
    f"| {exits.INTERRUPTED} | interrupted |", f"| {exits.CLOSED_PIPE} | the reader closed the pipe",
)  # fmt: skip
SCORE = (
    *OPTIONS,
    # Formulas, the post's example (tests/core/codes/test_codelength.py holds it), and what a figure
    # is by its definition.
    "π = (n + ½)/(N + 1)", "Δ, Δ/2 and Δ/4", "f3 = (f2 − 3 f1)/√10: z = (1, 1, 0)",
    f"z' = (4, 0, {math.sqrt(10):.4f})", f"from 2 to {4 + math.sqrt(10):.3f}",
    "the squared L2 norm from 2 to 26", "(its change is z2(α + n − 1) ≥ 0 for every α > 0)",
    f"{math.log2(0.01 / 0.99) - math.log2(0.001 / 0.999):.3f} bits where f2 fires on 1 % and f3 on "
    "0.1 %", "(α² + 2α)/(2σ² ln 2)",
    f"{_bits(3, 1)} bits for σ = 1, {_bits(3, 2)} for σ = 2, {_bits(3, 4)} for σ = 4",
    "and 0 is proof", "is 1 − the similarity", "0.5 is chance", "Below 0, features",
    "a Poisson draw of mean 1", "Neuronpedia's 50 bins", "the 95th percentile of *their*",
    "intervals are of 95 %", "intervals of 95 % over sources", "mean and central 95 %",
    # Constants.
    f"Past the pool's {100 * (1 - codelength.TAIL):.0f}th percentile",
    f"L0 Δ²/12 is at most {100 * prices.ETA:g} % of", f"fewer than {tokens.FEWEST_DOCUMENTS} are",
    f"For {MAX_CHOICES} of the tokens measured", f"At most {cheapest.SOLVED} are",
    f"on {split.NORMED} of the tokens", f"on {resamples.RESAMPLES} resamples",
    f"The {cheapest.LISTED} shortest codes (all within {NEAR:g} bits,",
    f"{NEAR:g} means {NEAR:g} or more", f"in at least {100 * choose.SURE:.0f} % of the resamples",
    f"fewer than {prices.LEAST_PARTS} documents or blocks",
    f"fewer than {calibration.LEAST_UNITS} of them, or fewer than {calibration.LEAST_VALUES}",
    "10 sources, 400 tokens each", "a perfect prior finds 87.5 %", "a triple on 30 % of the tokens",
    f"words in over {100 * similarity.COMMON:.0f} % of the texts",
    f"the share of {disagreement.RANDOM_PAIRS:,} random pairs",
    f"at least {disagreement.LEAST_LABELS} features have two",
    f"texts of over {explanations.LONGEST} characters", f"at least {_listed(MOVED, 'or')}",
    f"({incoherence.LIKE} or more neighbours", f"of {incoherence.PERMUTATIONS} permutations",
    f"fewer than {incoherence.LEAST_CHOICES} labels or tokens",
    f"| {MARGIN:g} | lead by which", f"| {MAX_CHOICES} | choose on N", "0 for all",
    f"At least {prices.MIN_SAMPLES} samples a feature", f"fewer than {codelength.LOW_COVERAGE} are",
    f"The {resamples.RESAMPLES} resamples are held as {_PAIR} bytes",
    f"at most {4 * _PAIR} bytes",
)  # fmt: skip
SCAN = (
    *OPTIONS[1:],
    f"| {MIN_COSINE.default:g} | report pairs", f"| {MAX_RESIDUAL.default:g} | report triples",
    f"| {MIN_GAIN.default:g} | … where", "near 1 whatever stands beside",
    f"| {MAX_FINDINGS} | write at most N", "and a 64-bin histogram",
    "(Donoho & Elad 2003)", "close to 1, which says nothing",  # tests/test_figures.py has it
    f"(norm below {_exponent(dictionary.COLLAPSED_RATIO)} of the norms' 99th percentile)",
    f"more than {100 * dictionary.COLLAPSED_MOST:.0f} % of the rows",
    f"(the 99th percentile is over {dictionary.REFERENCE_FACTOR:g} times the median)",
    # What a claim says, the post's code, and a target.
    "with β > 0, in", "and β > 0. The scan", "for α < −1 it is", "(1, 1, 0), and the nearest one",
    f"an error (exit status {exits.FAILED})", "features 2861, 12998, 16146 of Gemma Scope 2b",
    "layer 16, width 16k",
)  # fmt: skip
CONTROLS = (
    # Formulas.
    "N(0, U'U/n)", "about 1/√N",
    f"over {_exponent(tolerances.ZERO)} of the target's norm",
    f"the first {tokens.PILOT:,} activations", f"groups of {incoherence.LIKE} or more",
)  # fmt: skip
MEDIATORS = (
    *OPTIONS,
    "have intervals of 95 %",
    f"fewer than {calibration.LEAST_UNITS} of them, or fewer than {calibration.LEAST_VALUES}",
    # The post's example, and what a figure is by its definition.
    "is 1 on the features", "z = (1, 1, 0)", "z' = (1 + α, 0, 1)", "f1 from 1 to 1 + α",
    "has a change of 2", "At ε = 0", "exit status 2", "0 for all",
    # Constants.
    f"in {MAGNITUDE_BINS} bins", f"at most {arrow.UNPACKED >> 30} GiB a file",
    f"million activations of width 2,304 in float16 are {1e6 * 2304 * 2 / 1e9:.1f} GB",
    f"{MAX_TOKENS} of them are looked at", f"more than {_exponent(tolerances.ENTERS)}",
    f"up to {_exponent(tolerances.TOLERANCE)} of ‖x‖²",
    f"at least 0 (any), {_listed(CHANGED[1:], 'and')}",
    f"fewer than {tokens.FEWEST_DOCUMENTS}, blocks of {tokens.BLOCK} neighbours",
    "there are 50 at least", f"first {tokens.PILOT:,} drawn", f"the first {codes.WINDOW} of these",
    f"leaves more than {misfit.POOR:g} of", f"more than {misfit.DENSE:g} times the usual",
    f"the first {misfit.TRIED} of them", f"over {tokens.OUTLIER:g} times the median",
    f"more than max({tokens.TOY}, d/2)", "4 k F (d + k) + 16 k⁴", "over 2⁴²",
    f"allows {tokens.most_active(2048, 384)} features for the sample, and "
    f"{tokens.most_active(16384, 2304)} for 16,384 features in 2,304 dimensions",
    f"closer than {_exponent(math.sqrt(tolerances.DEPENDENT))} (sine",
    f"| {', '.join(f'{e:g}' for e in EPSILONS)} | tolerances",
    "| 0 | write alternatives", f"| {SWAPS} | exchanges", f"| {BEAM} | codes to go on",
    f"| {MAX_ALTERNATIVES} | write at most", f"| {MAX_TOKENS} | look at N",
)  # fmt: skip
PROVENANCE = (
    # How the SAEs were trained and the files were made is kept by this page alone.
    "(Apache-2.0), hidden state after layer 3, d = 384", "WordNet 3.0 glosses",
    "at most 128 tokens", "1.2 million tokens", "Width 2048, BatchTopK k = 24 in training "
    "(900 steps of 2048 tokens", "5000 held-out activations [5000, 384] float16",
    "the first 128 principal axes",
    "a 50-bin histogram", "over 300,000 tokens", "[4096, 384] float16", "(0–2047)", "(2048–4095)",
)  # fmt: skip
COLLECT = (
    # Computed from the shapes of Gemma 2 2B and its SAE; the page says so.
    "0.3 GB to fetch (16,384 features, twice 2,304 numbers of 4 bytes)", "google/gemma-2-2b",
    "2.6 billion numbers: 10.5 GB in float32, 5.2 GB in memory in bfloat16",
    "| 100,000 activations on disk | 0.46 GB in bfloat16, 0.92 GB in float32",
    "reading 100,000 tokens as far as layer 16 | 2.6 × 10¹⁴ operations: 45 minutes",
    "at 10¹¹ a second",
    "half a minute at 10¹³",
    # Names, and what options mean.
    "Gemma Scope 2", "GPT-2", "(its row, from 0)", "-1 where there is none", "0 for those of all",
    # Constants.
    f"leaves more than {misfit.POOR:g} of their variance",
    f"{COLLECTED:,} activations ( )", f"| {COLLECTED} | stop after N",
    "above 10 times the median norm", f"of the first {misfit.TRIED},",
    f"the tokens [n, {manifest.BEFORE}] and [n, {manifest.AFTER}] it",
    f"else {collecting.CONTEXT} or what the model takes", f"| {SEED} | of that draw",
    f"| {collecting.BATCH} | documents that are read at once",
)  # fmt: skip
TUTORIAL = ("Python 3.11 or newer",)
READING = ()
